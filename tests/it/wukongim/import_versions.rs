//! Imports from the stand-ins of v1, v2 and v3.

use std::sync::Arc;

use recents::config::WukongimVersion::{self, V1, V2, V3};
use recents::import::{Comparison, ImportOptions, ImportSummary, compare, import_server};
use recents::model::{ChannelRef, Uid};
use recents::upstream::WukongimClient;
use serde_json::{Value, json};

use crate::support::wukongim::StandIn;
use crate::support::{Engine, Server};

pub(super) fn uids(names: &[&str]) -> Vec<Uid> {
    let uids = names.iter().map(|uid| Uid::parse("uid", *uid).unwrap());
    uids.collect()
}

pub(super) async fn import(here: &Server, there: &StandIn, names: &[&str]) -> ImportSummary {
    import_with(here, there, names, &ImportOptions::default()).await
}

pub(super) async fn import_with(
    here: &Server,
    there: &StandIn,
    names: &[&str],
    options: &ImportOptions,
) -> ImportSummary {
    let client = Arc::new(WukongimClient::new(&there.url, "", 10_000).unwrap());
    let imported = import_server(&here.app.core, &client, &uids(names), options).await;
    imported.unwrap()
}

pub(super) async fn compare_with(
    here: &Server,
    there: &StandIn,
    names: &[&str],
    options: &ImportOptions,
) -> Comparison {
    let client = Arc::new(WukongimClient::new(&there.url, "", 10_000).unwrap());
    let compared = compare(&here.app.core, &client, &uids(names), options).await;
    compared.unwrap()
}

/// Sends a request that must succeed to the stand-in.
pub(super) async fn call(there: &StandIn, path: &str, body: Value) {
    let request = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = request
        .post(format!("{}{path}", there.url))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{path} {body}");
}

async fn delete(there: &StandIn, uid: &str, channel_id: &str, channel_type: u8) {
    let body = json!({"uid": uid, "channel_id": channel_id, "channel_type": channel_type});
    call(there, "/conversations/delete", body).await;
}

/// Returns the unread count of each conversation.
async fn unread(here: &Server, uid: &str) -> Vec<(String, i64)> {
    let mut listed: Vec<(String, i64)> = here
        .full(uid)
        .await
        .iter()
        .map(|item| {
            let id = item["channel_id"].as_str().unwrap().to_owned();
            (id, item["unread"].as_i64().unwrap())
        })
        .collect();
    listed.sort();
    listed
}

fn listed(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected
        .iter()
        .map(|(id, unread)| ((*id).to_owned(), *unread))
        .collect()
}

/// Everything that the versions have in common.
async fn import_from(engine: Engine, version: WukongimVersion) {
    let there = StandIn::start(version).await;
    let here = Server::start_with(engine, |settings| settings.ingest.wukongim = version).await;
    there.add_members("g", &["ann", "bob", "cat"]);
    for number in 1..=3 {
        there.send("bob", "g", 2, &format!("g{number}"));
    }
    there.send("ann", "bob", 1, "a1");
    there.send("bob", "ann", 1, "b1");
    there.send("bob", "ann", 1, "b2");
    // More messages than come with a list of conversations, and a note to oneself.
    for number in 1..=45 {
        there.send("cat", "ann", 1, &format!("c{number}"));
    }
    there.send("ann", "ann", 1, "note");
    // Deleted by one side only; a group, which a sender has deleted; and one that is back.
    delete(&there, "ann", "bob", 1).await;
    delete(&there, "bob", "g", 2).await;
    delete(&there, "ann", "cat", 1).await;
    there.send("cat", "ann", 1, "back");

    let names = ["ann", "bob", "cat"];
    let options = ImportOptions {
        wukongim: version,
        ..ImportOptions::default()
    };
    let summary = import_with(&here, &there, &names, &options).await;
    assert_eq!(
        (
            summary.deleted,
            summary.refused,
            summary.failed,
            summary.conflicts
        ),
        (2, 0, 0, 0),
        "{summary}"
    );
    assert_eq!(summary.stored, 53, "{summary}");
    assert_eq!(
        unread(&here, "ann").await,
        listed(&[("ann", 0), ("cat", 1), ("g", 3)]),
        "{version:?}"
    );
    assert_eq!(unread(&here, "bob").await, listed(&[("ann", 1)]));
    assert_eq!(unread(&here, "cat").await, listed(&[("ann", 0), ("g", 3)]));
    let recents = |uid: &str| {
        let body = json!({"uid": uid, "channels": [{"channel_id": "cat", "channel_type": 1}], "msg_count": 100});
        here.call("/conversation/syncByChannels", body)
    };
    let shown = recents("ann").await[0]["recents"].as_array().unwrap().len();
    // v1 does not know what was deleted once a newer message has come.
    assert_eq!(shown, if version == V1 { 46 } else { 1 });

    let comparison = compare_with(&here, &there, &names, &options).await;
    assert!(comparison.differences.is_empty(), "{comparison}");
    assert_eq!(
        (comparison.users, comparison.messages),
        (3, 53),
        "{comparison}"
    );
    // The next message brings deleted conversations back, here too.
    there.send_webhooks_to(format!("{}/webhook", here.url));
    there.send("bob", "ann", 1, "again");
    there.send("cat", "g", 2, "again");
    there.webhooks_settled().await;
    let bobs = unread(&here, "ann").await;
    assert!(bobs.contains(&("bob".to_owned(), 1)), "{bobs:?}");
    assert_eq!(unread(&here, "bob").await, listed(&[("ann", 0), ("g", 1)]));
}

async fn import_from_v1(engine: Engine) {
    import_from(engine, V1).await;
}

async fn import_from_v2(engine: Engine) {
    import_from(engine, V2).await;
}

async fn import_from_v3(engine: Engine) {
    import_from(engine, V3).await;
}

/// v1 lists large groups only when they are named, and a group that nobody lists has messages, too.
async fn large_groups_of_v1(engine: Engine) {
    let (there, here) = (StandIn::start(V1).await, Server::start(engine).await);
    for group in ["big:1", "unlisted"] {
        let body = json!({"channel_id": group, "channel_type": 2, "large": 1});
        call(&there, "/channel", body).await;
    }
    there.add_members("big:1", &["ann", "bob"]);
    for number in 1..=30 {
        there.send("bob", "big:1", 2, &number.to_string());
    }
    there.add_members("unlisted", &["eve"]);
    there.send("eve", "unlisted", 2, "hello");
    there.send("ann", "unlisted", 2, "hello");
    delete(&there, "ann", "unlisted", 2).await;
    there.add_members("small", &["ann"]);
    there.send("eve", "small", 2, "hello");

    let names = ["ann", "bob"];
    let without = import(&here, &there, &names).await;
    assert_eq!((without.stored, without.groups), (1, 0), "{without}");
    let options = ImportOptions {
        groups: ["big:1", "unlisted"]
            .map(|id| ChannelRef::parse(id, 2).unwrap())
            .to_vec(),
        ..ImportOptions::default()
    };
    let comparison = compare_with(&here, &there, &names, &options).await;
    assert_eq!(
        comparison.differences.get("missing messages"),
        Some(&32),
        "{comparison}"
    );
    assert!(
        ["missing", "missing users"]
            .iter()
            .any(|kind| comparison.differences.contains_key(*kind)),
        "{comparison}"
    );

    let fresh = Server::start(engine).await;
    let summary = import_with(&fresh, &there, &names, &options).await;
    assert_eq!(
        (summary.stored, summary.groups, summary.groups_without_users),
        (33, 2, 1),
        "{summary}"
    );
    let comparison = compare_with(&fresh, &there, &names, &options).await;
    assert!(comparison.differences.is_empty(), "{comparison}");
    assert_eq!(unread(&fresh, "bob").await, listed(&[("big:1", 0)]));
    let body =
        json!({"login_uid": "ann", "channel_id": "unlisted", "channel_type": 2, "limit": 10});
    let history = fresh.call("/channel/messagesync", body).await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 2);
    // Named later, it is added.
    let later = import_with(&here, &there, &names, &options).await;
    assert_eq!(later.stored, 32, "{later}");
    assert!(
        unread(&here, "ann")
            .await
            .iter()
            .any(|(id, _)| id == "big:1")
    );
}

on_every_database!(
    import_from_v1,
    import_from_v2,
    import_from_v3,
    large_groups_of_v1,
);

/// The version is found out if the expected routes do not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_is_found_out() {
    for (version, expected) in [(V3, V2), (V1, V3)] {
        let (there, here) = (
            StandIn::start(version).await,
            Server::start(Engine::Sqlite).await,
        );
        there.send("bob", "ann", 1, "hello");
        let options = ImportOptions {
            wukongim: expected,
            ..ImportOptions::default()
        };
        let summary = import_with(&here, &there, &["ann"], &options).await;
        assert_eq!((summary.stored, summary.is_v3), (1, version == V3));
        assert_eq!(summary.to_string().contains("red dot"), version == V3);
        assert_unread!(here, "ann", 1);
    }
}

/// Differences are counted by kind; the ones that follow from the rules are no failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comparison_names_every_kind_of_difference() {
    let (there, here) = (
        StandIn::start(V1).await,
        Server::start(Engine::Sqlite).await,
    );
    for (number, peer) in ["bob", "cat", "dan"].iter().enumerate() {
        for text in 0..=30 {
            there.send(peer, "ann", 1, &format!("{number}{text}"));
        }
    }
    let (names, options) = (["ann", "bob", "eve"], ImportOptions::default());
    import(&here, &there, &names).await;
    // Both learn of an own message: v1 continues to count.
    there.send_webhooks_to(format!("{}/webhook", here.url));
    there.send("ann", "bob", 1, "mine");
    there.webhooks_settled().await;
    let comparison = compare_with(&here, &there, &names, &options).await;
    assert!(comparison.differences.is_empty(), "{comparison}");
    assert_eq!(
        comparison.expected.get("unread after an own message"),
        Some(&1),
        "{comparison}"
    );
    // Deleted here, and back: v1 shows the old messages.
    here.delete("ann", "cat", 1).await;
    there.send("cat", "ann", 1, "back");
    there.webhooks_settled().await;
    let comparison = compare_with(&here, &there, &["ann"], &options).await;
    assert_eq!(
        comparison.expected.get("recents of deleted conversations"),
        Some(&1),
        "{comparison}"
    );
    // Real differences.
    there.drop_webhooks(true);
    there.send("fox", "ann", 1, "new");
    there.send("gnu", "eve", 1, "new");
    there.send("dan", "ann", 1, "lost");
    there.webhooks_settled().await;
    here.set_unread("ann", "cat", 1, 17).await;
    here.send("ann", "hen", 1, "only here").await;
    let comparison = compare_with(&here, &there, &names, &options).await;
    for (kind, count) in [
        ("missing", 1),
        ("missing users", 1),
        ("missing messages", 3),
        ("only here", 1),
        ("last_msg_seq", 1),
        ("messages", 1),
    ] {
        assert_eq!(
            comparison.differences.get(kind),
            Some(&count),
            "{kind}: {comparison}"
        );
    }
    assert!(
        comparison.differences.contains_key("unread"),
        "{comparison}"
    );
}
