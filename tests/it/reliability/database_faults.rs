//! Databases that are unreachable, slow, full, read-only, or out of connections. The answer is 503
//! with `Retry-After` within the time limit (in GraphQL its code), `/readyz` reports it while it
//! lasts, and no restart is needed afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use serde_json::json;

use crate::support::proxy::Proxy;
use crate::support::server::{TRY_AGAIN, message, payload};
use crate::support::{Engine, Server, TestDatabase, ThrowawayServers};

const LIMIT: Duration = Duration::from_secs(2);

async fn server_on(database: TestDatabase, url: &str) -> Server {
    Server::start_on(Arc::new(database), |settings| {
        settings.database.url = url.into();
        settings.database.acquire_timeout_seconds = 1;
        settings.limits.request_timeout_seconds = LIMIT.as_secs();
    })
    .await
}

/// A send that cannot be done now.
async fn refuses_to_write(server: &Server, what: &str) {
    refuses(server, what, &payload("refused")).await;
}

async fn refuses(server: &Server, what: &str, payload: &str) {
    let begun = Instant::now();
    let mut body = message("bob", "ann", 1, "refused");
    body["payload"] = json!(payload);
    let response = server
        .http("POST", "/message/send")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    let (status, retry) = (
        response.status().as_u16(),
        response.headers().get("retry-after").cloned(),
    );
    let text = response.text().await.unwrap();
    assert_eq!(
        (status, retry.as_ref().map(|value| value.as_bytes())),
        (503, Some(b"1".as_slice())),
        "{what}: {text}"
    );
    let mutation = "mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message { messageSeq } } }";
    let input = json!({"fromUid": "bob", "channel": {"channelId": "ann", "channelType": 1}, "payload": payload, "clientMsgNo": "refused"});
    let code = server.graphql_code(mutation, json!({"input": input})).await;
    assert!(TRY_AGAIN.contains(&code.as_str()), "{what}: {code}");
    assert!(
        begun.elapsed() < 2 * LIMIT + Duration::from_secs(2),
        "{what}: two answers took {:?}",
        begun.elapsed()
    );
    let ready = server.request(server.http("GET", "/readyz")).await;
    assert_eq!(ready.status, 503, "{what}: {ready:?}");
    assert_eq!(
        server.request(server.http("GET", "/livez")).await.status,
        200
    );
}

/// The database works again, without a restart of the server: each refused request is done once
/// when it is repeated.
async fn recovers(server: &Server, what: &str) {
    let begun = Instant::now();
    loop {
        let ready = server.request(server.http("GET", "/readyz")).await;
        if ready.status == 200 {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{what}: it is not ready again: {ready:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = server.only("ann").await["last_msg_seq"].as_i64().unwrap();
    let name = format!("refused during {what}");
    assert_eq!(
        server.send("bob", "ann", 1, &name).await["message_seq"],
        before + 1
    );
    assert_eq!(
        server.send("bob", "ann", 1, &name).await["message_seq"],
        before + 1
    );
    // No connection and no lock is left behind: as many concurrent requests succeed as there are
    // connections.
    let names: Vec<String> = (0..8)
        .map(|number| format!("after {what} {number}"))
        .collect();
    futures_util::future::join_all(names.iter().map(|name| server.send("bob", "ann", 1, name)))
        .await;
}

async fn unreachable_and_slow(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let proxy = Proxy::before(&database).await;
    let url = proxy.url.clone();
    let server = server_on(database, &url).await;
    server.send("bob", "ann", 1, "one").await;

    proxy.set_down(true);
    refuses_to_write(&server, "nobody listens").await;
    let sync = server.post("/conversation/sync", r#"{"uid":"ann"}"#).await;
    assert_eq!(sync.status, 503, "{sync:?}");
    proxy.set_down(false);
    recovers(&server, "nobody listens").await;

    proxy.set_delay(Duration::from_secs(3));
    refuses_to_write(&server, "every statement takes 3 s").await;
    proxy.set_delay(Duration::ZERO);
    recovers(&server, "every statement takes 3 s").await;

    for _ in 0..3 {
        proxy.cut();
        let answer = server.post("/conversation/sync", r#"{"uid":"ann"}"#).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
    }
    recovers(&server, "its connections broke").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_unreachable_and_slow() {
    unreachable_and_slow(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_unreachable_and_slow() {
    unreachable_and_slow(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_unreachable_and_slow() {
    unreachable_and_slow(Engine::MySql).await;
}

/// Both errors have the same number. A missing function is a bug in the statement; a missing
/// savepoint means that the transaction was rolled back silently, and it is retried.
async fn missing_functions_and_savepoints(engine: Engine) {
    let connection = TestDatabase::create(engine).await.connect().await;
    for (sql, is_transient) in [
        ("SELECT nowhere()", false),
        ("RELEASE SAVEPOINT nowhere", true),
    ] {
        let error =
            recents::store::StoreError::from(connection.execute_unprepared(sql).await.unwrap_err());
        assert!(error.to_string().contains("1305"), "{sql}: {error}");
        assert_eq!(error.is_transient(), is_transient, "{sql}: {error}");
    }
}

#[tokio::test]
async fn mariadb_missing_functions_and_savepoints() {
    missing_functions_and_savepoints(Engine::MariaDb).await;
}

#[tokio::test]
async fn mysql_missing_functions_and_savepoints() {
    missing_functions_and_savepoints(Engine::MySql).await;
}

async fn execute(connection: &DatabaseConnection, sql: &str) {
    connection
        .execute_unprepared(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Creates a database, and returns the URL of a user without superuser privileges.
async fn with_a_common_user(
    engine: Engine,
    servers: &ThrowawayServers,
) -> (TestDatabase, String, DatabaseConnection) {
    let database = TestDatabase::create_on(engine, servers.url(engine.server().1)).await;
    let admin = database.connect().await;
    let (server, name) = database.url.rsplit_once('/').unwrap();
    let address = server.rsplit_once('@').unwrap().1;
    let url = if engine == Engine::Postgres {
        execute(&admin, "CREATE ROLE common LOGIN").await;
        execute(&admin, &format!("ALTER DATABASE {name} OWNER TO common")).await;
        execute(&admin, "GRANT ALL ON SCHEMA public TO common").await;
        format!("postgres://common@{address}/{name}")
    } else {
        execute(
            &admin,
            "CREATE USER 'common'@'127.0.0.1' IDENTIFIED BY 'common'",
        )
        .await;
        execute(
            &admin,
            &format!("GRANT ALL ON {name}.* TO 'common'@'127.0.0.1'"),
        )
        .await;
        format!("mysql://common:common@{address}/{name}")
    };
    (database, url, admin)
}

/// First without free connections, then read-only, then without disk space.
async fn read_only_or_exhausted(engine: Engine) {
    let (name, _) = engine.server();
    let disk = SmallDisk::mount(if engine == Engine::Postgres { 400 } else { 640 });
    let servers = ThrowawayServers::start_in(&disk.path, &[name]).await;
    let (database, url, admin) = with_a_common_user(engine, &servers).await;
    let server = server_on(database, &url).await;
    server.send("bob", "ann", 1, "one").await;

    let mut holders = Vec::new();
    if engine == Engine::Postgres {
        execute(&admin, "ALTER ROLE common CONNECTION LIMIT 0").await;
        execute(
            &admin,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'common'",
        )
        .await;
    } else {
        execute(&admin, "SET GLOBAL max_connections = 10").await;
        let theirs =
            "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE user = 'common'";
        for row in admin
            .query_all_raw(Statement::from_string(
                admin.get_database_backend(),
                theirs.to_owned(),
            ))
            .await
            .unwrap()
        {
            execute(
                &admin,
                &format!("KILL {}", row.try_get_by_index::<i64>(0).unwrap()),
            )
            .await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        while let Ok(connection) = Database::connect(&url).await {
            holders.push(connection);
            assert!(holders.len() < 20);
        }
    }
    refuses_to_write(&server, "no connection is left").await;
    for holder in holders {
        holder.close().await.unwrap();
    }
    let enough = if engine == Engine::Postgres {
        "ALTER ROLE common CONNECTION LIMIT -1"
    } else {
        "SET GLOBAL max_connections = 100"
    };
    execute(&admin, enough).await;
    recovers(&server, "no connection is left").await;

    let (on, off) = match engine {
        Engine::Postgres => (
            vec![
                "ALTER SYSTEM SET default_transaction_read_only = on",
                "SELECT pg_reload_conf()",
            ],
            vec![
                "ALTER SYSTEM RESET default_transaction_read_only",
                "SELECT pg_reload_conf()",
            ],
        ),
        _ => (
            vec!["SET GLOBAL read_only = 1"],
            vec!["SET GLOBAL read_only = 0"],
        ),
    };
    let before = server.full("ann").await;
    for sql in on {
        execute(&admin, sql).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    refuses_to_write(&server, "the database is read-only").await;
    assert_eq!(
        server.full("ann").await,
        before,
        "who has nothing new to see is served"
    );
    for sql in off {
        execute(&admin, sql).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    recovers(&server, "the database is read-only").await;

    let filler = disk.fill();
    let big = message("bob", "ann", 1, "big");
    let mut refused = false;
    for number in 0..200 {
        let mut body = big.clone();
        body["client_msg_no"] = json!(format!("big-{number}"));
        body["payload"] = json!(payload(&"x".repeat(150_000)));
        let answer = server.post("/message/send", body.to_string()).await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        if answer.status == 503 {
            refused = true;
            break;
        }
    }
    assert!(refused, "the disk was never full");
    let ready = server.request(server.http("GET", "/readyz")).await;
    assert_eq!(ready.status, 503, "the disk is full: {ready:?}");
    std::fs::remove_file(filler).unwrap();
    if !is_there(&admin).await {
        servers.crash(name).await;
        servers.resume(name).await;
    }
    recovers(&server, "the disk is full").await;
}

async fn is_there(connection: &DatabaseConnection) -> bool {
    for _ in 0..30 {
        let statement =
            Statement::from_string(connection.get_database_backend(), "SELECT 1".to_owned());
        if connection.query_one_raw(statement).await.is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_read_only_or_exhausted_root_only() {
    read_only_or_exhausted(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_read_only_or_exhausted_root_only() {
    read_only_or_exhausted(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_read_only_or_exhausted_root_only() {
    read_only_or_exhausted(Engine::MySql).await;
}

/// A file system in memory with the given size in MiB. Mounting needs root.
struct SmallDisk {
    path: std::path::PathBuf,
}

fn mount(arguments: &[&str]) {
    let done = std::process::Command::new("mount")
        .args(arguments)
        .status()
        .unwrap();
    assert!(
        done.success(),
        "mount {arguments:?}: the tests with full disks must run as root"
    );
}

impl SmallDisk {
    fn mount(mebibytes: u32) -> Self {
        let path = tempfile::tempdir().unwrap().keep();
        mount(&[
            "-t",
            "tmpfs",
            "-o",
            &format!("size={mebibytes}m,mode=755"),
            "tmpfs",
            path.to_str().unwrap(),
        ]);
        Self { path }
    }

    /// Fills the disk, and returns the file to remove.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.path.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        let block = vec![1; 1 << 16];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.path)
            .status();
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_on_a_full_disk_root_only() {
    let disk = SmallDisk::mount(8);
    let database = TestDatabase::sqlite_in(&disk.path);
    let url = database.url.clone();
    let server = server_on(database, &url).await;
    server.send("bob", "ann", 1, "one").await;

    let filler = disk.fill();
    // Small messages may still fit for a while.
    refuses(&server, "the disk is full", &payload(&"x".repeat(200_000))).await;
    std::fs::remove_file(filler).unwrap();
    recovers(&server, "the disk is full").await;
}
