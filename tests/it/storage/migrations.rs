//! Migrations up and down, and two servers that start concurrently.

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde_json::json;

use crate::support::process::{Process, run, stderr, stdout};
use crate::support::server::settings;
use crate::support::{Engine, Server, TestDatabase, ThrowawayServers};

on_every_database!(
    up_down_up,
    two_servers_migrate_concurrently,
    missing_migrations_are_refused_when_disabled,
    columns_and_indexes
);

async fn texts(connection: &DatabaseConnection, sql: &str) -> Vec<String> {
    let rows = connection
        .query_all_raw(Statement::from_string(
            connection.get_database_backend(),
            sql,
        ))
        .await
        .unwrap();
    rows.iter()
        .map(|row| row.try_get_by_index::<String>(0).unwrap())
        .collect()
}

async fn tables(database: &TestDatabase) -> Vec<String> {
    let connection = database.connect().await;
    let sql = match database.engine {
        Engine::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1",
        Engine::Postgres => {
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
        }
        Engine::MariaDb | Engine::MySql => {
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1"
        }
    };
    texts(&connection, sql)
        .await
        .into_iter()
        .filter(|name| name != "seaql_migrations")
        .collect()
}

async fn up_down_up(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let folder = tempfile::tempdir().unwrap();
    let migrate = |arguments: &[&str]| {
        let output = run(
            folder.path(),
            &[&["migrate"], arguments].concat(),
            &[("RECENTS__DATABASE__URL", &database.url)],
        );
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    };
    let all = [
        "channel",
        "conversation",
        "feeder",
        "import_progress",
        "late_message",
        "message",
        "pending_removal",
        "sender_mark",
        "user_cursor",
    ];
    assert!(migrate(&["status"]).starts_with("missing"));
    for round in 0..2 {
        assert!(migrate(&["up"]).starts_with("applied"), "round {round}");
        assert_eq!(tables(&database).await, all, "round {round}");
        assert!(
            migrate(&["up"]).starts_with("applied"),
            "nothing to do is no error"
        );
        assert!(
            migrate(&["down", "--steps", "1000"]).starts_with("missing"),
            "round {round}"
        );
        assert_eq!(
            tables(&database).await,
            Vec::<String>::new(),
            "round {round}"
        );
    }
    migrate(&["up"]);
    let server = Server::start_on(std::sync::Arc::new(database), |_| {}).await;
    server.send("bob", "ann", 1, "one").await;
    assert_unread!(server, "ann", 1);
}

/// Starts a server on each of these URLs of one database, all at the same time. Each must serve.
async fn start_concurrently(urls: &[&str]) {
    let servers: Vec<Process> = std::thread::scope(|scope| {
        let starts: Vec<_> = urls
            .iter()
            .map(|url| scope.spawn(move || Process::start_with(url, &[])))
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    for (number, server) in servers.iter().enumerate() {
        let message = crate::support::server::message("bob", "ann", 1, &format!("m{number}"));
        assert_eq!(
            server.call("/message/send", message).await["data"]["message_seq"],
            number as i64 + 1,
            "server {number}"
        );
    }
    assert_eq!(
        servers[0]
            .call("/conversation/sync", json!({"uid": "ann"}))
            .await[0]["unread"],
        urls.len()
    );
}

async fn two_servers_migrate_concurrently(engine: Engine) {
    for _ in 0..3 {
        let database = TestDatabase::create(engine).await;
        start_concurrently(&[database.url.as_str(); 3]).await;
    }
}

/// A lock on one node does not exist on the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn galera_servers_migrate_concurrently_on_all_nodes() {
    let cluster = ThrowawayServers::start(&["galera"]).await;
    let nodes: Vec<&str> = cluster.url("RECENTS_TEST_GALERA").split(' ').collect();
    for round in 0..8 {
        let database = TestDatabase::create_on(Engine::MariaDb, nodes[round % nodes.len()]).await;
        let everywhere: Vec<TestDatabase> =
            nodes.iter().map(|node| database.on_node(node)).collect();
        let mut urls: Vec<&str> = everywhere
            .iter()
            .map(|database| database.url.as_str())
            .collect();
        // Two servers on one node, too.
        if round % 2 == 1 {
            urls.extend_from_within(..);
        }
        start_concurrently(&urls).await;
    }
}

/// A node without contact to the others refuses every statement until they are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn galera_server_waits_for_its_node() {
    let cluster = ThrowawayServers::start(&["galera"]).await;
    let (node, _) = cluster.url("RECENTS_TEST_GALERA").split_once(' ').unwrap();
    let database = TestDatabase::create_on(Engine::MariaDb, node).await;
    cluster.crash("galera2").await;
    cluster.crash("galera3").await;
    let connection = database.connect().await;
    let begun = std::time::Instant::now();
    while connection
        .execute_unprepared("CREATE TABLE probe (id BIGINT PRIMARY KEY)")
        .await
        .is_ok()
    {
        connection
            .execute_unprepared("DROP TABLE probe")
            .await
            .unwrap();
        assert!(
            begun.elapsed().as_secs() < 30,
            "the node does not notice that it is alone"
        );
    }
    let url = database.url.clone();
    let start = std::thread::spawn(move || Process::start_with(&url, &[]));
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    assert!(!start.is_finished(), "it did not wait for its node");
    tokio::join!(cluster.resume("galera2"), cluster.resume("galera3"));
    let server = start.join().unwrap();
    assert_eq!(server.get("/readyz").await.0, 200);
}

async fn missing_migrations_are_refused_when_disabled(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let mut settings = settings(&database);
    settings.database.migrate = false;
    let error = recents::server::open_store(&settings)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("recents migrate up") && error.contains("m20261101_tables"),
        "{error}"
    );
}

/// The design's requirements on the schema: integers of 64 bits, IDs that compare bytewise, and the
/// indexes.
async fn columns_and_indexes(engine: Engine) {
    let server = Server::start(engine).await;
    let connection = server.database.connect().await;
    let sql = match engine {
        Engine::Sqlite => "SELECT sql FROM sqlite_master WHERE tbl_name IN ('channel', 'conversation', 'message', 'user_cursor') AND sql IS NOT NULL",
        Engine::Postgres => {
            "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || coalesce(collation_name, '') FROM information_schema.columns
             WHERE table_schema = 'public' UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
        }
        Engine::MariaDb | Engine::MySql => {
            "SELECT CONCAT(table_name, '.', column_name, ' ', column_type) FROM information_schema.columns WHERE table_schema = DATABASE()
             UNION ALL SELECT CONCAT('INDEX ', table_name, ' (', GROUP_CONCAT(column_name ORDER BY seq_in_index SEPARATOR ', '), ')')
             FROM information_schema.statistics WHERE table_schema = DATABASE() GROUP BY table_name, index_name"
        }
    };
    let described = texts(&connection, sql).await.join("\n");
    let expected: &[&str] = match engine {
        Engine::Sqlite => &[
            "\"uid\" text NOT NULL",
            "WITHOUT ROWID",
            "\"message_id\"",
            "(\"channel_id\", \"message_id\")",
            "(\"channel_id\", \"client_msg_no\")",
        ],
        Engine::Postgres => &[
            "conversation.uid text C",
            "channel.channel_key text C",
            "message.client_msg_no text C",
            "message.message_id bigint",
            "message.payload bytea",
            "(channel_id, message_id)",
            "(uid, channel_id)",
            "(channel_id, seq)",
            "(channel_id, client_msg_no)",
        ],
        Engine::MariaDb | Engine::MySql => &[
            "conversation.uid varbinary(255)",
            "channel.channel_key varbinary(514)",
            "message.client_msg_no varbinary(255)",
            // MariaDB adds a display width.
            "message.message_id bigint",
            "message.payload longblob",
            "message (channel_id, message_id)",
            "conversation (uid, channel_id)",
            "message (channel_id, seq)",
            "message (channel_id, client_msg_no)",
        ],
    };
    for part in expected {
        assert!(described.contains(part), "{part} is not in\n{described}");
    }
    assert!(!described.to_lowercase().contains("foreign"), "{described}");
}
