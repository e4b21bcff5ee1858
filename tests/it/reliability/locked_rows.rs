//! Another session holds the lock of one user or one channel: the requests that need it wait, and
//! no others do.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, IsolationLevel, TransactionTrait};
use serde_json::json;

use crate::support::server::{Answer, message, webhook_message};
use crate::support::{Engine, Server};

const OTHERS: usize = 59;
/// The time for which the lock is held. No other request may take longer than a quarter of it.
const HELD: Duration = Duration::from_secs(8);
const SOON: Duration = Duration::from_secs(2);

/// The path and the body of every request; those with number 0 need the locked row.
type Request<'a> = &'a dyn Fn(usize) -> (String, String);

async fn post(server: &Server, path: &str, body: String) -> Answer {
    server
        .request(
            server
                .http("POST", path)
                .header("content-type", "application/json")
                .body(body),
        )
        .await
}

async fn assert_only_one_waits(server: &Server, lock: &str, name: &str, request: Request<'_>) {
    let connection = server.database.connect().await;
    let lock_held = connection
        .begin_with_config(Some(IsolationLevel::ReadCommitted), None)
        .await
        .unwrap();
    lock_held
        .query_all_raw(sea_orm::Statement::from_string(
            connection.get_database_backend(),
            lock,
        ))
        .await
        .unwrap();
    let begun = Instant::now();
    // Several requests need the row, and together they keep one connection.
    let waiting = (0..12).map(|_| async {
        let (path, body) = request(0);
        let answer = post(server, &path, body).await;
        (answer, begun.elapsed())
    });
    let others = (1..=OTHERS).map(|number| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (path, body) = request(number);
        let begun = Instant::now();
        let answer = post(server, &path, body).await;
        assert_eq!(answer.status, 200, "{name}: {number}: {answer:?}");
        begun.elapsed()
    });
    let release = async {
        let slowest = futures_util::future::join_all(others)
            .await
            .into_iter()
            .max()
            .unwrap();
        assert!(
            slowest < SOON,
            "{name}: one of the others waited for {slowest:?}"
        );
        tokio::time::sleep(HELD.saturating_sub(begun.elapsed())).await;
        lock_held.rollback().await.unwrap();
        println!(
            "{:?}: {name}: the slowest of the others took {slowest:?}",
            server.database.engine
        );
    };
    let (waited, ()) = tokio::join!(futures_util::future::join_all(waiting), release);
    for (answer, waited) in waited {
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert!(
            waited >= HELD,
            "{name}: the row was locked, but somebody waited for {waited:?} only"
        );
    }
    connection.close().await.unwrap();
}

async fn locked_row(engine: Engine) {
    let server = &Server::start(engine).await;
    for number in 0..=OTHERS {
        let (uid, group) = (format!("u{number}"), format!("g{number}"));
        server.group(&group, &[&uid, "bob"]).await;
        server.send("bob", &group, 2, "one").await;
        server.full(&uid).await;
        server.send("bob", &group, 2, "two").await;
    }
    let user = "SELECT version FROM user_cursor WHERE uid = 'u0' FOR UPDATE";
    let sync = |number: usize| {
        (
            "/conversation/sync".to_owned(),
            json!({"uid": format!("u{number}"), "version": 0}).to_string(),
        )
    };
    assert_only_one_waits(server, user, "syncs", &sync).await;
    let change = |number: usize| {
        let body = json!({"uid": format!("u{number}"), "channel_id": format!("g{number}"), "channel_type": 2, "unread": 5});
        ("/conversations/setUnread".to_owned(), body.to_string())
    };
    assert_only_one_waits(server, user, "changes", &change).await;
    // Requests that do not run in batches keep at most half of the connections.
    let all_read = |number: usize| match number {
        0 => {
            let mutation =
                "mutation { markAllRead(input: {uid: \"u0\"}) { unreadSummary { total } } }";
            (
                "/graphql".to_owned(),
                json!({"query": mutation}).to_string(),
            )
        }
        _ => change(number),
    };
    assert_only_one_waits(server, user, "all of a user's", &all_read).await;
    let channel =
        "SELECT last_seq FROM channel WHERE channel_key = 'g0' AND channel_type = 2 FOR UPDATE";
    let send = |number: usize| {
        (
            "/message/send".to_owned(),
            message("bob", &format!("g{number}"), 2, "three").to_string(),
        )
    };
    assert_only_one_waits(server, channel, "sends", &send).await;
    let hook = |number: usize| {
        let body = json!([webhook_message(
            "bob",
            &format!("g{number}"),
            2,
            9,
            900 + number as i64
        )]);
        ("/webhook?event=msg.notify".to_owned(), body.to_string())
    };
    assert_only_one_waits(server, channel, "webhooks", &hook).await;
    // Twelve equal sends are one message, and so are twelve equal webhooks.
    assert_eq!(server.full("u0").await[0]["last_msg_seq"], 9);
    let history = json!({"login_uid": "u0", "channel_id": "g0", "channel_type": 2, "limit": 100});
    let history = server.call("/channel/messagesync", history).await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    locked_row(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb() {
    locked_row(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql() {
    locked_row(Engine::MySql).await;
}
