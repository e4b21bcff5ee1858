//! The command line and the life of a process.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::model::{self, Model, without_versions};
use crate::support::process::{Process, run, stderr, stdout};
use crate::support::server::message;
use crate::support::tokens::{SECRET, token};
use crate::support::{Engine, TestDatabase, fixtures};

on_every_database!(
    imports_are_restartable,
    recording_with_removals_can_be_imported_twice,
    acknowledged_writes_survive_kill_9,
    starts_reports_health_and_stops
);

/// Runs `recents import` and returns its summary.
fn import(folder: &Path, url: &str, files: &[&str]) -> String {
    let mut arguments = vec!["import"];
    arguments.extend(files);
    let output = run(
        folder,
        &arguments,
        &[
            ("RECENTS__DATABASE__URL", url),
            ("RECENTS__LOG__LEVEL", "warn"),
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output)
}

async fn imports_are_restartable(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let folder = tempfile::tempdir().unwrap();
    let whole = fixtures::path("day-v1.jsonl.gz");
    // The first half alone, as after an interruption.
    let lines: Vec<String> = fixtures::lines("day-v1.jsonl.gz")
        .iter()
        .map(Value::to_string)
        .collect();
    let half = folder.path().join("half.jsonl");
    std::fs::write(&half, lines[..lines.len() / 2].join("\n") + "\n\n").unwrap();
    import(folder.path(), &database.url, &[half.to_str().unwrap()]);
    import(folder.path(), &database.url, &[whole.to_str().unwrap()]);
    let again = import(folder.path(), &database.url, &[whole.to_str().unwrap()]);
    assert!(
        again.contains("messages: 0 stored") && again.contains("imported before, 0 webhooks"),
        "{again}"
    );

    let mut reference = Model::default();
    for line in fixtures::lines("day-v1.jsonl.gz") {
        let path = line["path"].as_str().unwrap();
        if path == "/channel" {
            let request: Value = serde_json::from_str(line["request"].as_str().unwrap()).unwrap();
            let channel = model::channel("", request["channel_id"].as_str().unwrap(), 2);
            request["subscribers"]
                .as_array()
                .unwrap()
                .iter()
                .for_each(|uid| reference.join(uid.as_str().unwrap(), &channel));
        } else if path == "?event=msg.notify" {
            let body: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
            body.as_array()
                .unwrap()
                .iter()
                .for_each(|message| reference.message(message));
        }
    }
    let server = Process::start(&database);
    for uid in ["u02", "u40", "x|y", "用户甲"] {
        let full = server
            .call("/conversation/sync", json!({"uid": uid, "msg_count": 20}))
            .await;
        assert_eq!(
            without_versions(full.as_array().unwrap()),
            reference.full(uid, 20, &Default::default()),
            "{uid}"
        );
        assert!(!full.as_array().unwrap().is_empty(), "{uid}");
    }
}

/// A recording in which members leave and come back is imported twice: the second import changes
/// nothing.
async fn recording_with_removals_can_be_imported_twice(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("removals.jsonl");
    let call = |path: &str, uids: &[&str]| {
        json!({"path": path, "request": json!({"channel_id": "team", "channel_type": 2, "subscribers": uids}).to_string()})
            .to_string()
    };
    let hook = |seq: i64| {
        let body = json!([crate::support::server::webhook_message(
            "bob",
            "team",
            2,
            seq,
            10 + seq
        )]);
        json!({"path": "?event=msg.notify", "body": body.to_string()}).to_string()
    };
    let lines = [
        call("/channel", &["ann", "cid"]),
        hook(1),
        call("/channel/subscriber_remove", &["ann", "cid"]),
        call("/channel/subscriber_add", &["ann"]),
        hook(2),
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    for round in 0..2 {
        import(folder.path(), &database.url, &["removals.jsonl"]);
        let server = Process::start(&database);
        assert_eq!(
            server
                .call("/conversation/sync", json!({"uid": "ann"}))
                .await[0]["unread"],
            1,
            "import {round}"
        );
        assert_eq!(
            server
                .call("/conversation/sync", json!({"uid": "cid"}))
                .await,
            json!([]),
            "import {round}"
        );
    }
}

/// Sends at full speed, and `kill -9` again and again: every acknowledged message is stored once,
/// nothing else is stored but messages that were under way, and cursors never go back.
async fn acknowledged_writes_survive_kill_9(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let mut acknowledged: Vec<(String, i64)> = Vec::new();
    let mut version = 0;
    for round in 0..4 {
        let mut server = Process::start_with(
            &database.url,
            &[("RECENTS__LIMITS__MAX_MESSAGES_PER_CONVERSATION", "1000000")],
        );
        let answer = server
            .call(
                "/conversation/sync",
                json!({"uid": "ann", "msg_count": 1_000_000}),
            )
            .await;
        if round > 0 {
            let conversation = &answer[0];
            assert!(
                conversation["version"].as_i64().unwrap() >= version,
                "the cursor went back"
            );
            let stored: Vec<(String, i64)> = conversation["recents"]
                .as_array()
                .unwrap()
                .iter()
                .rev()
                .map(|message| {
                    (
                        message["client_msg_no"].as_str().unwrap().to_owned(),
                        message["message_seq"].as_i64().unwrap(),
                    )
                })
                .collect();
            let seqs: Vec<i64> = stored.iter().map(|(_, seq)| *seq).collect();
            assert_eq!(
                seqs,
                (1..=stored.len() as i64).collect::<Vec<_>>(),
                "a hole"
            );
            for sent in &acknowledged {
                assert!(
                    stored.contains(sent),
                    "{sent:?} was acknowledged and is gone"
                );
            }
            let numbers: HashSet<&String> = stored.iter().map(|(number, _)| number).collect();
            assert_eq!(numbers.len(), stored.len(), "something is there twice");
            assert!(
                stored.len() <= acknowledged.len() + 4 * round as usize,
                "a message is stored that was never sent"
            );
            assert_eq!(
                conversation["unread"],
                stored.len(),
                "round {round}: {conversation}"
            );
        }
        let sender = |number: usize| {
            let server = &server;
            async move {
                let mut sent = Vec::new();
                for count in 0.. {
                    let text = format!("r{round}-s{number}-{count}");
                    let Ok(answer) = server
                        .post("/message/send", message("bob", "ann", 1, &text).to_string())
                        .await
                    else {
                        break;
                    };
                    assert_eq!(answer.status, 200, "{text}: {answer:?}");
                    sent.push((text, answer.json()["data"]["message_seq"].as_i64().unwrap()));
                }
                sent
            }
        };
        let pid = server.child.id().to_string();
        let killer = tokio::task::spawn_blocking(move || {
            std::thread::sleep(std::time::Duration::from_millis(150 + 60 * round));
            assert!(
                std::process::Command::new("kill")
                    .args(["-9", &pid])
                    .status()
                    .unwrap()
                    .success(),
                "round {round}"
            );
        });
        let reader = async {
            let mut last = 0;
            while let Ok(answer) = server
                .post(
                    "/conversation/sync",
                    json!({"uid": "ann", "version": last}).to_string(),
                )
                .await
            {
                for item in answer.json().as_array().unwrap() {
                    last = last.max(item["version"].as_i64().unwrap());
                }
            }
            last
        };
        let (sent, last, killed) = tokio::join!(
            futures_util::future::join_all((0..4).map(sender)),
            reader,
            killer
        );
        killed.unwrap();
        server.wait();
        version = version.max(last);
        acknowledged.extend(sent.into_iter().flatten());
    }
    assert!(acknowledged.len() > 20, "only {} sends", acknowledged.len());
}

async fn starts_reports_health_and_stops(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let mut server = Process::start(&database);
    if engine == Engine::Sqlite {
        assert!(
            server.started_in.as_millis() < 1000,
            "it took {:?} to start on an empty database",
            server.started_in
        );
        assert!(
            server.anonymous_memory() < 28 << 10,
            "{} KiB while idle",
            server.anonymous_memory()
        );
    }
    for (path, text) in [
        ("/livez", "ok\n"),
        ("/readyz", "ready\n"),
        ("/health", "{\"status\":\"ok\"}"),
    ] {
        assert_eq!(server.get(path).await, (200, text.to_owned()), "{path}");
    }
    assert!(server.get("/metrics").await.1.contains(
        "recents_http_requests_total{route=\"/readyz\",method=\"GET\",status=\"200\"} 1"
    ));
    let folder = tempfile::tempdir().unwrap();
    let listen = server.url.trim_start_matches("http://").to_owned();
    let check = |listen: &str| {
        run(
            folder.path(),
            &["healthcheck"],
            &[("RECENTS__SERVER__LISTEN", listen)],
        )
        .status
        .code()
    };
    assert_eq!(check(&listen), Some(0));
    server
        .call("/message/send", message("bob", "ann", 1, "one"))
        .await;
    server.signal("-TERM");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(check(&listen), Some(1));
    let mut server = Process::start(&database);
    assert_eq!(
        server
            .call("/conversation/sync", json!({"uid": "ann"}))
            .await[0]["unread"],
        1
    );
    server.signal("-INT");
    assert_eq!(server.wait(), Some(0));
}

#[tokio::test]
async fn readyz_fails_without_schema() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = Process::start(&database);
    let folder = tempfile::tempdir().unwrap();
    run(
        folder.path(),
        &["migrate", "down", "--steps", "1000"],
        &[("RECENTS__DATABASE__URL", &database.url)],
    );
    let (status, text) = server.get("/readyz").await;
    assert_eq!(
        (status, text.contains("m20261101_tables")),
        (503, true),
        "{text}"
    );
    // An internal error is not the caller's fault, and its text shows nothing internal.
    let answer = server
        .post("/conversation/sync", json!({"uid": "ann"}).to_string())
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (500, r#"{"msg":"internal error","status":500}"#)
    );
    let answer = server
        .post(
            "/graphql",
            json!({"query": "{ conversations(uid: \"ann\") { version } }"}).to_string(),
        )
        .await
        .unwrap();
    assert_eq!(
        answer.json()["errors"][0]["extensions"]["code"],
        "INTERNAL_SERVER_ERROR"
    );
    assert_eq!(answer.json()["errors"][0]["message"], "internal error");
}

/// A shutdown finishes running requests; a second signal does not wait for them.
#[tokio::test(flavor = "multi_thread")]
async fn shutdown_finishes_running_requests() {
    for (signals, code, answered) in [(1, Some(0), true), (2, Some(1), false)] {
        let database = TestDatabase::create(Engine::Sqlite).await;
        let mut server = Process::start(&database);
        server
            .call("/message/send", message("bob", "ann", 1, "one"))
            .await;
        // Another session writes: the next send waits for its lock.
        let connection = database.connect().await;
        connection_execute(&connection, "BEGIN IMMEDIATE").await;
        let url = format!("{}/message/send", server.url);
        let body = message("bob", "ann", 1, "two").to_string();
        let send = tokio::spawn(async move {
            reqwest::Client::builder()
                .no_proxy()
                .build()
                .unwrap()
                .post(url)
                .body(body)
                .send()
                .await
        });
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        for _ in 0..signals {
            server.signal("-TERM");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        connection_execute(&connection, "COMMIT").await;
        let response = send.await.unwrap();
        assert_eq!(
            response.is_ok_and(|response| response.status() == 200),
            answered,
            "{signals} signals"
        );
        assert_eq!(server.wait(), code, "{signals} signals");
    }
}

/// After SIGTERM the server is not ready, but takes requests for `server.drain_seconds`.
#[tokio::test(flavor = "multi_thread")]
async fn draining_server_takes_requests() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let mut server = Process::start_with(&database.url, &[("RECENTS__SERVER__DRAIN_SECONDS", "3")]);
    assert_eq!(server.get("/readyz").await, (200, "ready\n".to_owned()));
    let begun = Instant::now();
    server.signal("-TERM");
    while server.get("/readyz").await.0 == 200 {
        assert!(begun.elapsed() < Duration::from_secs(2), "still ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        server.get("/readyz").await,
        (503, "shutting down\n".to_owned())
    );
    assert_eq!(server.get("/livez").await, (200, "ok\n".to_owned()));
    // Over a connection of its own.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = http
        .post(format!("{}/message/send", server.url))
        .body(message("bob", "ann", 1, "one").to_string());
    assert_eq!(send.send().await.unwrap().status(), 200);
    assert_eq!(server.wait(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(3));

    // SIGINT comes from a person, who need not wait; a second signal ends the wait.
    for (signals, code) in [(&["-INT"][..], 0), (&["-TERM", "-INT"], 1)] {
        let mut server =
            Process::start_with(&database.url, &[("RECENTS__SERVER__DRAIN_SECONDS", "60")]);
        for signal in signals {
            server.signal(signal);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(server.wait(), Some(code), "{signals:?}");
    }
}

/// The command in the banner works as it is printed, apart from the placeholder of the token.
#[tokio::test(flavor = "multi_thread")]
async fn banner_has_a_query_that_works() {
    let token = token("u02");
    for (variable, secret, placeholder, credential) in [
        ("RECENTS__AUTH__MANAGER_TOKEN", "", "", ""),
        (
            "RECENTS__AUTH__MANAGER_TOKEN",
            "hush",
            "'token: MANAGER_TOKEN'",
            "'token: hush'",
        ),
        (
            "RECENTS__AUTH__JWT__SECRET",
            SECRET,
            "Bearer JWT'",
            &format!("Bearer {token}'"),
        ),
    ] {
        let database = TestDatabase::create(Engine::Sqlite).await;
        let server = Process::start_with(&database.url, &[(variable, secret)]);
        let command = server
            .banner
            .lines()
            .find_map(|line| line.strip_prefix("or in a shell:"))
            .unwrap();
        assert!(command.contains(placeholder), "{command}");
        assert!(
            secret.is_empty() || !server.banner.contains(secret),
            "{variable}: {}",
            server.banner
        );
        let command =
            command
                .replacen(placeholder, credential, 1)
                .replacen("curl", "curl --noproxy '*'", 1);
        let output = std::process::Command::new("bash")
            .args(["-c", &command])
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{command}: {output:?}"));
        assert_eq!(
            answer["data"]["conversations"]["conversations"],
            json!([]),
            "{command}: {answer}"
        );
    }
}

/// Lists in environment variables are written as `recents.toml` says.
#[test]
fn environment_variables_may_contain_lists() {
    let example = include_str!("../../../recents.toml")
        .lines()
        .find_map(|line| line.split_once("RECENTS__SERVER__CORS_ORIGINS="))
        .unwrap()
        .1;
    let environment = [
        ("RECENTS__SERVER__CORS_ORIGINS", example),
        ("RECENTS__SERVER__CORS_HEADERS", "content-type, x-mine"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["config"], &environment);
    let printed: toml::Table = stdout(&output).parse().unwrap();
    let server = serde_json::to_value(&printed["server"]).unwrap();
    assert_eq!(
        server["cors_origins"],
        json!(["https://a.example.com", "https://b.example.com"])
    );
    assert_eq!(server["cors_headers"], json!(["content-type", "x-mine"]));
}

async fn connection_execute(connection: &sea_orm::DatabaseConnection, sql: &str) {
    use sea_orm::ConnectionTrait;
    connection.execute_unprepared(sql).await.unwrap();
}

#[test]
fn exit_codes_and_error_messages() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("recents.toml");
    for (arguments, environment, code, text) in [
        (vec!["--help"], None, 0, "import"),
        (vec!["--version"], None, 0, "recents"),
        (vec!["nonsense"], None, 2, "nonsense"),
        (vec!["serve", "--nonsense"], None, 2, "nonsense"),
        (vec!["import"], None, 2, "FILE"),
        (
            vec!["--config", "missing.toml", "config"],
            None,
            2,
            "missing.toml",
        ),
        (
            vec!["config"],
            Some(("RECENTS__SERVER__LISEN", "x")),
            2,
            "server.listen",
        ),
        (
            vec!["config"],
            Some(("RECENTS__DATABASE__MAX_CONNECTIONS", "many")),
            2,
            "database.max_connections",
        ),
        (
            vec!["serve"],
            Some(("RECENTS__LOG__LEVEL", "info,=")),
            2,
            "log.level",
        ),
        (
            vec!["serve"],
            Some((
                "RECENTS__GRAPHQL__PERSISTED_OPERATIONS_FILE",
                "/nowhere/manifest.json",
            )),
            2,
            "graphql.persisted_operations_file",
        ),
        (
            vec!["serve"],
            Some(("RECENTS__SERVER__LISTEN", "0.0.0.0:0")),
            2,
            "auth.manager_token",
        ),
        (
            vec!["serve"],
            Some(("RECENTS__SERVER__LISTEN", "nonsense")),
            2,
            "server.listen",
        ),
        (
            vec!["serve", "--listen", "[::]:0"],
            None,
            2,
            "auth.manager_token",
        ),
        (vec!["import", "missing.jsonl"], None, 1, "missing.jsonl"),
        (
            vec!["serve"],
            Some(("RECENTS__DATABASE__URL", "sqlite::memory:")),
            2,
            "database.url",
        ),
        (
            vec!["serve"],
            Some(("RECENTS__DATABASE__URL", "postgres://h:notaport/x")),
            2,
            "database.url",
        ),
        (
            vec!["migrate", "status"],
            Some(("RECENTS__DATABASE__URL", "postgres://127.0.0.1:1/x")),
            1,
            "",
        ),
    ] {
        let mut variables: Vec<(&str, &str)> = environment.into_iter().collect();
        if environment.is_none_or(|(name, _)| name != "RECENTS__DATABASE__URL") {
            variables.push(("RECENTS__DATABASE__URL", "sqlite://recents.db?mode=rwc"));
        }
        variables.push(("RECENTS__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "1"));
        let output = run(folder.path(), &arguments, &variables);
        let output_text = stdout(&output) + &stderr(&output);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?} {environment:?}: {output_text}"
        );
        assert!(
            output_text.contains(text),
            "{arguments:?} {environment:?}: {output_text}"
        );
    }
    std::fs::write(&config, "[limits]\nmax_mesages_per_conversation = 3").unwrap();
    let output = run(folder.path(), &["config"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("max_mesages_per_conversation")
            && stderr(&output).contains("limits.max_messages_per_conversation"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn config_prints_settings_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("recents.toml"),
        "[limits]\nmax_messages_per_conversation = 7",
    )
    .unwrap();
    let environment = [
        ("RECENTS__AUTH__MANAGER_TOKEN", "hush"),
        ("RECENTS__DATABASE__URL", "mysql://me:hush@db/x"),
    ];
    let printed = stdout(&run(folder.path(), &["config"], &environment));
    assert!(
        printed.contains("max_messages_per_conversation = 7")
            && printed.contains("mysql://me:***@db/x")
            && !printed.contains("hush"),
        "{printed}"
    );
    let schema = stdout(&run(folder.path(), &["schema"], &[]));
    assert!(schema.contains("type Query") && schema.contains("scalar UInt53"));
}

#[test]
fn malformed_line_stops_an_import_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("bad.jsonl"),
        "{\"path\":\"/channel\",\"request\":\"[]\"}\nnonsense\n",
    )
    .unwrap();
    let output = run(folder.path(), &["import", "bad.jsonl"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("line 2 of bad.jsonl"),
        "{}",
        stderr(&output)
    );
}
