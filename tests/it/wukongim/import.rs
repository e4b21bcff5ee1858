//! Imports from a running server. The source here holds a recorded day and serves the routes of
//! WuKongIM's clients; `RECENTS_TEST_WUKONGIM=host:port` names a real server, which is then
//! imported from, too.

use std::sync::Arc;
use std::time::Duration;

use recents::import::{
    Comparison, ImportOptions, ImportSummary, compare, import_file, import_server,
};
use recents::model::Uid;
use recents::upstream::WukongimClient;
use serde_json::json;

use crate::support::process::{run, stderr, stdout};
use crate::support::server::webhook_message;
use crate::support::{Engine, Server, TestDatabase, fixtures};

const USERS: [&str; 8] = ["u01", "u02", "u04", "u17", "u33", "u40", "x|y", "用户甲"];

fn uids() -> Vec<Uid> {
    USERS
        .iter()
        .map(|uid| Uid::parse("uid", *uid).unwrap())
        .collect()
}

async fn import(here: &Server, url: &str, uids: &[Uid]) -> ImportSummary {
    let client = Arc::new(WukongimClient::new(url, "", 10_000).unwrap());
    // Users that are imported at once may count the same stored messages.
    let options = ImportOptions {
        parallel: 1,
        ..ImportOptions::default()
    };
    let imported = import_server(&here.app.core, &client, uids, &options).await;
    imported.unwrap()
}

async fn compare_with(here: &Server, url: &str, uids: &[Uid]) -> Comparison {
    let client = Arc::new(WukongimClient::new(url, "", 10_000).unwrap());
    let options = ImportOptions::default();
    let compared = compare(&here.app.core, &client, uids, &options).await;
    compared.unwrap()
}

/// Returns a server that holds the recorded day and some changes of its users.
async fn source() -> Server {
    let server = Server::start(Engine::Sqlite).await;
    import_file(&server.app.core, &fixtures::path("day-v2.jsonl.gz"))
        .await
        .unwrap();
    let all = server.full("u02").await;
    for (number, item) in all.iter().enumerate() {
        let target = json!({"uid": "u02", "channel_id": item["channel_id"], "channel_type": item["channel_type"], "unread": number % 4});
        server.call("/conversations/setUnread", target).await;
    }
    server
}

/// Interrupted at any moment, and repeated, the import ends with the same state.
async fn interrupted_import_can_be_resumed(engine: Engine) {
    let (there, here) = (source().await, Server::start(engine).await);
    let uids = uids();
    for milliseconds in [30, 200, 500] {
        let import = import(&here, &there.url, &uids);
        let _ = tokio::time::timeout(Duration::from_millis(milliseconds), import).await;
    }
    let summary = import(&here, &there.url, &uids).await;
    assert_eq!(
        (summary.users, summary.refused, summary.conflicts),
        (8, 0, 0),
        "{summary}"
    );
    let comparison = compare_with(&here, &there.url, &uids).await;
    assert!(
        comparison.differences.is_empty() && comparison.conversations > 40,
        "{comparison}"
    );
    assert_eq!(comparison.users, 8);
    // The whole history, not only the messages that a list shows.
    for item in here.full("u02").await {
        let body = json!({"login_uid": "u02", "channel_id": item["channel_id"], "channel_type": item["channel_type"], "limit": 10_000});
        let (ours, theirs) = (
            here.call("/channel/messagesync", body.clone()).await,
            there.call("/channel/messagesync", body).await,
        );
        let ids = |answer: &serde_json::Value| -> Vec<String> {
            answer["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|message| message["message_idstr"].to_string())
                .collect()
        };
        assert_eq!(ids(&ours), ids(&theirs), "{}", item["channel_id"]);
    }
    // A repeated import changes nothing, and keeps what users did here since then.
    let first = here.full("u02").await[0].clone();
    let target = json!({"uid": "u02", "channel_id": first["channel_id"], "channel_type": first["channel_type"], "unread": 9});
    here.call("/conversations/setUnread", target).await;
    let again = import(&here, &there.url, &uids).await;
    assert_eq!(
        (again.imported_before, again.stored, again.conversations),
        (8, 0, comparison.conversations),
        "{again}"
    );
    assert_eq!(here.full("u02").await[0]["unread"], 9);
    let comparison = compare_with(&here, &there.url, &uids).await;
    assert_eq!(
        comparison.differences.get("unread"),
        Some(&1),
        "{comparison}"
    );
}

/// Webhooks arrive before and during the import: their messages count in addition to the imported
/// unread count.
async fn import_during_webhooks(engine: Engine) {
    let (there, here) = (
        Server::start(Engine::Sqlite).await,
        Server::start(engine).await,
    );
    for server in [&there, &here] {
        server
            .call(
                "/webhook?event=msg.notify",
                json!([webhook_message("bob", "cat", 1, 3, 903)]),
            )
            .await;
    }
    there.group("g", &["ann", "bob"]).await;
    for seq in 1..=5 {
        there.send("bob", "g", 2, &format!("number {seq}")).await;
    }
    there
        .call(
            "/conversations/setUnread",
            json!({"uid": "ann", "channel_id": "g", "channel_type": 2, "unread": 2}),
        )
        .await;
    // Newer messages already came by webhook, and no members of the group are known.
    here.call(
        "/webhook?event=msg.notify",
        json!([
            webhook_message("bob", "g", 2, 6, 906),
            webhook_message("cat", "g", 2, 7, 907)
        ]),
    )
    .await;
    let uids: Vec<Uid> = ["ann", "bob", "cat"]
        .map(|uid| Uid::parse("uid", uid).unwrap())
        .to_vec();
    let summary = import(&here, &there.url, &uids).await;
    assert_eq!((summary.stored, summary.repeated), (5, 1), "{summary}");
    let item = here.only("ann").await;
    assert_eq!(
        (&item["unread"], &item["last_msg_seq"]),
        (&json!(4), &json!(7)),
        "2 there, and 2 since"
    );
    // bob sent number 6 himself: he has read everything before it, and one message came later.
    let all = here.full("bob").await;
    assert_eq!(
        all.iter().find(|item| item["channel_id"] == "g").unwrap()["unread"],
        1
    );
    assert_eq!(all.len(), 2);
}

on_every_database!(interrupted_import_can_be_resumed, import_during_webhooks);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_reports_results_and_errors() {
    let there = source().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users"), "u02\n\n x|y \nu02\n").unwrap();
    std::fs::write(folder.path().join("day.jsonl"), "").unwrap();
    let long = format!("u01\n\n{}\n", "x".repeat(256));
    std::fs::write(folder.path().join("bad-users"), long).unwrap();
    std::fs::write(folder.path().join("bad-groups"), "g1:2\ng:x\n").unwrap();
    std::fs::write(folder.path().join("groups"), "g1\n").unwrap();
    let database = TestDatabase::create(Engine::Sqlite).await;
    let environment = [
        ("RECENTS__DATABASE__URL", database.url.as_str()),
        ("RECENTS__CONVERSATION__ON", "true"),
    ];
    let url = there.url.clone();
    let (path, variables) = (
        folder.path().to_owned(),
        environment.map(|(name, value)| (name, value.to_owned())),
    );
    let command = async |arguments: &[&str]| {
        let (path, variables) = (path.clone(), variables.clone());
        let arguments: Vec<String> = ["import"]
            .iter()
            .chain(arguments)
            .map(|text| (*text).to_owned())
            .collect();
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let variables: Vec<(&str, &str)> = variables
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let output = run(&path, &arguments, &variables);
            (output.status.code(), stdout(&output), stderr(&output))
        })
        .await
        .unwrap()
    };
    let (code, output, problem) = command(&[&url, "--uid-file", "users", "--uids", "用户甲"]).await;
    assert_eq!(code, Some(0), "{problem}");
    assert!(output.contains("3 users: 0 imported before"), "{output}");
    let (code, output, _) = command(&[&url, "--uid-file", "users", "--verify"]).await;
    assert!(
        code == Some(0) && output.contains("2 users") && output.contains("different: nothing"),
        "{output}"
    );
    let (code, output, problem) = command(&[&url, "--uids", "u04", "--verify"]).await;
    assert!(
        code == Some(1) && output.contains("is not here") && problem.contains("the answers differ"),
        "{output} {problem}"
    );
    for (arguments, code, text) in [
        (vec![url.as_str()], 2, "--uids or --uid-file"),
        (
            vec!["day.jsonl", "--uids", "u02"],
            2,
            "day.jsonl is a recording: --uids is for running servers",
        ),
        (
            vec!["day.jsonl", "--groups", "groups"],
            2,
            "day.jsonl is a recording: --groups",
        ),
        (
            vec!["day.jsonl", "--wukongim", "v1"],
            2,
            "day.jsonl is a recording: --wukongim",
        ),
        (
            vec![url.as_str(), "--uid-file", "bad-users"],
            2,
            "bad-users, line 3: uid must be at most 255 bytes long",
        ),
        (
            vec![url.as_str(), "--uids", "u02", "--groups", "bad-groups"],
            2,
            "bad-groups, line 2: the type behind the last colon must be a number",
        ),
        (
            vec![url.as_str(), "--uids", "u02", "--groups", "nowhere"],
            1,
            "cannot read nowhere",
        ),
        (
            vec![url.as_str(), "--uids", "u02", "--parallel", "65"],
            2,
            "--parallel",
        ),
        (
            vec![url.as_str(), "--uids", "u02", "--wukongim", "v4"],
            2,
            "must be v1, v2 or v3",
        ),
        (
            vec!["http://127.0.0.1:9", "--uids", "u02"],
            1,
            "is it the address of WuKongIM's HTTP interface",
        ),
        (vec![url.as_str(), "--uids", ""], 2, "uid must not be empty"),
        (
            vec![url.as_str(), "--uid-file", "nowhere"],
            1,
            "cannot read nowhere",
        ),
        (
            vec![url.as_str(), "--uids", "u02", "--rate", "0"],
            2,
            "--rate",
        ),
        (vec!["http://", "--uids", "u02"], 1, "is not a URL"),
    ] {
        let (got, output, problem) = command(&arguments).await;
        assert!(
            got == Some(code) && problem.contains(text),
            "{arguments:?}: {got:?} {output} {problem}"
        );
    }
    let nowhere = format!("{url}/nowhere");
    let (got, _, problem) = command(&[&nowhere, "--uids", "u01"]).await;
    assert!(
        got == Some(1) && problem.contains("this WuKongIM has no such route"),
        "{problem}"
    );
}

#[tokio::test]
async fn source_with_manager_token() {
    let there = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.manager_token = "hush".into()
    })
    .await;
    let here = Server::start(Engine::Sqlite).await;
    let uids = [Uid::parse("uid", "ann").unwrap()];
    let options = ImportOptions::default();
    let with_token = |token: &str| Arc::new(WukongimClient::new(&there.url, token, 100).unwrap());
    let refused = import_server(&here.app.core, &with_token("hus"), &uids, &options).await;
    let refused = format!("{:#}", refused.unwrap_err());
    assert!(
        refused.contains("status 401") && refused.contains("--token"),
        "{refused}"
    );
    let summary = import_server(&here.app.core, &with_token("hush"), &uids, &options)
        .await
        .unwrap();
    assert_eq!((summary.users, summary.conversations), (1, 0));
}

/// A real server, if one is configured, with its data for the users of the recorded day.
#[tokio::test]
async fn real_wukongim() {
    let Ok(address) = std::env::var("RECENTS_TEST_WUKONGIM") else {
        return;
    };
    let here = Server::start(Engine::Sqlite).await;
    let url = format!("http://{address}");
    println!(
        "{}\n{}",
        import(&here, &url, &uids()).await,
        compare_with(&here, &url, &uids()).await
    );
}
