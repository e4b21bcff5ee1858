//! `kill -9` of servers and of database servers while clients write and read, and power cuts: no
//! acknowledged write is lost or stored twice, seqs have no gap, and no cursor goes back.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recents::clock::Clock;
use serde_json::{Value, json};

use crate::support::cluster::ServerCluster;
use crate::support::load::{Plan, run_load};
use crate::support::process::Process;
use crate::support::server::message;
use crate::support::{Engine, TestDatabase, ThrowawayServers};

on_every_database!(
    servers_are_killed_under_load,
    versions_ahead_of_the_clock_are_not_reused
);

fn plan(seconds: u64) -> Plan {
    Plan {
        writers: 8,
        time: Duration::from_secs(seconds),
        least_steps: 1,
        operations: u64::MAX,
        batch: 20,
        pause: Duration::from_millis(10),
    }
}

async fn servers_are_killed_under_load(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let cluster = ServerCluster::start(vec![database.url.clone(); 2], Vec::new()).await;
    let report = run_load(
        &cluster,
        &database.url,
        plan(10),
        async |done: &AtomicBool| {
            let mut random = StdRng::seed_from_u64(2);
            for number in (0..2).cycle() {
                tokio::time::sleep(Duration::from_millis(random.random_range(300..1200))).await;
                if done.load(Ordering::SeqCst) {
                    return;
                }
                cluster.crash(number);
                cluster.restart(number).await;
            }
        },
    )
    .await;
    println!("{engine:?}: servers killed again and again: {report}");
    assert!(report.refused > 0, "no kill met a request");
}

/// Kills the database server with all its processes repeatedly under load.
async fn the_database_is_killed_under_load(engine: Engine) {
    let (name, variable) = engine.server();
    let servers = ThrowawayServers::start(&[name]).await;
    let database = TestDatabase::create_on(engine, servers.url(variable)).await;
    let cluster = ServerCluster::start(vec![database.url.clone(); 2], Vec::new()).await;
    let report = run_load(
        &cluster,
        &database.url,
        plan(12),
        async |done: &AtomicBool| {
            let mut random = StdRng::seed_from_u64(3);
            while !done.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(random.random_range(1000..3000))).await;
                servers.crash(name).await;
                servers.resume(name).await;
            }
        },
    )
    .await;
    println!("{engine:?} killed again and again: {report}");
    assert!(report.refused > 0, "no kill met a request");
    assert!(report.writes > 100, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_killed_under_load() {
    the_database_is_killed_under_load(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_killed_under_load() {
    the_database_is_killed_under_load(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_is_killed_under_load() {
    the_database_is_killed_under_load(Engine::MySql).await;
}

/// A sync that updates hundreds of conversations assigns versions that the clock reaches much
/// later. A server that starts with nothing but the clock must not assign them again.
async fn versions_ahead_of_the_clock_are_not_reused(engine: Engine) {
    const CONVERSATIONS: usize = 400;
    let database = TestDatabase::create(engine).await;
    let server = Process::start(&database);
    for batch in 0..4 {
        let messages: Vec<Value> = (0..CONVERSATIONS / 4)
            .map(|number| {
                let number = batch * CONVERSATIONS / 4 + number;
                crate::support::server::webhook_message(
                    &format!("peer{number}"),
                    "ann",
                    1,
                    1,
                    1 + number as i64,
                )
            })
            .collect();
        server
            .call("/webhook?event=msg.notify", json!(messages))
            .await;
    }
    let begun = Clock::System.now_ms().0;
    let sync = |version: i64| json!({"uid": "ann", "version": version, "msg_count": 1});
    let answer = server.call("/conversation/sync", sync(0)).await;
    let given: HashSet<i64> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["version"].as_i64().unwrap())
        .collect();
    let cursor = *given.iter().max().unwrap();
    assert_eq!(given.len(), CONVERSATIONS);
    let mut server = server;
    server.signal("-9");
    server.wait();

    let server = Process::start(&database);
    let now = Clock::System.now_ms().0;
    println!(
        "{engine:?}: the cursor is {} ms ahead of where the clock was, {} ms of where it is",
        cursor - begun,
        cursor - now
    );
    server
        .call("/message/send", message("peer7", "ann", 1, "news"))
        .await;
    let body = json!({"uid": "ann", "channel_id": "peer9", "channel_type": 1, "unread": 0});
    server.call("/conversations/setUnread", body).await;
    let news = server.call("/conversation/sync", sync(cursor)).await;
    let names: HashSet<&str> = news
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["channel_id"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        HashSet::from(["peer7", "peer9"]),
        "a device at {cursor}"
    );
    for item in news.as_array().unwrap() {
        assert!(item["version"].as_i64().unwrap() > cursor, "{item}");
    }
}

fn copy(from: &Path, to: &Path) {
    for name in ["recents.db", "recents.db-wal"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// Starts a server on the files, and returns the texts and seqs of Ann's messages, oldest first.
async fn stored_messages(folder: &Path) -> Vec<(String, i64)> {
    let server = Process::start_with(
        &format!("sqlite://{}?mode=rw", folder.join("recents.db").display()),
        &[],
    );
    let answer = server
        .call(
            "/conversation/sync",
            json!({"uid": "ann", "msg_count": 500}),
        )
        .await;
    let Some(conversation) = answer.get(0) else {
        return Vec::new();
    };
    assert_eq!(conversation["unread"], conversation["last_msg_seq"]);
    let messages = conversation["recents"].as_array().unwrap().iter().rev();
    messages
        .map(|message| {
            (
                message["client_msg_no"].as_str().unwrap().to_owned(),
                message["message_seq"].as_i64().unwrap(),
            )
        })
        .collect()
}

/// A power cut at any moment: a copy of the files at that moment contains everything that was
/// acknowledged before, and an incomplete end of the log loses only that end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_survives_a_power_cut_at_any_moment() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let path = database
        .url
        .strip_prefix("sqlite://")
        .unwrap()
        .split('?')
        .next()
        .unwrap();
    let folder = Path::new(path).parent().unwrap();
    let server = Process::start(&database);
    server
        .call("/message/send", message("bob", "ann", 1, "first"))
        .await;
    let acknowledged = &std::sync::Mutex::new(vec![("first".to_owned(), 1)]);
    let done = &AtomicBool::new(false);
    let senders = (0..3).map(|number| {
        let server = &server;
        async move {
            for count in 0..150 {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                let text = format!("s{number}-{count}");
                let answer = server
                    .call("/message/send", message("bob", "ann", 1, &text))
                    .await;
                acknowledged
                    .lock()
                    .unwrap()
                    .push((text, answer["data"]["message_seq"].as_i64().unwrap()));
            }
        }
    });
    let cuts = async {
        let mut random = StdRng::seed_from_u64(4);
        for number in 0..6 {
            tokio::time::sleep(Duration::from_millis(random.random_range(20..120))).await;
            let moment = tempfile::tempdir().unwrap();
            server.signal("-STOP");
            let before = acknowledged.lock().unwrap().clone();
            copy(folder, moment.path());
            server.signal("-CONT");
            let stored = stored_messages(moment.path()).await;
            assert!(
                before.iter().all(|sent| stored.contains(sent)),
                "of {} acknowledged there are {}",
                before.len(),
                stored.len()
            );
            let seqs: Vec<i64> = stored.iter().map(|(_, seq)| *seq).collect();
            assert_eq!(
                seqs,
                (1..=stored.len() as i64).collect::<Vec<_>>(),
                "copy {number}"
            );

            // The end of the log did not reach the disk, or only half of it did.
            let torn = tempfile::tempdir().unwrap();
            copy(folder, torn.path());
            let log = std::fs::OpenOptions::new()
                .write(true)
                .open(torn.path().join("recents.db-wal"))
                .unwrap();
            let length = log.metadata().unwrap().len();
            log.set_len(random.random_range(length / 2..length))
                .unwrap();
            let stored = stored_messages(torn.path()).await;
            let seqs: Vec<i64> = stored.iter().map(|(_, seq)| *seq).collect();
            assert_eq!(
                seqs,
                (1..=stored.len() as i64).collect::<Vec<_>>(),
                "a torn log"
            );
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(futures_util::future::join_all(senders), cuts);
    assert!(acknowledged.lock().unwrap().len() > 20);
}
