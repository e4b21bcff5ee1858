//! Hostile texts from other systems: a key issuer, a business server, the server that is imported
//! from, Redis, and files. No response ends the process, and none is read without a limit.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::security::hostile_input::gzip;
use crate::support::ThrowawayServers;
use crate::support::hostile_target::HostileTarget;
use crate::support::hostile_texts::{Text, documents, texts, within};
use crate::support::process::{run, stderr, stdout};
use crate::support::server::webhook_message;
use crate::support::{Engine, TestDatabase};

#[derive(Clone, Debug)]
enum CannedResponse {
    Bytes(Vec<u8>),
    Endless,
}

/// A server that sends these responses in turn, and then repeats the last one.
struct FakeServer {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl FakeServer {
    async fn start(answers: Vec<CannedResponse>) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let answer = move || {
            let answer = answers[counted
                .fetch_add(1, Ordering::SeqCst)
                .min(answers.len() - 1)]
            .clone();
            async move {
                match answer {
                    CannedResponse::Bytes(bytes) => Body::from(bytes),
                    CannedResponse::Endless => {
                        let chunks = std::iter::repeat(Bytes::from(vec![b'['; 1 << 16]));
                        Body::from_stream(futures_util::stream::iter(
                            chunks.map(Ok::<_, Infallible>),
                        ))
                    }
                }
            }
        };
        let router = axum::Router::new().fallback(answer);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, asked }
    }

    async fn assert_requests(&self, times: usize) {
        let begun = Instant::now();
        while self.asked.load(Ordering::SeqCst) < times {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "asked {} times",
                self.asked.load(Ordering::SeqCst)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Waits until the responses are read.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Hostile texts as responses, alone and inside of the expected form, and one that never ends.
fn answers(templates: &[&str]) -> Vec<(&'static str, CannedResponse)> {
    let chosen = [
        "raw values",
        "many raw values",
        "many arrays",
        "objects without end",
        "a long text",
        "half a surrogate",
        "no UTF-8",
    ];
    let chosen = texts(200_000)
        .into_iter()
        .filter(|(name, _)| chosen.contains(name));
    let within = |(name, text): Text| {
        templates
            .iter()
            .map(move |template| (name, CannedResponse::Bytes(within(template, &text))))
            .collect::<Vec<_>>()
    };
    chosen
        .flat_map(within)
        .chain([("an answer without end", CannedResponse::Endless)])
        .collect()
}

#[tokio::test]
async fn jwks_issuer() {
    // The issuer is not asked again for ten seconds.
    for (name, said) in answers(&[
        "@",
        "{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"k\",\"n\":\"AQAB\",\"e\":\"AQAB\",\"x\":@}]}",
    ]) {
        let issuer = FakeServer::start(vec![said]).await;
        let target = HostileTarget::start(&[
            ("RECENTS__AUTH__JWT__JWKS_URL", &issuer.url),
            ("RECENTS__AUTH__MANAGER_TOKEN", "hush"),
        ])
        .await;
        let before = target.process.memory();
        let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.e30.AAAA";
        let request = target
            .process
            .http("POST", "/conversation/sync")
            .header("authorization", format!("Bearer {token}"));
        let status = request
            .body("{}")
            .send()
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .status()
            .as_u16();
        // A failed key fetch is not the caller's fault.
        assert!([401, 503].contains(&status), "{name}: {status}");
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "{name}");
        let grew = target.process.memory().saturating_sub(before);
        assert!(grew < 50_000, "{name}: {grew} KiB more");
        target.still_answers().await;
    }
}

#[tokio::test]
async fn business_server() {
    // A failed lookup is repeated after one second, and after five more: three for each server,
    // side by side.
    let mut answers = answers(&["@", "[@]", "[[@]]"]);
    answers.retain(|(name, said)| !matches!(said, CannedResponse::Bytes(bytes) if *name == "a long text" && bytes.starts_with(b"[\"")));
    let sites = answers.chunks(3).map(async |answers| {
        let names: Vec<&str> = answers.iter().map(|(name, _)| *name).collect();
        let business =
            FakeServer::start(answers.iter().map(|(_, said)| said.clone()).collect()).await;
        let target =
            HostileTarget::start(&[("RECENTS__INGEST__DATASOURCE_URL", &business.url)]).await;
        let before = target.process.memory();
        target
            .process
            .call(
                "/webhook?event=msg.notify",
                json!([webhook_message("bob", "g", 2, 1, 11)]),
            )
            .await;
        business.assert_requests(names.len()).await;
        let grew = target.process.memory().saturating_sub(before);
        assert!(grew < 100_000, "{names:?}: {grew} KiB more");
        target.still_answers().await;
    });
    futures_util::future::join_all(sites).await;
}

/// Returns the exit code and the output of `recents import`.
async fn import(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let arguments: Vec<String> = std::iter::once("import")
        .chain(arguments.iter().copied())
        .map(str::to_owned)
        .collect();
    let mut environment: Vec<(String, String)> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    environment.push(("RECENTS__DATABASE__URL".to_owned(), database.url.clone()));
    let output = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        run(&std::env::temp_dir(), &arguments, &environment)
    });
    let output = output.await.unwrap();
    (output.status.code(), stdout(&output), stderr(&output))
}

#[tokio::test]
async fn import_source() {
    let list = json!([{"channel_id": "g", "channel_type": 2, "unread": 1, "last_msg_seq": 1}])
        .to_string()
        .into_bytes();
    for (name, said) in answers(&[
        "@",
        "[{\"channel_id\":@}]",
        "{\"messages\":[{\"payload\":@}]}",
    ]) {
        for (answers, arguments) in [
            (vec![said.clone()], &["--uids", "ann"][..]),
            (
                vec![CannedResponse::Bytes(list.clone()), said.clone()],
                &["--uids", "ann"],
            ),
            (vec![said.clone()], &["--uids", "ann", "--verify"]),
        ] {
            let source = FakeServer::start(answers).await;
            let arguments = [&[source.url.as_str()], arguments].concat();
            let (code, said, problem) = import(&arguments, &[]).await;
            // Unusable messages are counted, everything else is an error.
            let is_counted = code == Some(0) && said.contains("refused");
            assert!(
                is_counted || code == Some(1) && problem.contains("error: "),
                "{name}: {code:?} {said} {problem}"
            );
            assert!(
                name != "an answer without end" || problem.contains("the answer is longer than"),
                "{name}: {problem}"
            );
        }
    }
}

/// Writes a file in the folder, and returns its path.
fn file(folder: &tempfile::TempDir, name: &str, text: &[u8]) -> (PathBuf, String) {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (path.clone(), path.display().to_string())
}

#[tokio::test]
async fn recording_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut bodies = String::new();
    for (name, text) in texts(200_000) {
        let (_, path) = file(&folder, "line.jsonl", &text);
        let (code, said, problem) = import(&[&path], &[]).await;
        assert!(
            code == Some(1) && problem.contains("line 1 of"),
            "{name}: {code:?} {said} {problem}"
        );
        let text = String::from_utf8_lossy(&text);
        for path in [
            "?event=msg.notify",
            "?event=msg.offline",
            "/channel",
            "/channel/subscriber_add",
        ] {
            bodies += &json!({"path": path, "body": text, "request": text}).to_string();
            bodies += "\n";
        }
    }
    let (_, path) = file(&folder, "bodies.jsonl", bodies.as_bytes());
    let (code, said, problem) = import(&[&path], &[]).await;
    assert!(
        code == Some(0) && said.contains(" refused"),
        "{code:?} {said} {problem}"
    );

    let (_, path) = file(&folder, "bomb.jsonl.gz", &gzip(&[b'['; 1 << 16], 1 << 12));
    let (code, _, problem) = import(
        &[&path],
        &[("RECENTS__LIMITS__WEBHOOK_BODY_BYTES", "1000000")],
    )
    .await;
    assert!(
        code == Some(1) && problem.contains("is longer than 2000000 bytes"),
        "{code:?} {problem}"
    );
}

#[test]
fn persisted_operations_file() {
    let folder = tempfile::tempdir().unwrap();
    let documents = documents(1000)
        .into_iter()
        .map(|(name, document)| (name, json!({ "x": document }).to_string().into_bytes()));
    for (name, text) in texts(200_000).into_iter().chain(documents) {
        // These files are valid: the server would start.
        if ["fragments", "braces in a string"].contains(&name) {
            continue;
        }
        let (_, path) = file(&folder, "manifest.json", &text);
        let output = run(
            folder.path(),
            &["serve"],
            &[("RECENTS__GRAPHQL__PERSISTED_OPERATIONS_FILE", &path)],
        );
        let problem = stderr(&output);
        assert!(
            output.status.code() == Some(2)
                && problem.contains("graphql.persisted_operations_file"),
            "{name}: {:?} {:.300}",
            output.status,
            problem
        );
    }
}

#[tokio::test]
async fn redis_notifications() {
    let servers = ThrowawayServers::start(&["redis"]).await;
    let url = servers.url("RECENTS_TEST_REDIS");
    let target = HostileTarget::start(&[("RECENTS__LIVE__REDIS_URL", url)]).await;
    let begun = Instant::now();
    while !target
        .process
        .get("/metrics")
        .await
        .1
        .contains("recents_live_redis_up 1")
    {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "Redis is not reached"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut redis = redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    // By default Redis closes a subscriber that is megabytes behind, which a server on a busy
    // machine may be.
    let mut unlimited = redis::cmd("CONFIG");
    unlimited
        .arg("SET")
        .arg("client-output-buffer-limit")
        .arg("pubsub 0 0 0");
    let () = unlimited.query_async(&mut redis).await.unwrap();
    for (_, text) in texts(1 << 20) {
        for template in [
            "@",
            "{\"from\":@}",
            "{\"from\":\"x\",\"x\":@}",
            "{\"from\":\"x\",\"users\":[@]}",
            "{\"from\":\"x\",\"channels\":@}",
        ] {
            let heard: usize =
                redis::AsyncCommands::publish(&mut redis, "recents", within(template, &text))
                    .await
                    .unwrap();
            assert_eq!(heard, 1, "the server listens");
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    target.still_answers().await;
    assert!(
        target
            .process
            .get("/metrics")
            .await
            .1
            .contains("recents_live_redis_up 1")
    );
}

/// Another server at the address of Redis.
#[tokio::test]
async fn impostor_at_the_notification_address() {
    let answers: Vec<Vec<u8>> = vec![
        b"*1\r\n".repeat(100_000),
        b"*2147483647\r\n".to_vec(),
        b"*9223372036854775807\r\n".to_vec(),
        b"$9223372036854775807\r\nx".to_vec(),
        b"%1000000000\r\n".to_vec(),
        b">1000000000\r\n".to_vec(),
        b"-ERR \xff\xfe\r\n".to_vec(),
        b"+OK\r\n".repeat(1000),
        vec![b'['; 1 << 20],
    ];
    let told = Arc::new(Mutex::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (count, counted) = (answers.len(), Arc::clone(&told));
    tokio::spawn(async move {
        for answer in answers.iter().cycle() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(answer).await;
            *counted.lock().unwrap() += 1;
        }
    });
    let target = HostileTarget::start(&[("RECENTS__LIVE__REDIS_URL", &url)]).await;
    let begun = Instant::now();
    // Two connections are opened again and again, each after a longer pause.
    while *told.lock().unwrap() <= count {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{} connections",
            told.lock().unwrap()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    target.still_answers().await;
}
