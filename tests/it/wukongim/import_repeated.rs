//! Imports that are repeated: after an outage, after interruptions, and beside webhooks.

use std::time::Duration;

use recents::config::WukongimVersion::{V1, V2, V3};
use recents::import::ImportOptions;
use serde_json::json;

use super::import_versions::{compare_with, import, import_with};
use crate::support::wukongim::StandIn;
use crate::support::{Engine, Server};

/// Messages that no webhook brought are added, in the middle and at the end, and nothing else
/// changes.
async fn second_import_adds_what_is_missing(engine: Engine) {
    let (there, here) = (StandIn::start(V2).await, Server::start(engine).await);
    let names = ["ann", "bob", "cat"];
    there.add_members("g", &names);
    for number in 1..=5 {
        there.send("bob", "g", 2, &format!("before {number}"));
        there.send("bob", "ann", 1, &format!("before {number}"));
    }
    there.send_webhooks_to(format!("{}/webhook", here.url));
    import(&here, &there, &names).await;
    here.set_unread("cat", "g", 2, 2).await;

    there.drop_webhooks(true);
    for number in 1..=4 {
        there.send("bob", "g", 2, &format!("lost {number}"));
    }
    there.send("bob", "ann", 1, "lost");
    there.send("cat", "ann", 1, "lost");
    there.webhooks_settled().await;
    there.drop_webhooks(false);
    for number in 1..=3 {
        there.send("bob", "g", 2, &format!("after {number}"));
    }
    there.webhooks_settled().await;
    // ann has read the group, cat has deleted it.
    here.set_unread("ann", "g", 2, 0).await;
    here.delete("cat", "g", 2).await;

    let again = import(&here, &there, &names).await;
    assert_eq!(
        (again.imported_before, again.stored, again.deleted),
        (3, 6, 0),
        "{again}"
    );
    let of = async |uid: &str, channel_id: &str| {
        let listed = here.full(uid).await;
        let found = listed.iter().find(|item| item["channel_id"] == channel_id);
        found.map(|item| item["unread"].as_i64().unwrap())
    };
    assert_eq!(of("ann", "g").await, Some(0), "read before");
    assert_eq!(of("cat", "g").await, None, "deleted before");
    assert_eq!(of("ann", "bob").await, Some(6));
    assert_eq!(of("ann", "cat").await, Some(1));
    let body = json!({"login_uid": "ann", "channel_id": "g", "channel_type": 2, "limit": 100, "start_message_seq": 1, "pull_mode": 1});
    let history = here.call("/channel/messagesync", body).await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 12);
    let one_by_one = ImportOptions {
        parallel: 1,
        ..ImportOptions::default()
    };
    let third = import_with(&here, &there, &names, &one_by_one).await;
    assert_eq!((third.stored, third.repeated), (0, 19), "{third}");
}

/// An import that is interrupted at random moments, while messages arrive by webhook, ends with the
/// same state as one that is not.
async fn interrupted_beside_webhooks(engine: Engine) {
    for version in [V1, V3] {
        let there = StandIn::start(version).await;
        let here = Server::start_with(engine, |settings| settings.ingest.wukongim = version).await;
        let names = ["ann", "bob", "cat", "dan", "eve"];
        there.add_members("g", &names);
        let mut sent = 0;
        let mut send = |count: usize| {
            for _ in 0..count {
                let (from, to) = (names[sent % 5], names[(sent * 3 + 1) % 5]);
                there.send(from, "g", 2, &format!("g{sent}"));
                there.send(from, to, 1, &format!("p{sent}"));
                sent += 1;
            }
        };
        send(120);
        there.send_webhooks_to(format!("{}/webhook", here.url));
        let options = ImportOptions {
            wukongim: version,
            parallel: 3,
            ..ImportOptions::default()
        };
        for _ in 0..6 {
            let time = Duration::from_millis(rand::random_range(1..120));
            let import = import_with(&here, &there, &names, &options);
            let _ = tokio::time::timeout(time, import).await;
            send(5);
        }
        there.webhooks_settled().await;
        let summary = import_with(&here, &there, &names, &options).await;
        assert_eq!(
            (summary.refused, summary.failed, summary.conflicts),
            (0, 0, 0),
            "{summary}"
        );
        let comparison = compare_with(&here, &there, &names, &options).await;
        let mut differences = comparison.differences.clone();
        // Users who answered meanwhile have read here what the stand-in still counts.
        differences.remove("unread");
        assert!(differences.is_empty(), "{version:?} {comparison}");
        assert_eq!(comparison.messages, 300, "{comparison}");
    }
}

on_every_database!(
    second_import_adds_what_is_missing,
    interrupted_beside_webhooks,
);
