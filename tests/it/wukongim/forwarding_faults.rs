//! Business servers that hang, are away or slow, callers that hang up, and secrets in addresses.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use recents::config::Settings;
use serde_json::{Value, json};

use crate::support::business_server::{BusinessServer, Says};
use crate::support::process::{Process, recents, run, stdout};
use crate::support::proxy::Proxy;
use crate::support::server::{Answer, webhook_message};
use crate::support::{Engine, Server, TestDatabase};

fn message(seq: i64) -> Value {
    webhook_message("bob", "g", 2, seq, 100 + seq)
}

fn forward_to(url: &str) -> impl FnOnce(&mut Settings) {
    move |settings| settings.ingest.forward_url = url.into()
}

/// WuKongIM v1 waits 5 s for an answer.
const WUKONGIM_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_business_server_takes_few_places() {
    let business = BusinessServer::start().await;
    let server = &Server::start_with(Engine::Sqlite, |settings| {
        settings.ingest.forward_url = business.url("/hook").as_str().into();
        settings.limits.max_concurrent_requests = 16;
    })
    .await;
    server.group("g", &["ann", "bob"]).await;
    (0..4).for_each(|_| business.plan(Says::Hang));
    let begun = Instant::now();
    let waiting = (1..=4).map(|seq| server.notify(json!([message(seq)])));
    let waiting = join_all(waiting);
    let meanwhile = async {
        business.until_count(4).await;
        // The places are taken: further webhooks are stored, and answered at once.
        for seq in 5..=8 {
            let answer = server.notify(json!([message(seq)])).await;
            assert_eq!(answer.status, 503, "{answer:?}");
        }
        assert_unread!(server, "ann", 8);
        // The other places are free for others.
        let syncs = join_all((0..12).map(|_| server.full("ann"))).await;
        assert!(syncs.iter().all(|list| list.len() == 1));
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
    };
    let (answers, ()) = tokio::join!(waiting, meanwhile);
    assert!(begun.elapsed() < WUKONGIM_TIMEOUT, "{:?}", begun.elapsed());
    for answer in answers {
        assert_eq!(
            (answer.status, answer.msg().as_str()),
            (502, "ingest.forward_url did not answer within 4 s")
        );
    }
    assert_eq!(business.take().len(), 4);
    for seq in 1..=8 {
        assert_eq!(server.notify(json!([message(seq)])).await.status, 200);
    }
    assert_eq!(business.take().len(), 8);
    assert_unread!(server, "ann", 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_business_server_over_grpc() {
    let business = BusinessServer::start_grpc().await;
    // Connections to the second one are accepted, and nothing is read from them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    business.plan(Says::Hang);
    let servers = [&business.address, &silent].map(async |address| {
        let change = |settings: &mut Settings| settings.ingest.forward_grpc.clone_from(address);
        let server = Server::start_with(Engine::Sqlite, change).await;
        let begun = Instant::now();
        let answer = server.notify(json!([message(1)])).await;
        assert_eq!(answer.status, 502);
        assert!(
            answer.msg().starts_with("ingest.forward_grpc "),
            "{answer:?}"
        );
        assert!(begun.elapsed() < WUKONGIM_TIMEOUT, "{:?}", begun.elapsed());
        server.notify(json!([message(1)])).await.status
    });
    let again = join_all(servers).await;
    assert_eq!(again, [200, 502]);
    assert_eq!(business.take().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_business_server_is_reached_when_it_comes() {
    let address = BusinessServer::nowhere().await;
    for grpc in [false, true] {
        let server = Server::start_with(Engine::Sqlite, |settings| {
            if grpc {
                settings.ingest.forward_grpc.clone_from(&address);
            } else {
                settings.ingest.forward_url = format!("http://{address}/hook").as_str().into();
            }
        })
        .await;
        let name = if grpc {
            "ingest.forward_grpc"
        } else {
            "ingest.forward_url"
        };
        let answer = server.notify(json!([message(1)])).await;
        assert_eq!(
            (answer.status, answer.msg()),
            (502, format!("{name} cannot be reached"))
        );
        let business = BusinessServer::start_at(&address, grpc).await;
        assert_eq!(
            server.notify(json!([message(1)])).await.status,
            200,
            "{name}"
        );
        assert_eq!(business.take().len(), 1, "{name}");
    }
}

/// A caller that hangs up sends the webhook again; neither side does it twice.
async fn caller_that_hangs_up_cancels_nothing(engine: Engine) {
    let business = BusinessServer::start().await;
    let server = &Server::start_with(engine, forward_to(&business.url("/hook"))).await;
    server.group("g", &["ann", "bob"]).await;
    let send = async |seq: i64, timeout: u64| {
        let request = server
            .http("POST", "/webhook?event=msg.notify")
            .timeout(Duration::from_millis(timeout))
            .body(json!([message(seq)]).to_string());
        request
            .send()
            .await
            .map(|answer| answer.status().as_u16())
            .ok()
    };
    // The repeat comes while the first attempt is still running, and waits for it.
    business.plan(Says::Late(Duration::from_millis(1500)));
    assert_eq!(send(1, 300).await, None);
    assert_eq!(send(1, 5000).await, Some(200));
    assert_eq!(business.take().len(), 1);
    assert_unread!(server, "ann", 1);
    // The repeat comes afterwards.
    business.plan(Says::Late(Duration::from_millis(600)));
    assert_eq!(send(2, 300).await, None);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_unread!(server, "ann", 2);
    assert_eq!(send(2, 5000).await, Some(200));
    assert_eq!(business.take().len(), 1);
}

on_every_database!(caller_that_hangs_up_cancels_nothing);

/// A database that answers slowly: the webhook is answered in time, is stored later, and the repeat
/// finds it done.
async fn slow_storage_goes_on_after_the_answer(engine: Engine) {
    let database = std::sync::Arc::new(TestDatabase::create(engine).await);
    let proxy = Proxy::before(&database).await;
    let business = BusinessServer::start().await;
    let server = Server::start_on(database, |settings| {
        settings.database.url = proxy.url.as_str().into();
        settings.ingest.forward_url = business.url("/hook").as_str().into();
    })
    .await;
    server.group("g", &["ann", "bob"]).await;
    proxy.set_delay(Duration::from_millis(900));
    let begun = Instant::now();
    let answer = server.notify(json!([message(1)])).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(begun.elapsed() < WUKONGIM_TIMEOUT, "{:?}", begun.elapsed());
    let mut answer = answer;
    for _ in 0..4 {
        answer = server.notify(json!([message(1)])).await;
        if answer.status == 200 {
            break;
        }
    }
    assert_eq!(answer.status, 200);
    proxy.set_delay(Duration::ZERO);
    assert_unread!(server, "ann", 1);
    assert_eq!(business.take().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_storage_on_postgres() {
    slow_storage_goes_on_after_the_answer(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_storage_on_mariadb() {
    slow_storage_goes_on_after_the_answer(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_storage_on_mysql() {
    slow_storage_goes_on_after_the_answer(Engine::MySql).await;
}

/// The database is away for all five attempts: the business server gets the webhook once.
async fn database_is_away(engine: Engine) {
    let database = std::sync::Arc::new(TestDatabase::create(engine).await);
    let proxy = Proxy::before(&database).await;
    let business = BusinessServer::start().await;
    let server = Server::start_on(database, |settings| {
        settings.database.url = proxy.url.as_str().into();
        settings.ingest.forward_url = business.url("/hook").as_str().into();
    })
    .await;
    server.group("g", &["ann", "bob"]).await;
    proxy.set_down(true);
    for attempt in 1..=5 {
        let begun = Instant::now();
        let answer = server.notify(json!([message(1)])).await;
        assert_eq!(answer.status, 503, "attempt {attempt}: {answer:?}");
        assert!(begun.elapsed() < WUKONGIM_TIMEOUT, "{:?}", begun.elapsed());
        assert_eq!(business.count(), 1, "attempt {attempt}");
    }
    proxy.set_down(false);
    let begun = Instant::now();
    while server.notify(json!([message(1)])).await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_unread!(server, "ann", 1);
    assert_eq!(business.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_away_postgres() {
    database_is_away(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_away_mariadb() {
    database_is_away(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_away_mysql() {
    database_is_away(Engine::MySql).await;
}

/// One line in the log for each outage, and no part of an address anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_are_shown_without_secrets() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let business = BusinessServer::start().await;
    let nowhere = BusinessServer::nowhere().await;
    let url = format!("http://me:hush@{}/hush/hook?key=hush", business.address);
    let datasource = format!("http://me:hush@{nowhere}/hush?key=hush");
    let environment = [
        ("RECENTS__LOG__LEVEL", "debug"),
        ("RECENTS__INGEST__FORWARD_URL", url.as_str()),
        ("RECENTS__INGEST__FORWARD_GRPC", &nowhere),
        ("RECENTS__INGEST__DATASOURCE_FORWARD_URL", &datasource),
    ];
    let mut command = recents();
    command.stderr(std::fs::File::create(&log).unwrap());
    let server = Process::start_as(command, &database.url, &environment);
    let mut shown = String::new();
    for seq in 1..=3 {
        business.plan(Says::Status(500));
        let body = json!([message(seq)]).to_string();
        let answer = server
            .post("/webhook?event=msg.notify", body)
            .await
            .unwrap();
        assert_eq!(answer.status, 502);
        shown += &answer.text;
    }
    let question = json!({"cmd": "getSystemUIDs"}).to_string();
    let answer = server.post("/datasource", question).await.unwrap();
    assert_eq!(answer.status, 502);
    shown += &answer.text;
    let (status, ready) = server.get("/readyz").await;
    assert_eq!(status, 200);
    for name in ["forward_url", "forward_grpc", "datasource_forward_url"] {
        assert!(
            ready.contains(&format!("\nforwarding to ingest.{name} fails since ")),
            "{ready}"
        );
    }
    let got = business.take();
    assert_eq!(got[0].uri, "/hush/hook?key=hush&event=msg.notify");
    assert_eq!(got[0].headers["authorization"], "Basic bWU6aHVzaA==");
    let metrics = server.get("/metrics").await.1;
    for (target, result, count) in [
        ("forward_url", "failed", 3),
        ("forward_grpc", "failed", 3),
        ("datasource_forward_url", "failed", 1),
    ] {
        let line = format!(
            "recents_forwarded_total{{target=\"ingest.{target}\",result=\"{result}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    // The target over HTTP works again.
    let body = json!([message(1)]).to_string();
    server
        .post("/webhook?event=msg.notify", body)
        .await
        .unwrap();
    let ready = ready + &server.get("/readyz").await.1;
    // The log is written by a thread of its own.
    let begun = std::time::Instant::now();
    while !std::fs::read_to_string(&log)
        .unwrap()
        .contains("takes webhooks again")
        && begun.elapsed().as_secs() < 5
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(server);
    let log = std::fs::read_to_string(&log).unwrap();
    for text in [
        " WARN recents::outage: ingest.forward_url does not take webhooks",
        " INFO recents::outage: ingest.forward_url takes webhooks again",
        " WARN recents::outage: ingest.forward_grpc does not take webhooks",
        " WARN recents::outage: ingest.datasource_forward_url does not answer",
    ] {
        let (level, text) = text[1..].split_once(' ').unwrap();
        let text = text.strip_prefix("recents::").unwrap();
        let lines = log
            .lines()
            .filter(|line| line.contains(level) && line.contains(text));
        assert_eq!(lines.count(), 1, "{text}: {log}");
    }
    let config = run(folder.path(), &["config"], &environment);
    assert!(stdout(&config).contains("me:***@"), "{config:?}");
    for text in [&log, &shown, &ready, &metrics] {
        assert!(!text.contains("hush"), "{text}");
    }
}

/// A webhook that was forwarded to a server that forwards, too, would go round in a circle.
#[tokio::test]
async fn forwarded_webhooks_are_not_forwarded_again() {
    let business = BusinessServer::start().await;
    let second = Server::start_with(Engine::Sqlite, forward_to(&business.url("/hook"))).await;
    let first = Server::start_with(
        Engine::Sqlite,
        forward_to(&format!("{}/webhook", second.url)),
    )
    .await;
    let body = json!([message(1)]);
    let refused = |answer: &Answer| {
        answer
            .msg()
            .contains("was forwarded by a recents server already")
            && answer.msg().contains("ingest.forward_url")
    };
    let request = second
        .http("POST", "/webhook?event=msg.notify")
        .header("x-recents-forwarded", "1");
    let answer = second.request(request.body(body.to_string())).await;
    assert!(answer.status == 508 && refused(&answer), "{answer:?}");
    let answer = first.notify(body.clone()).await;
    assert_eq!(answer.status, 502);
    assert_eq!(
        answer.msg(),
        "ingest.forward_url answered with status 508 Loop Detected"
    );
    assert_eq!(business.count(), 0);
    // A server that does not forward takes it.
    let last = Server::start(Engine::Sqlite).await;
    let url = format!("{}/webhook", last.url);
    let middle = Server::start_with(Engine::Sqlite, forward_to(&url)).await;
    assert_eq!(middle.notify(body).await.status, 200);
    assert_eq!(last.only("bob").await["last_msg_seq"], 1);
}
