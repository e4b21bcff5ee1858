//! A log that nobody reads, or that cannot be written, delays no request.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::process::{Process, recents, run, stderr};
use crate::support::server::{message, webhook_message};
use crate::support::sse::{Event, Events};
use crate::support::tokens::{SECRET, in_seconds, signed};
use crate::support::{Engine, TestDatabase};

/// Sends a webhook with one message that is stored and one that is skipped, which writes a log
/// line.
async fn stores_what_it_can(process: &Process, seq: i64) {
    let mut unusable = webhook_message("bob", "g", 2, 1, 1);
    unusable["message_seq"] = json!("one");
    let body = json!([unusable, webhook_message("bob", "g", 2, seq, 100 + seq)]).to_string();
    let answer = process
        .post("/webhook?event=msg.notify", body)
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_stderr() {
    for redirection in ["2>&-", "2>/dev/full", "2> >(exit 0)"] {
        let database = TestDatabase::create(Engine::Sqlite).await;
        let mut command = std::process::Command::new("bash");
        command
            .arg("-c")
            .arg(format!("exec \"$0\" {redirection}"))
            .arg(recents().get_program());
        let mut process =
            Process::start_as(command, &database.url, &[("RECENTS__LOG__LEVEL", "debug")]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        for seq in 1..=20 {
            stores_what_it_can(&process, seq).await;
        }
        let body = json!({"uid": "bob", "version": 0, "msg_count": 20});
        assert_eq!(
            process.call("/conversation/sync", body).await[0]["last_msg_seq"],
            20,
            "{redirection}"
        );
        process.signal("-TERM");
        assert_eq!(process.wait(), Some(0), "{redirection}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_stderr() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let mut command = recents();
    command.stderr(Stdio::piped());
    let mut process =
        Process::start_as(command, &database.url, &[("RECENTS__LOG__LEVEL", "trace")]);
    let begun = Instant::now();
    let mut seq = 0;
    // The pipe holds 64 KiB, the server keeps some thousand lines.
    while process.metric("recents_log_lines_dropped").await == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nothing is dropped"
        );
        for _ in 0..50 {
            seq += 1;
            stores_what_it_can(&process, seq).await;
        }
    }
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
}

#[tokio::test]
async fn invalid_log_level_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for level in ["warning", "", "info,sqlx"] {
        let output = run(folder.path(), &["serve"], &[("RECENTS__LOG__LEVEL", level)]);
        assert_eq!(output.status.code(), Some(2), "{level:?}");
        assert!(
            stderr(&output).contains("log.level must be"),
            "{}",
            stderr(&output)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_environment_variable_is_named() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = recents();
    command
        .stderr(log.reopen().unwrap())
        .env("RECENTS_DATABASE_URL", "postgres://me:hush@host/db");
    let mut process = Process::start_as(command, &database.url, &[]);
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert!(
        log.contains("RECENTS_DATABASE_URL")
            && log.contains("RECENTS__DATABASE__URL")
            && !log.contains("hush"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_name_of_a_key_is_accepted_with_a_warning() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = recents();
    command.stderr(log.reopen().unwrap());
    let environment = [("RECENTS__LIMITS__REQUESTS", "64")];
    let mut process = Process::start_as(command, &database.url, &environment);
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert_eq!(
        log.matches(
            "limits.requests in the environment is now called limits.max_concurrent_requests"
        )
        .count(),
        1,
        "{log}"
    );
}

/// The log says why each kind of token is refused, without the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_token_is_explained() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = recents();
    command.stderr(log.reopen().unwrap());
    let environment = [
        ("RECENTS__AUTH__JWT__SECRET", SECRET),
        ("RECENTS__AUTH__JWT__AUDIENCE", "recents"),
        ("RECENTS__LOG__LEVEL", "info"),
    ];
    let mut process = Process::start_as(command, &database.url, &environment);
    let claims = |exp: i64, aud: &str| json!({"sub": "ann", "exp": in_seconds(exp), "aud": aud});
    let early =
        json!({"sub": "ann", "exp": in_seconds(3600), "aud": "recents", "nbf": in_seconds(1800)});
    let tokens = [
        ("it has expired", signed(&claims(-3600, "recents"), SECRET)),
        (
            "its aud is not auth.jwt.audience",
            signed(&claims(3600, "others"), SECRET),
        ),
        ("its nbf is in the future", signed(&early, SECRET)),
        (
            "it lacks exp",
            signed(&json!({"sub": "ann", "aud": "recents"}), SECRET),
        ),
        (
            "its signature is by another key",
            signed(
                &claims(3600, "recents"),
                "another secret of thirty-two bytes",
            ),
        ),
        (
            "its sub is no uid",
            signed(
                &json!({"sub": "", "exp": in_seconds(3600), "aud": "recents"}),
                SECRET,
            ),
        ),
        ("it is no manager token, and no JWT", "let.me.in".to_owned()),
    ];
    let http = reqwest::Client::new();
    for (reason, token) in &tokens {
        let url = format!("{}/conversation/sync", process.url);
        let answer = http
            .post(url)
            .bearer_auth(token)
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 401, "{reason}");
    }
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
    let log = std::fs::read_to_string(log.path()).unwrap();
    for (reason, token) in tokens {
        assert!(
            log.contains(reason) && !log.contains(&token),
            "{reason}: {log}"
        );
    }
}

/// SIGHUP does not end the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hangup_is_ignored_and_logged() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = recents();
    command.stderr(log.reopen().unwrap());
    let mut process = Process::start_as(command, &database.url, &[]);
    process.signal("-HUP");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(process.get("/readyz").await.0, 200);
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
    let log = std::fs::read_to_string(log.path()).unwrap();
    let line = "SIGHUP is ignored: settings are read at the start only";
    assert_eq!(log.matches(line).count(), 1, "{log}");
}

/// A subscription waits for events: a silent one is not logged as a slow operation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_subscription_is_not_slow() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = recents();
    command.stderr(log.reopen().unwrap());
    let environment = [("RECENTS__GRAPHQL__SLOW_OPERATION_MS", "200")];
    let mut process = Process::start_as(command, &database.url, &environment);
    process
        .call("/message/send", message("bob", "ann", 1, "one"))
        .await;
    for query in [
        "subscription { messageAdded(uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}) { id } }",
        "subscription { conversationChanges(uid: \"ann\") { version } }",
    ] {
        let request = process.http("POST", "/graphql");
        let mut events = Events::open(request, query, json!({})).await.expect(query);
        // Some subscriptions begin with the present state.
        let waits = async { while let Event::Next(_) = events.next().await {} };
        let ended = tokio::time::timeout(Duration::from_millis(600), waits).await;
        assert!(ended.is_err(), "{query} ended");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert!(!log.contains("a slow operation"), "{log}");
}

/// Each refused origin is logged once, with the setting that would allow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_origins_are_logged_once() {
    let evil = "https://evil.example";
    for (token, status) in [("hush", 200), ("", 403)] {
        let database = TestDatabase::create(Engine::Sqlite).await;
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = recents();
        command.stderr(log.reopen().unwrap());
        let environment = [
            ("RECENTS__AUTH__MANAGER_TOKEN", token),
            ("RECENTS__SERVER__CORS_ORIGINS", "https://chat.example"),
        ];
        let mut process = Process::start_as(command, &database.url, &environment);
        let own = process.url.clone();
        for (origin, expected) in [
            (own.as_str(), 200),
            ("https://chat.example", 200),
            (evil, status),
            (evil, status),
            ("null", status),
        ] {
            let request = process
                .http("GET", "/graphql?query=%7B__typename%7D")
                .header("origin", origin)
                .header("token", token);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), expected, "{origin}");
        }
        process.signal("-TERM");
        assert_eq!(process.wait(), Some(0), "token {token:?}");
        let log = std::fs::read_to_string(log.path()).unwrap();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("server.cors_origins"))
            .collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert!(
            lines[0].contains(evil) && lines[1].contains("null"),
            "{log}"
        );
    }
}

/// An import sends its token only to the server that is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_does_not_follow_redirects() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&asked);
    let router = axum::Router::new()
        .route(
            "/elsewhere",
            axum::routing::any(move || {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                async { "[]" }
            }),
        )
        .fallback(|| async { axum::response::Redirect::temporary("/elsewhere") });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let url = format!("http://me:hush@{address}");
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["import", url.as_str(), "--uids", "ann", "--token", "hush"];
    let environment = [("RECENTS__DATABASE__URL", database.url.as_str())];
    let output = tokio::task::block_in_place(|| run(folder.path(), &arguments, &environment));
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("redirects are not followed") && !text.contains("hush"),
        "{text}"
    );
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
}
