//! Clients that disconnect before, during and after each statement of each request. Afterwards
//! nothing of them is left in the database, no transaction, no lock and no broken connection, and
//! other clients are not affected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::proxy::{Fate, Pair};
use crate::support::server::{message, webhook_message};
use crate::support::{Engine, Server, TestDatabase, ThrowawayServers};

on_every_database!(many_disconnects);

/// One request of every kind, with different content for each number.
fn requests(number: i64) -> Vec<(&'static str, String)> {
    let target = |more: Value| {
        let mut body = json!({"uid": "ann", "channel_id": "team", "channel_type": 2, "subscribers": ["ann", format!("new{number}")]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let graphql = |query: &str| json!({"query": query}).to_string();
    let mut offline = webhook_message("bob", "team", 2, 5000 + number, 700_000 + number);
    offline["to_uids"] = json!(["ann", format!("cid{number}")]);
    vec![
        (
            "/conversation/sync",
            json!({"uid": "ann", "version": 0, "msg_count": 5}).to_string(),
        ),
        (
            "/message/send",
            message("bob", "team", 2, &format!("sent {number}")).to_string(),
        ),
        (
            "/message/send",
            message("dan", "ann", 1, &format!("said {number}")).to_string(),
        ),
        (
            "/conversations/setUnread",
            target(json!({"unread": number % 7 + 1})),
        ),
        ("/conversations/delete", target(json!({}))),
        (
            "/webhook?event=msg.notify",
            json!([webhook_message("bob", "feed", 2, number, 500_000 + number)]).to_string(),
        ),
        ("/webhook?event=msg.offline", offline.to_string()),
        ("/channel", target(json!({"reset": 0}))),
        ("/channel/subscriber_remove", target(json!({}))),
        ("/channel/subscriber_add", target(json!({}))),
        (
            "/channel/messagesync",
            json!({"login_uid": "ann", "channel_id": "team", "channel_type": 2, "limit": 10})
                .to_string(),
        ),
        (
            "/graphql",
            graphql(
                "{ conversations(uid: \"ann\", msgCount: 3) { version } unreadSummary(uid: \"ann\") { total } }",
            ),
        ),
        (
            "/graphql",
            graphql(
                "{ conversationList(uid: \"ann\", first: 3) { nodes { unread lastMessage { content } } } }",
            ),
        ),
        (
            "/graphql",
            graphql("mutation { markAllRead(input: {uid: \"ann\"}) { unreadSummary { total } } }"),
        ),
    ]
}

/// Sends a request on a new connection, whose response nobody reads.
async fn send_only(server: &Server, path: &str, body: &str) -> tokio::net::TcpStream {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Closes the connection with a reset, as a killed client does.
fn reset(stream: tokio::net::TcpStream) {
    stream.set_zero_linger().unwrap();
}

async fn count(connection: &DatabaseConnection, sql: &str) -> i64 {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    connection
        .query_one_raw(statement)
        .await
        .unwrap()
        .unwrap()
        .try_get_by_index(0)
        .unwrap()
}

/// Query for the open transactions of this database, in the server's own view. On MySQL and
/// MariaDB: those of sessions that are connected to it.
fn open_transactions(engine: Engine) -> Option<&'static str> {
    match engine {
        Engine::Sqlite => None,
        Engine::Postgres => Some(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND (state LIKE 'idle in transaction%' OR state = 'active')",
        ),
        Engine::MariaDb | Engine::MySql => Some(
            "SELECT COUNT(*) FROM information_schema.innodb_trx JOIN information_schema.processlist ON id = trx_mysql_thread_id \
             WHERE db = DATABASE() AND id <> CONNECTION_ID()",
        ),
    }
}

/// Asserts that nothing is left: no open transaction, no table lock, and every connection of the
/// pool works.
async fn assert_nothing_is_left(server: &Server, name: &str) {
    let engine = server.database.engine;
    let connection = server.database.connect().await;
    if let Some(open) = open_transactions(engine) {
        let begun = Instant::now();
        while count(&connection, open).await > 0 {
            assert!(
                begun.elapsed() < Duration::from_secs(3),
                "{name}: a transaction is left open"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for table in ["channel", "conversation", "user_cursor", "message"] {
            let lock = match engine {
                Engine::Postgres => {
                    format!(
                        "BEGIN; SET LOCAL lock_timeout = '1s'; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; COMMIT"
                    )
                }
                _ => format!("SET lock_wait_timeout = 1; LOCK TABLES {table} WRITE; UNLOCK TABLES"),
            };
            connection
                .execute_unprepared(&lock)
                .await
                .unwrap_or_else(|error| panic!("{name}: {table} is locked: {error}"));
        }
    }
    let all = (0..16).map(|number| async move {
        let text = format!("{name} after {number}");
        let sent = server
            .post(
                "/message/send",
                message("eve", &format!("free{number}"), 2, &text).to_string(),
            )
            .await;
        let read = server
            .post(
                "/conversation/sync",
                json!({"uid": format!("eve{number}")}).to_string(),
            )
            .await;
        assert_eq!(
            (sent.status, read.status),
            (200, 200),
            "{name}: {sent:?}, {read:?}"
        );
    });
    futures_util::future::join_all(all).await;
    connection.close().await.unwrap();
}

/// The moments at which the client disconnects.
const MOMENTS: [Fate; 3] = [Fate::Hold, Fate::HoldAnswer, Fate::Late];

async fn at_every_statement(engine: Engine) {
    let direct = Server::start(engine).await;
    direct.group("team", &["ann", "bob", "dan"]).await;
    direct.send("bob", "team", 2, "first").await;
    let pair = Pair::open(&direct, &direct.database).await;
    let mut left = 0;
    let mut number = 0;
    for moment in MOMENTS {
        for kind in 0..requests(0).len() {
            for passing in 0..30 {
                number += 1;
                let (path, body) = requests(number).swap_remove(kind);
                pair.proxy.plan(passing, moment);
                let client = send_only(&pair.behind, path, &body).await;
                // Held, or answered without such a statement.
                let is_held = tokio::select! {
                    biased;
                    () = pair.proxy.held() => true,
                    () = async { while client.ready(tokio::io::Interest::READABLE).await.is_err() {} } => false,
                };
                if is_held {
                    reset(client);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    if moment != Fate::Late {
                        pair.proxy.release();
                    }
                    left += 1;
                } else {
                    assert!(!pair.proxy.was_met(), "{path} {body}, statement {passing}");
                    assert!(passing > 0, "{path} {body} asks the database for nothing");
                    break;
                }
            }
            assert_nothing_is_left(
                &pair.behind,
                &format!("{moment:?} {} {kind}", requests(0)[kind].0),
            )
            .await;
        }
    }
    println!("{engine:?}: {left} hang-ups");
    assert!(left > 120, "{left} hang-ups only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    at_every_statement(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb() {
    at_every_statement(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql() {
    at_every_statement(Engine::MySql).await;
}

/// Many clients reset their connections after some milliseconds. Other clients are served
/// meanwhile.
async fn many_disconnects(engine: Engine) {
    disconnect_many(&Server::start(engine).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_disconnects_behind_pgbouncer() {
    let servers = ThrowawayServers::start(&["postgres", "pgbouncer"]).await;
    let database =
        TestDatabase::create_on(Engine::Postgres, servers.url("RECENTS_TEST_POSTGRES")).await;
    let (_, name) = database.url.rsplit_once('/').unwrap();
    let pooled = format!("{}/{name}", servers.url("RECENTS_TEST_PGBOUNCER"));
    let server = Server::start_on(Arc::new(database), |settings| {
        settings.database.url = pooled.as_str().into();
        settings.database.transaction_pooler = true;
    })
    .await;
    disconnect_many(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_disconnects_on_a_galera_node() {
    let servers = ThrowawayServers::start(&["galera"]).await;
    let nodes: Vec<&str> = servers.url("RECENTS_TEST_GALERA").split(' ').collect();
    let database = TestDatabase::create_on(Engine::MariaDb, nodes[0]).await;
    disconnect_many(&Server::start_on(Arc::new(database), |_| {}).await).await;
}

async fn disconnect_many(server: &Server) {
    server.group("team", &["ann", "bob", "dan"]).await;
    server.send("bob", "team", 2, "first").await;
    let is_over = &AtomicBool::new(false);
    let honest = async {
        let (mut number, mut slowest) = (0, Duration::ZERO);
        while !is_over.load(Ordering::Relaxed) {
            number += 1;
            let begun = Instant::now();
            server
                .send("hal", "ann", 1, &format!("honest {number}"))
                .await;
            server.full("hal").await;
            slowest = slowest.max(begun.elapsed());
        }
        (number, slowest)
    };
    let flood = async {
        let clients = (0..15_i64).map(|client| async move {
            for round in 0..100_i64 {
                let number = client * 100 + round + 1;
                let mut all = requests(number);
                let (path, body) = all.swap_remove(number as usize % all.len());
                let stream = send_only(server, path, &body).await;
                tokio::time::sleep(Duration::from_micros((number as u64 * 7919) % 6000)).await;
                reset(stream);
            }
        });
        futures_util::future::join_all(clients).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let ((number, slowest), ()) = tokio::join!(honest, flood);
    println!(
        "{:?}: {number} honest requests, the slowest took {slowest:?}",
        server.database.engine
    );
    assert!(number > 3);
    assert_nothing_is_left(server, "the flood").await;
    assert_eq!(server.full("hal").await.len(), 1);
}
