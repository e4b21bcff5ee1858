//! A database that is unreachable, too slow or full of locks: 503 and `Retry-After`, nothing
//! internal in the text, and no restart needed.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, Statement, TransactionTrait};
use serde_json::{Value, json};

use crate::support::server::{TRY_AGAIN, message};
use crate::support::{Engine, Server};

on_every_database!(lock_that_is_never_released, slow_request_times_out);

const QUERY: &str = "{ conversations(uid: \"ann\") { version } }";

/// Asserts the responses of a send and of a GraphQL mutation that cannot be done now.
async fn refused(server: &Server) {
    let response = server
        .http("POST", "/message/send")
        .body(message("bob", "ann", 1, "two").to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["retry-after"].as_bytes()
        ),
        (503, b"1".as_slice())
    );
    let body: Value = response.json().await.unwrap();
    let msg = body["msg"].as_str().unwrap();
    assert!(
        msg.ends_with("try again") && body["status"] == 503,
        "{body}"
    );
    let mutation = "mutation { setUnread(input: {uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}, unread: 5}) { conversation { id } } }";
    let code = server.graphql_code(mutation, json!({})).await;
    assert!(TRY_AGAIN.contains(&code.as_str()), "{code}");
}

/// Another session holds the locks for longer than a statement may take.
async fn lock_that_is_never_released(engine: Engine) {
    let server = Server::start_with(engine, |settings| {
        settings.database.statement_timeout_seconds = 1;
        settings.limits.request_timeout_seconds = 8;
    })
    .await;
    server.send("bob", "ann", 1, "one").await;
    server.full("ann").await;
    let connection = server.database.connect().await;
    let lock = connection.begin().await.unwrap();
    lock.execute_unprepared("UPDATE channel SET flags = flags")
        .await
        .unwrap();
    lock.execute_unprepared("UPDATE user_cursor SET version = version")
        .await
        .unwrap();
    let begun = Instant::now();
    refused(&server).await;
    assert!(
        begun.elapsed() < Duration::from_secs(18),
        "two answers took {:?}",
        begun.elapsed()
    );
    // Readers do not wait for writers.
    assert_unread!(server, "ann", 1);
    lock.rollback().await.unwrap();
    assert_eq!(
        server.send("bob", "ann", 1, "two").await["message_seq"],
        2,
        "nothing of the refused send was stored"
    );
    assert_unread!(server, "ann", 2);
}

/// Query for the statements that other sessions are running. SQLite's statements run in the server.
fn statements_running(engine: Engine) -> Option<&'static str> {
    match engine {
        Engine::Sqlite => None,
        Engine::Postgres => Some(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()",
        ),
        Engine::MariaDb | Engine::MySql => Some(
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND command <> 'Sleep' AND id <> CONNECTION_ID()",
        ),
    }
}

/// The request's time limit ends it, and its transaction is rolled back.
async fn slow_request_times_out(engine: Engine) {
    let server = Server::start_with(engine, |settings| {
        settings.limits.request_timeout_seconds = 1
    })
    .await;
    server.send("bob", "ann", 1, "one").await;
    server.full("ann").await;
    let connection = server.database.connect().await;
    for _ in 0..3 {
        let lock = connection.begin().await.unwrap();
        lock.execute_unprepared("UPDATE channel SET flags = flags")
            .await
            .unwrap();
        lock.execute_unprepared("UPDATE user_cursor SET version = version")
            .await
            .unwrap();
        let begun = Instant::now();
        refused(&server).await;
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "two answers took {:?}",
            begun.elapsed()
        );
        // The lock is still held, but no session waits for it in the database any more.
        if let Some(running) = statements_running(engine) {
            let gone = Instant::now();
            while connection
                .query_one_raw(Statement::from_string(
                    connection.get_database_backend(),
                    running,
                ))
                .await
                .unwrap()
                .is_some()
            {
                assert!(
                    gone.elapsed() < Duration::from_secs(3),
                    "a statement of a request that was given up still runs"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        lock.rollback().await.unwrap();
    }
    // The cancelled requests left no lock and no connection behind.
    for number in 0..20 {
        server
            .send("bob", "ann", 1, &format!("after{number}"))
            .await;
    }
    assert_unread!(server, "ann", 21);
}

#[tokio::test]
async fn unreachable_postgres_is_503() {
    let database = crate::support::TestDatabase::create(Engine::Postgres).await;
    let mut settings = crate::support::server::settings(&database);
    settings.database.url = "postgres://nobody:hush@127.0.0.1:1/nowhere".into();
    settings.database.acquire_timeout_seconds = 1;
    let error = format!(
        "{:#}",
        recents::server::open_store(&settings).await.unwrap_err()
    );
    assert!(!error.contains("hush"), "{error}");
    let store = recents::store::Store::connect(&settings.database)
        .await
        .unwrap();
    let clock = recents::clock::Clock::System;
    let ids = recents::clock::IdGenerator::seeded(1);
    let (server, _) = recents::server::assemble(settings, store, clock, ids).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = recents::server::router(server);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let sync = http
        .post(format!("{url}/conversation/sync"))
        .body(r#"{"uid":"ann"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            sync.status().as_u16(),
            sync.headers()["retry-after"].as_bytes()
        ),
        (503, b"1".as_slice())
    );
    assert_eq!(
        sync.text().await.unwrap(),
        r#"{"msg":"the database cannot be reached just now, try again","status":503}"#
    );
    let ready = http.get(format!("{url}/readyz")).send().await.unwrap();
    assert_eq!(
        (
            ready.status().as_u16(),
            ready.text().await.unwrap().as_str()
        ),
        (503, "the database cannot be reached\n")
    );
    let body = json!({"query": QUERY}).to_string();
    let graphql = http
        .post(format!("{url}/graphql"))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    let answer: Value = graphql.json().await.unwrap();
    assert_eq!(
        answer["errors"][0]["extensions"]["code"],
        "SERVICE_UNAVAILABLE"
    );
    assert_eq!(
        http.get(format!("{url}/livez"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        200
    );
}
