//! Several real servers on one database, writers on all of them, readers that change servers
//! between two looks. At the end every reader holds what a full sync shows, no version was given
//! twice, seqs are dense and red dots add up. `scripts/soak` runs the same for longer.

use std::time::Duration;

use crate::support::fleet::Fleet;
use crate::support::storm::{Plan, storm};
use crate::support::{Engine, OwnServers, TestDatabase};

/// Minutes that `scripts/soak` wants.
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
        // As many as WuKongIM puts into one, at most.
        batch: if minutes.is_some() { 100 } else { 10 },
        pause: Duration::from_millis(if minutes.is_some() { 50 } else { 5 }),
    }
}

async fn calm(engine: Engine, servers: usize) {
    let database = TestDatabase::create(engine).await;
    let fleet = Fleet::start(vec![database.url.clone(); servers], Vec::new()).await;
    let report = storm(&fleet, &database.url, plan(8), async |_| {}).await;
    println!(
        "{engine:?}, {servers} servers: {report}, {} MiB of memory each",
        fleet.memory() / 1024 / servers as u64
    );
    assert_eq!(report.refused, 0, "nobody was refused");
    assert!(report.writes > 200 && report.reads > 100, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_postgres() {
    calm(Engine::Postgres, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_mariadb() {
    calm(Engine::MariaDb, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_mysql() {
    calm(Engine::MySql, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_sqlite_file() {
    calm(Engine::Sqlite, 2).await;
}

/// PgBouncer in transaction mode, as its package ships it: nothing is kept on a connection from one
/// transaction to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_behind_pgbouncer() {
    let own = OwnServers::start(&["postgres", "pgbouncer"]).await;
    let database =
        TestDatabase::create_on(Engine::Postgres, own.url("RECENTS_TEST_POSTGRES")).await;
    let (_, name) = database.url.rsplit_once('/').unwrap();
    let pooled = format!("{}/{name}", own.url("RECENTS_TEST_PGBOUNCER"));
    let fleet = Fleet::start(
        vec![pooled; 3],
        vec![("RECENTS__DATABASE__TRANSACTION_POOLER", "true")],
    )
    .await;
    let report = storm(&fleet, &database.url, plan(6), async |_| {}).await;
    println!("PgBouncer, 3 servers: {report}");
    assert_eq!(report.refused, 0, "nobody was refused");
    assert!(report.writes > 200 && report.reads > 100, "{report}");
}

/// Three nodes, a server on each: locks of one node mean nothing to the others, conflicts come back
/// as deadlocks, also at COMMIT. In the middle a node is killed and joins again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_each_node_of_a_galera_cluster() {
    let own = OwnServers::start(&["galera"]).await;
    let nodes: Vec<&str> = own.url("RECENTS_TEST_GALERA").split(' ').collect();
    let database = TestDatabase::create_on(Engine::MariaDb, nodes[0]).await;
    let (_, name) = database.url.rsplit_once('/').unwrap();
    let fleet = Fleet::start(
        nodes.iter().map(|node| format!("{node}/{name}")).collect(),
        Vec::new(),
    )
    .await;
    let report = storm(&fleet, &database.url, plan(20), async |_| {
        tokio::time::sleep(Duration::from_secs(6)).await;
        own.crash("galera3").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        own.resume("galera3").await;
    })
    .await;
    println!("Galera, a server on each of 3 nodes: {report}");
    assert!(report.retried > 0, "no conflict between nodes: {report}");
    assert!(report.writes > 200 && report.reads > 100, "{report}");
}
