//! The log has one line when an outage begins and one when it ends, however often the server tries
//! again meanwhile.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sea_orm::ConnectionTrait;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::process::{Process, recents};
use crate::support::server::webhook_message;
use crate::support::{Engine, TestDatabase};

const KEYS: &str = r#"{"keys": [{"kty": "RSA", "n": "sXch", "e": "AQAB", "kid": "one"}]}"#;

/// A Redis, a key issuer and a business server that fail until they are repaired.
struct Dependencies {
    is_up: Arc<AtomicBool>,
    /// Number of connections to Redis.
    redis_connections: Arc<AtomicUsize>,
    /// Number of requests for the members of a group.
    lookups: Arc<AtomicUsize>,
    redis: SocketAddr,
    http: SocketAddr,
}

impl Dependencies {
    async fn start() -> Self {
        let is_up = Arc::new(AtomicBool::new(false));
        let (redis_connections, lookups) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let answer = |text: &'static str, requests: &Arc<AtomicUsize>| {
            let (is_up, requests) = (Arc::clone(&is_up), Arc::clone(requests));
            axum::routing::any(move || async move {
                requests.fetch_add(1, Ordering::SeqCst);
                if is_up.load(Ordering::SeqCst) {
                    Ok(text)
                } else {
                    Err(StatusCode::INTERNAL_SERVER_ERROR)
                }
            })
        };
        let router = axum::Router::new()
            .route("/keys", answer(KEYS, &Arc::default()))
            .route("/members", answer(r#"["ann"]"#, &lookups));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redis = listener.local_addr().unwrap();
        let (redis_is_up, connections) = (Arc::clone(&is_up), Arc::clone(&redis_connections));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                if redis_is_up.load(Ordering::SeqCst) {
                    tokio::spawn(answer_redis_commands(socket));
                }
            }
        });
        Self {
            is_up,
            redis_connections,
            lookups,
            redis,
            http,
        }
    }
}

/// Accepts every command of a Redis client.
async fn answer_redis_commands(socket: TcpStream) {
    let mut socket = BufReader::new(socket);
    while let Some(command) = read_redis_command(&mut socket).await {
        let reply = match command[0].to_uppercase().as_str() {
            "SUBSCRIBE" => {
                let channel = &command[1];
                let length = channel.len();
                format!("*3\r\n$9\r\nsubscribe\r\n${length}\r\n{channel}\r\n:1\r\n")
            }
            "PUBLISH" => ":1\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        if socket.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads a command: the number of its words, then the length of each word and the word.
async fn read_redis_command(socket: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = socket.lines();
    let count = lines.next_line().await.ok()??;
    let count: usize = count.strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        lines.next_line().await.ok()?;
        words.push(lines.next_line().await.ok()??);
    }
    Some(words)
}

/// Returns the number of lines in the log that contain `text`.
fn count(log: &Path, text: &str) -> usize {
    let log = std::fs::read_to_string(log).unwrap();
    log.lines().filter(|line| line.contains(text)).count()
}

/// Waits until the condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{what} did not happen"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts a server that writes its log to a file.
fn start(log: &Path, database_url: &str, environment: &[(&str, &str)]) -> Process {
    let mut command = recents();
    command.stderr(std::fs::File::create(log).unwrap());
    let mut all = vec![("RECENTS__LOG__LEVEL", "info")];
    all.extend(environment);
    Process::start_as(command, database_url, &all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_of_the_wukongim_is_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let database = TestDatabase::create(Engine::Sqlite).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}");
    let server = start(
        &log,
        &database.url,
        &[("RECENTS__PROXY__WUKONGIM_URL", &url)],
    );
    let call = async || server.post("/route", "{}".to_owned()).await.unwrap().status;
    let (failed, recovered) = (
        "the WuKongIM at proxy.wukongim_url does not answer",
        "the WuKongIM at proxy.wukongim_url answers again",
    );
    for _ in 0..2 {
        for _ in 0..3 {
            assert_eq!(call().await, 502);
        }
        let listener = TcpListener::bind(address).await.unwrap();
        let router = axum::Router::new().fallback(async || ([("connection", "close")], "{}"));
        let upstream = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        for _ in 0..3 {
            assert_eq!(call().await, 200);
        }
        upstream.abort();
        let _ = upstream.await;
    }
    until("the last line", || count(&log, recovered) == 2).await;
    assert_eq!(count(&log, failed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_of_other_services_are_logged_once() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let dependencies = Dependencies::start().await;
    let redis = format!("redis://{}", dependencies.redis);
    let keys = format!("http://{}/keys", dependencies.http);
    let members = format!("http://{}/members", dependencies.http);
    let environment = [
        ("RECENTS__LIVE__REDIS_URL", redis.as_str()),
        ("RECENTS__AUTH__MANAGER_TOKEN", "hush"),
        ("RECENTS__AUTH__JWT__JWKS_URL", &keys),
        ("RECENTS__INGEST__DATASOURCE_URL", &members),
    ];
    let server = start(&log, &database.url, &environment);
    let body = json!([webhook_message("bob", "g", 2, 1, 101)]).to_string();
    let webhook = server
        .http("POST", "/webhook?event=msg.notify")
        .header("token", "hush")
        .body(body);
    assert_eq!(webhook.send().await.unwrap().status(), 200);
    until("a retry", || {
        dependencies.redis_connections.load(Ordering::SeqCst) >= 8
            && dependencies.lookups.load(Ordering::SeqCst) >= 2
            && count(&log, "cannot be fetched") > 0
    })
    .await;
    dependencies.is_up.store(true, Ordering::SeqCst);

    // A user's token, whose key makes the server fetch the keys again: after 10 s at the earliest.
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"one"}"#);
    let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"ann","exp":4000000000}"#);
    let token = format!("{header}.{claims}.AAAA");
    let begun = Instant::now();
    while count(&log, "fetched again") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30));
        let request = server
            .http("POST", "/conversation/sync")
            .bearer_auth(&token)
            .body("{}");
        let status = request.send().await.unwrap().status().as_u16();
        assert!([401, 503].contains(&status), "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    until("the end of the outages", || {
        count(&log, "is reached again") == 2
    })
    .await;
    for text in [
        "WARN recents::outage: Redis cannot be reached",
        "INFO recents::outage: Redis is reached again",
        "WARN recents::outage: the keys of auth.jwt.jwks_url cannot be fetched",
        "INFO recents::outage: the keys of auth.jwt.jwks_url are fetched again",
        "WARN recents::outage: ingest.datasource_url cannot be reached",
        "INFO recents::outage: ingest.datasource_url is reached again",
    ] {
        assert_eq!(count(&log, text), 1, "{text}");
    }
    assert_eq!(count(&log, "recents::outage"), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_of_the_database_are_logged_once() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    drop(Process::start(&database));
    let connection = database.connect().await;
    let rename = async |from: &str, to: &str| {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        connection.execute_unprepared(&sql).await.unwrap();
    };
    rename("pending_removal", "elsewhere").await;
    rename("user_cursor", "nowhere").await;
    let server = start(&log, &database.url, &[]);
    let begun = Instant::now();
    // The server tries every 2 s, and a health check at most once a second.
    while begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(server.get("/readyz").await.0, 503);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    rename("elsewhere", "pending_removal").await;
    rename("nowhere", "user_cursor").await;
    until("the end of the outage", || {
        count(&log, "pending removals are written again") > 0
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.get("/readyz").await, (200, "ready\n".to_owned()));
    for (level, text) in [
        ("WARN", "pending removals cannot be read or written"),
        ("INFO", "pending removals are written again"),
        ("WARN", "not ready"),
        ("INFO", "ready again"),
    ] {
        // A line of a request has the request between the level and the module.
        let text = format!("recents::outage: {text}");
        until(&text, || count(&log, &text) > 0).await;
        assert_eq!(count(&log, &text), 1, "{text}");
        let log = std::fs::read_to_string(&log).unwrap();
        let mut lines = log.lines().filter(|line| line.contains(&text));
        assert!(
            lines.all(|line| line.contains(&format!(" {level} "))),
            "{log}"
        );
    }
}
