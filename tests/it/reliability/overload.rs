//! Excess load is refused at once with 503, and the accepted requests are not disturbed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::json;

use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::server::message;
use crate::support::{Engine, Server, TestDatabase};

on_every_database!(excess_requests_are_refused_at_once);

async fn excess_requests_are_refused_at_once(engine: Engine) {
    let server = &Server::start_with(engine, |settings| {
        settings.limits.max_concurrent_requests = 4
    })
    .await;
    server.send("bob", "ann", 1, "one").await;
    server.full("ann").await;
    let connection = server.database.connect().await;
    let lock = connection.begin().await.unwrap();
    lock.execute_unprepared("UPDATE channel SET flags = flags")
        .await
        .unwrap();
    let waiting = (0..4).map(|number| async move {
        let body = message("bob", "ann", 1, &format!("waiting {number}"));
        server.call("/message/send", body).await
    });
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let begun = Instant::now();
        let shed = server
            .http("POST", "/message/send")
            .body(message("bob", "ann", 1, "too many").to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                shed.status().as_u16(),
                shed.headers()["retry-after"].as_bytes()
            ),
            (503, b"1".as_slice())
        );
        assert_eq!(
            shed.text().await.unwrap(),
            r#"{"msg":"too many requests just now, try again","status":503}"#
        );
        let webhook = server.notify(json!([])).await;
        assert_eq!(webhook.status, 503, "{webhook:?}");
        let query = json!({"query": "{ conversations(uid: \"ann\") { version } }"}).to_string();
        let shed = server
            .http("POST", "/graphql")
            .header("content-type", "application/json")
            .body(query)
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                shed.status().as_u16(),
                shed.headers()["retry-after"].as_bytes()
            ),
            (503, b"1".as_slice())
        );
        let extensions =
            shed.json::<serde_json::Value>().await.unwrap()["errors"][0]["extensions"].clone();
        assert_eq!(extensions, json!({"code": "OVERLOADED", "retryAfter": 1}));
        for path in ["/livez", "/metrics", "/"] {
            assert_eq!(
                server.request(server.http("GET", path)).await.status,
                200,
                "{path}"
            );
        }
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?} for a refusal",
            begun.elapsed()
        );
        lock.rollback().await.unwrap();
    };
    let (sent, ()) = tokio::join!(futures_util::future::join_all(waiting), meanwhile);
    let mut seqs: Vec<i64> = sent
        .iter()
        .map(|answer| answer["data"]["message_seq"].as_i64().unwrap())
        .collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [2, 3, 4, 5], "those who were in are served");
    assert_eq!(
        server.send("bob", "ann", 1, "after").await["message_seq"],
        6
    );
}

const CHANNELS: u64 = 400;

/// Returns the sends answered per second while `rate` arrive per second, whether or not the earlier
/// ones are answered.
async fn served(process: &Process, rate: u64, round: &str) -> (u64, u64) {
    const SECONDS: u64 = 4;
    let (done, shed) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let over = &AtomicBool::new(false);
    let arrivals = (0..rate * SECONDS).map(|number| async move {
        tokio::time::sleep(Duration::from_micros(number * 1_000_000 / rate)).await;
        let body = message(
            &format!("user{}", number % CHANNELS),
            "peer",
            1,
            &format!("{round}-{number}"),
        );
        let Ok(answer) = process.post("/message/send", body.to_string()).await else {
            panic!("no answer")
        };
        if over.load(Ordering::Relaxed) {
            return;
        }
        match answer.status {
            200 => done.fetch_add(1, Ordering::Relaxed),
            503 => shed.fetch_add(1, Ordering::Relaxed),
            _ => panic!("{answer:?}"),
        };
    });
    let clock = async {
        tokio::time::sleep(Duration::from_secs(SECONDS)).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(futures_util::future::join_all(arrivals), clock);
    (
        done.load(Ordering::Relaxed) / SECONDS,
        shed.load(Ordering::Relaxed) / SECONDS,
    )
}

/// The database takes 40 ms for each statement, so that the database is the bottleneck and not this
/// machine's processors. Concurrent sends share their statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_throughput_holds_at_four_times_capacity() {
    let database = TestDatabase::create(Engine::Postgres).await;
    let proxy = Proxy::before(&database).await;
    let environment = [
        ("RECENTS__LIMITS__MAX_CONCURRENT_REQUESTS", "64"),
        ("RECENTS__DATABASE__MAX_CONNECTIONS", "6"),
    ];
    let process = Process::start_with(&proxy.url, &environment);
    // The first message of a channel costs more than later ones.
    for number in 0..CHANNELS {
        process
            .call(
                "/message/send",
                message(&format!("user{number}"), "peer", 1, "first"),
            )
            .await;
    }
    proxy.set_delay(Duration::from_millis(40));
    // Measures the capacity: raises the rate until the throughput no longer grows.
    let mut best = 0;
    for rate in [40, 80, 120, 160, 240] {
        best = best.max(served(&process, rate, &format!("at{rate}")).await.0);
    }
    let before = process.memory();
    let (done, shed) = served(&process, best * 4, "too-much").await;
    let after = process.memory();
    println!(
        "{best} sends a second at best; of {} a second {done} are done and {shed} shed; {before} KiB, then {after} KiB",
        best * 4
    );
    assert!(shed > best, "nothing was shed");
    assert!(done * 10 >= best * 8, "{done} a second of {best} at best");
    assert!(
        after < before + 64 * 1024,
        "memory grew from {before} KiB to {after} KiB"
    );
}
