//! Several real servers on one database, with writers on all of them and readers that switch
//! servers between syncs. At the end every reader holds the result of a full sync, no version was
//! assigned twice, seqs are dense and red dots add up. `scripts/soak` runs the same for longer.

use std::time::Duration;

use crate::support::cluster::ServerCluster;
use crate::support::load::{Plan, run_load};
use crate::support::{Engine, TestDatabase, ThrowawayServers};

/// `scripts/soak` sets the duration in minutes.
fn plan(seconds: u64) -> Plan {
    let minutes: Option<u64> = std::env::var("RECENTS_SOAK_MINUTES")
        .ok()
        .map(|minutes| minutes.parse().unwrap());
    let operations = std::env::var("RECENTS_SOAK_OPERATIONS")
        .ok()
        .map(|operations| operations.parse().unwrap());
    Plan {
        writers: 12,
        time: Duration::from_secs(minutes.map_or(seconds, |minutes| minutes * 60)),
        least_steps: 25,
        operations: operations.unwrap_or(u64::MAX),
        // The largest number that WuKongIM puts into one body.
        batch: if minutes.is_some() { 100 } else { 10 },
        pause: Duration::from_millis(if minutes.is_some() { 50 } else { 5 }),
    }
}

async fn run_on_one_database(engine: Engine, servers: usize) {
    let database = TestDatabase::create(engine).await;
    let cluster = ServerCluster::start(vec![database.url.clone(); servers], Vec::new()).await;
    let report = run_load(&cluster, &database.url, plan(8), async |_| {}).await;
    println!(
        "{engine:?}, {servers} servers: {report}, {} MiB of memory each",
        cluster.memory() / 1024 / servers as u64
    );
    assert_eq!(report.refused, 0, "no request was refused");
    assert!(report.writes > 200 && report.reads > 100, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_postgres() {
    run_on_one_database(Engine::Postgres, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_mariadb() {
    run_on_one_database(Engine::MariaDb, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_mysql() {
    run_on_one_database(Engine::MySql, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_sqlite_file() {
    run_on_one_database(Engine::Sqlite, 2).await;
}

/// PgBouncer in transaction mode with its package's settings: a connection keeps nothing from one
/// transaction to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_behind_pgbouncer() {
    let servers = ThrowawayServers::start(&["postgres", "pgbouncer"]).await;
    let database =
        TestDatabase::create_on(Engine::Postgres, servers.url("RECENTS_TEST_POSTGRES")).await;
    let (_, name) = database.url.rsplit_once('/').unwrap();
    let pooled = format!("{}/{name}", servers.url("RECENTS_TEST_PGBOUNCER"));
    let cluster = ServerCluster::start(
        vec![pooled; 3],
        vec![("RECENTS__DATABASE__TRANSACTION_POOLER", "true")],
    )
    .await;
    let report = run_load(&cluster, &database.url, plan(6), async |_| {}).await;
    println!("PgBouncer, 3 servers: {report}");
    assert_eq!(report.refused, 0, "no request was refused");
    assert!(report.writes > 200 && report.reads > 100, "{report}");
}

/// Three nodes with a server on each: the locks of one node do not exist on the others, and
/// conflicts are reported as deadlocks, also at COMMIT. During the test a node is killed and joins
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_on_each_galera_node() {
    let servers = ThrowawayServers::start(&["galera"]).await;
    let nodes: Vec<&str> = servers.url("RECENTS_TEST_GALERA").split(' ').collect();
    let database = TestDatabase::create_on(Engine::MariaDb, nodes[0]).await;
    let (_, name) = database.url.rsplit_once('/').unwrap();
    let cluster = ServerCluster::start(
        nodes.iter().map(|node| format!("{node}/{name}")).collect(),
        Vec::new(),
    )
    .await;
    let report = run_load(&cluster, &database.url, plan(20), async |_| {
        tokio::time::sleep(Duration::from_secs(6)).await;
        servers.crash("galera3").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        servers.resume("galera3").await;
    })
    .await;
    println!("Galera, a server on each of 3 nodes: {report}");
    assert!(report.retried > 0, "no conflict between nodes: {report}");
    assert!(report.writes > 200 && report.reads > 100, "{report}");
}
