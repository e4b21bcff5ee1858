//! Webhooks arrive at least once, in parts, in any order; an unusable message does not affect the
//! others.

use std::io::Write;

use base64::Engine as _;
use recents::config::WukongimVersion;
use serde_json::{Value, json};

use crate::support::model::{Model, without_versions};
use crate::support::server::{payload, webhook_message};
use crate::support::{Engine, Server, fixtures};

on_every_database!(
    repeated_webhook_changes_nothing,
    order_and_batching_do_not_matter,
    concurrent_bodies_equal_sequential_ones,
    first_message_of_a_seq_is_kept,
    late_messages_count_above_the_watermark,
    late_own_message_marks_earlier_ones_read,
    unusable_messages_are_skipped_alone,
    only_malformed_bodies_are_refused,
    receivers_become_members_below_the_message,
    former_member_rejoins_with_a_later_message,
    compressed_receivers,
    group_without_members_is_stored,
    v3_counts_every_message_and_names_pairs,
    v3_traffic,
);

fn seqs(item: &Value) -> Vec<i64> {
    item["recents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["message_seq"].as_i64().unwrap())
        .collect()
}

fn offline(mut message: Value, to_uids: &[&str]) -> String {
    message["to_uids"] = json!(to_uids);
    message.to_string()
}

async fn repeated_webhook_changes_nothing(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    let body = json!([
        webhook_message("bob", "team", 2, 1, 11),
        webhook_message("ann", "team", 2, 2, 12),
        webhook_message("bob", "team", 2, 3, 13)
    ]);
    server.notify(body.clone()).await;
    let before = server.full("ann").await;
    for again in [
        body.clone(),
        json!([body[1]]),
        json!([body[2], body[0], body[2]]),
    ] {
        assert_eq!(server.notify(again.clone()).await.status, 200, "{again}");
        assert_eq!(server.full("ann").await, before, "{again}");
    }
    assert_eq!(
        server
            .post(
                "/webhook?event=msg.offline",
                offline(body[2].clone(), &["ann"])
            )
            .await
            .status,
        200
    );
    assert_eq!(server.full("ann").await, before);
    // WuKongIM stores a repeated client number under two seqs: both are messages.
    let mut twin = webhook_message("bob", "team", 2, 4, 14);
    twin["client_msg_no"] = json!("c13");
    server.notify(json!([twin])).await;
    assert_unread!(server, "ann", 2);
}

async fn order_and_batching_do_not_matter(engine: Engine) {
    let all: Vec<Value> = (1..=12)
        .flat_map(|seq| {
            let from = ["ann", "bob", "cid"][seq as usize % 3];
            [
                webhook_message(from, "team", 2, seq, 100 + seq),
                webhook_message(
                    if seq % 2 == 0 { "ann" } else { "bob" },
                    if seq % 2 == 0 { "bob" } else { "ann" },
                    1,
                    seq,
                    200 + seq,
                ),
            ]
        })
        .collect();
    for (number, cut) in [24_usize, 1, 5, 7].into_iter().enumerate() {
        let server = Server::start(engine).await;
        server.group("team", &["ann", "bob", "cid"]).await;
        let mut model = Model::default();
        let team = crate::support::model::channel("", "team", 2);
        ["ann", "bob", "cid"]
            .iter()
            .for_each(|uid| model.join(uid, &team));
        let mut shuffled = all.clone();
        // The same permutation every time: 5 steps forward, wrapping around.
        shuffled.sort_by_key(|message| {
            (message["message_seq"].as_i64().unwrap() * (5 + number as i64 * 2)) % 13
        });
        for body in shuffled.chunks(cut) {
            body.iter().for_each(|message| model.message(message));
            assert_eq!(
                server.notify(json!(body)).await.status,
                200,
                "bodies of {cut}"
            );
            for uid in ["ann", "bob", "cid"] {
                assert_eq!(
                    without_versions(&server.full(uid).await),
                    model.full(uid, 20, &Default::default()),
                    "{uid}, bodies of {cut}"
                );
            }
        }
        assert_eq!(
            seqs(&server.full("cid").await[0]),
            (1..=12).rev().collect::<Vec<_>>(),
            "bodies of {cut}"
        );
    }
}

async fn concurrent_bodies_equal_sequential_ones(engine: Engine) {
    let server = &Server::start(engine).await;
    let groups = ["g0", "g1", "g2", "g3", "g4"];
    for group in groups {
        server.group(group, &["ann", "bob", "cid"]).await;
    }
    let id = |group: usize, seq: i64| 1000 * (group as i64 + 1) + seq;
    let hook = |group: usize, seq: i64| {
        webhook_message(
            ["bob", "cid"][seq as usize % 2],
            groups[group],
            2,
            seq,
            id(group, seq),
        )
    };
    // Thirty bodies, each sent twice, with two messages for each group. The receiver of the 31st
    // message is a member from there on.
    let bodies = (0..60).map(|number| async move {
        let body: Vec<Value> = (0..groups.len())
            .flat_map(|group| [1, 2].map(|step| hook(group, number / 2 * 2 + step)))
            .collect();
        server.notify(json!(body)).await.status
    });
    let received = (0..groups.len()).map(|group| async move {
        server
            .post(
                "/webhook?event=msg.offline",
                offline(hook(group, 31), &["dan"]),
            )
            .await
            .status
    });
    let (notified, received) = tokio::join!(
        futures_util::future::join_all(bodies),
        futures_util::future::join_all(received)
    );
    assert!(
        notified
            .iter()
            .chain(&received)
            .all(|status| *status == 200),
        "{notified:?}, {received:?}"
    );

    for (uid, unread) in [("ann", 60), ("dan", 30)] {
        let items = server
            .sync(json!({"uid": uid, "version": 0, "msg_count": 100}))
            .await;
        assert_eq!(items.len(), groups.len(), "{uid}");
        for item in &items {
            let group = groups
                .iter()
                .position(|group| item["channel_id"] == *group)
                .unwrap();
            assert_eq!(
                (&item["unread"], seqs(item)),
                (&json!(unread), (1..=60).rev().collect()),
                "{uid} in g{group}"
            );
            let ids = item["recents"]
                .as_array()
                .unwrap()
                .iter()
                .map(|message| message["message_id"].as_i64().unwrap());
            assert!(
                ids.eq((1..=60).rev().map(|seq| id(group, seq))),
                "{uid} in g{group}"
            );
        }
    }
}

async fn first_message_of_a_seq_is_kept(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann"]).await;
    server
        .notify(json!([webhook_message("bob", "team", 2, 1, 11)]))
        .await;
    // Another message with its seq, and the same message with another seq.
    let others = json!([
        webhook_message("cid", "team", 2, 1, 99),
        webhook_message("bob", "team", 2, 2, 11)
    ]);
    assert_eq!(server.notify(others).await.status, 200);
    let team = server.only("ann").await;
    assert_eq!(
        (
            seqs(&team),
            &team["recents"][0]["message_id"],
            &team["unread"]
        ),
        (vec![1], &json!(11), &json!(1))
    );
    // The same two in one body.
    let twins = json!([
        webhook_message("bob", "team", 2, 2, 21),
        webhook_message("bob", "team", 2, 2, 22),
        webhook_message("bob", "team", 2, 3, 21)
    ]);
    assert_eq!(server.notify(twins).await.status, 200);
    assert_eq!(seqs(&server.only("ann").await), [2, 1]);
}

async fn late_messages_count_above_the_watermark(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    server
        .notify(json!([
            webhook_message("cid", "team", 2, 1, 11),
            webhook_message("cid", "team", 2, 4, 14)
        ]))
        .await;
    server.delete("bob", "team", 2).await;
    server
        .call(
            "/channel/subscriber_add",
            json!({"channel_id": "team", "channel_type": 2, "subscribers": ["dan"]}),
        )
        .await;
    let version = server.only("ann").await["version"].as_i64().unwrap();
    server
        .notify(json!([webhook_message("cid", "team", 2, 3, 13)]))
        .await;
    let ann = server.only("ann").await;
    assert_eq!(
        (seqs(&ann), &ann["unread"], &ann["last_client_msg_no"]),
        (vec![4, 3, 1], &json!(3), &json!("c14"))
    );
    assert!(
        ann["version"].as_i64().unwrap() > version,
        "the other device learns of it"
    );
    assert_eq!(
        server.full("bob").await.len() + server.full("dan").await.len(),
        0
    );
    server
        .notify(json!([
            webhook_message("cid", "team", 2, 5, 15),
            webhook_message("cid", "team", 2, 2, 12)
        ]))
        .await;
    for uid in ["bob", "dan"] {
        assert_unread!(server, uid, 1);
    }
    assert_eq!(
        seqs(&server.only("bob").await),
        [5],
        "deleted is deleted, also for what comes late"
    );
    assert_unread!(server, "ann", 5);
}

async fn late_own_message_marks_earlier_ones_read(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    for seq in [1, 2, 4, 5] {
        server
            .notify(json!([webhook_message("bob", "team", 2, seq, 10 + seq)]))
            .await;
    }
    assert_unread!(server, "ann", 4);
    server
        .notify(json!([webhook_message("ann", "team", 2, 3, 13)]))
        .await;
    assert_unread!(server, "ann", 2);
    server.set_unread("ann", "team", 2, 0).await;
    server
        .notify(json!([
            webhook_message("bob", "team", 2, 8, 18),
            webhook_message("ann", "team", 2, 7, 17)
        ]))
        .await;
    assert_unread!(server, "ann", 1);
    server
        .notify(json!([webhook_message("ann", "team", 2, 6, 16)]))
        .await;
    assert_unread!(
        server,
        "ann",
        1,
        "what was read stays read, what was unread stays unread"
    );
    assert_unread!(server, "bob", 0, "Bob has sent a message since");
}

async fn unusable_messages_are_skipped_alone(engine: Engine) {
    let server = Server::start_with(engine, |settings| settings.limits.payload_bytes = 100).await;
    server.group("team", &["ann"]).await;
    let change = |field: &str, value: Value| {
        let mut message = webhook_message("bob", "team", 2, 50, 500);
        message[field] = value;
        message
    };
    let mut bad = vec![json!(null), json!(7), json!("message"), json!([])];
    for (field, values) in [
        (
            "channel_type",
            vec![json!(0), json!(256), json!(-1), json!("2"), json!(2.5)],
        ),
        (
            "message_seq",
            vec![
                json!(0),
                json!(-1),
                json!(4_294_967_296_i64),
                json!("1"),
                Value::Null,
            ],
        ),
        (
            "message_id",
            vec![
                json!(0),
                json!(-1),
                json!(18_446_744_073_709_551_615_u64),
                json!("1"),
                Value::Null,
            ],
        ),
        (
            "channel_id",
            vec![
                json!(""),
                Value::Null,
                json!("a\nb"),
                json!("x".repeat(256)),
                json!(5),
            ],
        ),
        (
            "payload",
            vec![
                json!("***"),
                json!("abc"),
                json!(5),
                json!(payload(&"x".repeat(200))),
            ],
        ),
        ("from_uid", vec![json!("a\u{0}b"), json!(5)]),
        ("client_msg_no", vec![json!("x".repeat(256)), json!(5)]),
        ("header", vec![json!("none"), json!({"red_dot": "yes"})]),
        ("topic", vec![json!("x".repeat(256))]),
        ("expire", vec![json!(-1)]),
        ("setting", vec![json!(256)]),
    ] {
        bad.extend(values.into_iter().map(|value| change(field, value)));
    }
    // Messages that are not meant to be stored are skipped without a warning.
    bad.push(change("header", json!({"no_persist": 1, "red_dot": 1})));
    bad.push(change("header", json!({"sync_once": 1, "red_dot": 1})));
    bad.push(change("channel_id", json!("team____cmd")));
    let count = bad.len();
    let mut body = vec![webhook_message("bob", "team", 2, 1, 11)];
    body.extend(bad);
    body.push(webhook_message("bob", "team", 2, 2, 12));
    assert_eq!(body.len(), count + 2);
    assert_eq!(server.notify(json!(body)).await.status, 200);
    let team = server.only("ann").await;
    assert_eq!((seqs(&team), &team["unread"]), (vec![2, 1], &json!(2)));
    let one_bad = offline(change("message_seq", json!(0)), &["eve"]);
    assert_eq!(
        server
            .post("/webhook?event=msg.offline", one_bad)
            .await
            .status,
        200
    );
    assert_eq!(server.full("eve").await, Vec::<Value>::new());
}

async fn only_malformed_bodies_are_refused(engine: Engine) {
    let server = Server::start(engine).await;
    for (event, body) in [
        ("msg.notify", "{}"),
        ("msg.notify", "null"),
        ("msg.notify", ""),
        ("msg.notify", "[{]"),
        ("msg.notify", "[] x"),
        ("msg.offline", "[]"),
        ("msg.offline", "7"),
        ("msg.offline", "{\"to_uids\":\"ann\"}"),
        ("msg.offline", "{\"to_uids\":[1]}"),
        ("", "[]"),
    ] {
        let answer = server.post(&format!("/webhook?event={event}"), body).await;
        assert_eq!(
            (answer.status, answer.json()["status"].as_u64()),
            (400, Some(400)),
            "{event} {body}: {answer:?}"
        );
        assert!(!answer.msg().is_empty(), "{event} {body}: {answer:?}");
    }
    assert_eq!(server.post("/webhook", "[]").await.status, 400);
    for (event, body) in [
        ("msg.notify", "[]"),
        ("user.onlinestatus", "[\"ann-1-1-7-1-1\"]"),
        ("something.new", "what"),
        ("msg.offline", "{}"),
        // The message is worth more than its receivers.
        (
            "msg.offline",
            "{\"compress\":\"gzip\",\"compress_to_uids\":\"***\"}",
        ),
    ] {
        assert_eq!(
            server
                .post(&format!("/webhook?event={event}"), body)
                .await
                .text,
            r#"{"status":200}"#,
            "{event} {body}"
        );
    }
}

async fn receivers_become_members_below_the_message(engine: Engine) {
    let server = Server::start(engine).await;
    server
        .notify(json!([
            webhook_message("bob", "team", 2, 1, 11),
            webhook_message("bob", "team", 2, 2, 12),
            webhook_message("ann", "team", 2, 4, 14)
        ]))
        .await;
    let third = webhook_message("bob", "team", 2, 3, 13);
    assert_eq!(
        server
            .post(
                "/webhook?event=msg.offline",
                offline(third.clone(), &["ann", "cid", "bob", "", "bad\nuid"])
            )
            .await
            .status,
        200
    );
    for (uid, unread) in [("ann", 0), ("cid", 2), ("bob", 1)] {
        let team = server.only(uid).await;
        assert_eq!(
            (&team["unread"], seqs(&team)),
            (&json!(unread), vec![4, 3, 2, 1]),
            "{uid}"
        );
    }
    // Existing members stay as they are.
    server.set_unread("cid", "team", 2, 0).await;
    server
        .post(
            "/webhook?event=msg.offline",
            offline(third, &["ann", "cid"]),
        )
        .await;
    assert_unread!(server, "cid", 0);
    // A person channel has its two users as members, and no others.
    let person = webhook_message("bob", "ann", 1, 1, 21);
    server
        .post(
            "/webhook?event=msg.offline",
            offline(person, &["ann", "eve"]),
        )
        .await;
    assert_eq!(server.full("ann").await.len(), 2);
    assert_eq!(server.full("eve").await, Vec::<Value>::new());
}

async fn former_member_rejoins_with_a_later_message(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "cid"]).await;
    server
        .notify(json!([
            webhook_message("bob", "team", 2, 1, 11),
            webhook_message("bob", "team", 2, 2, 12)
        ]))
        .await;
    server.delete("cid", "team", 2).await;
    server
        .call(
            "/channel/subscriber_remove",
            json!({"channel_id": "team", "channel_type": 2, "subscribers": ["ann", "cid"]}),
        )
        .await;
    server
        .post(
            "/webhook?event=msg.offline",
            offline(webhook_message("bob", "team", 2, 2, 12), &["ann"]),
        )
        .await;
    assert_eq!(
        server.full("ann").await,
        Vec::<Value>::new(),
        "that message was before Ann left"
    );
    // Webhooks may be late: for ten seconds a removal takes precedence.
    let mut third = webhook_message("bob", "team", 2, 3, 13);
    server
        .post(
            "/webhook?event=msg.offline",
            offline(third.clone(), &["ann", "cid"]),
        )
        .await;
    assert_eq!(
        server.full("ann").await,
        Vec::<Value>::new(),
        "that message was sent three seconds after Ann left"
    );
    third["message_seq"] = json!(4);
    third["message_id"] = json!(14);
    third["timestamp"] = json!(1_795_393_011);
    server
        .post(
            "/webhook?event=msg.offline",
            offline(third, &["ann", "cid"]),
        )
        .await;
    let (ann, cid) = (server.only("ann").await, server.only("cid").await);
    assert_eq!((&ann["unread"], seqs(&ann)), (&json!(1), vec![4, 3, 2, 1]));
    assert_eq!(
        (&cid["unread"], seqs(&cid)),
        (&json!(1), vec![4, 3]),
        "what was deleted before leaving stays deleted"
    );
}

async fn compressed_receivers(engine: Engine) {
    let server = Server::start(engine).await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer
        .write_all(json!(["ann", "cid"]).to_string().as_bytes())
        .unwrap();
    let mut message = webhook_message("bob", "team", 2, 1, 11);
    message["compress"] = json!("gzip");
    message["compress_to_uids"] =
        json!(base64::engine::general_purpose::STANDARD.encode(packer.finish().unwrap()));
    assert_eq!(
        server
            .post("/webhook?event=msg.offline", message.to_string())
            .await
            .status,
        200
    );
    for uid in ["ann", "cid"] {
        assert_unread!(server, uid, 1);
    }
}

async fn group_without_members_is_stored(engine: Engine) {
    let server = Server::start(engine).await;
    server
        .notify(json!([webhook_message("bob", "team", 2, 1, 11)]))
        .await;
    server.group("team", &["ann"]).await;
    assert_eq!(
        server.full("ann").await,
        Vec::<Value>::new(),
        "who is added joins at the end"
    );
    server
        .notify(json!([webhook_message("bob", "team", 2, 2, 12)]))
        .await;
    let team = server.only("ann").await;
    assert_eq!((&team["unread"], seqs(&team)), (&json!(1), vec![2, 1]));
}

async fn v3_counts_every_message_and_names_pairs(engine: Engine) {
    let server = Server::start_with(engine, |settings| {
        settings.ingest.wukongim = WukongimVersion::V3
    })
    .await;
    server.group("team", &["ann"]).await;
    let mut silent = webhook_message("dan", "team", 2, 1, 11);
    silent["header"]["red_dot"] = json!(0);
    let mut person = webhook_message("alice", "bob@alice", 1, 1, 12);
    person["header"]["red_dot"] = json!(0);
    let odd = webhook_message("carol", "bob@alice", 1, 2, 13);
    assert_eq!(
        server.notify(json!([silent, person, odd])).await.status,
        200
    );
    assert_unread!(server, "ann", 1);
    let bob = server.only("bob").await;
    assert_eq!(
        (
            &bob["channel_id"],
            &bob["unread"],
            &bob["recents"][0]["channel_id"]
        ),
        (&json!("alice"), &json!(1), &json!("bob"))
    );
    assert_eq!(server.only("alice").await["channel_id"], "bob");
    assert_eq!(server.full("carol").await, Vec::<Value>::new());
}

/// Everything that a v3 server sent, and the resulting unread counts.
async fn v3_traffic(engine: Engine) {
    let server = Server::start_with(engine, |settings| {
        settings.ingest.wukongim = WukongimVersion::V3
    })
    .await;
    let mut messages = 0;
    for line in fixtures::lines("v3/webhook.jsonl") {
        let answer = server
            .post(
                &format!("/webhook{}", line["path"].as_str().unwrap()),
                line["body"].as_str().unwrap().to_owned(),
            )
            .await;
        assert_eq!(answer.status, 200, "{line}");
        messages += 1;
    }
    assert!(messages > 30);
    let ann = server.full("ann").await;
    let bob = ann
        .iter()
        .find(|item| item["channel_id"] == "bob" && item["channel_type"] == 1)
        .unwrap();
    assert!(
        ann.iter()
            .all(|item| !item["channel_id"].as_str().unwrap().contains('@')),
        "no pair shows"
    );
    let mut own_last = 0;
    let recents = server.sync(json!({"uid": "ann", "msg_count": 500})).await;
    let recents = recents
        .iter()
        .find(|item| item["channel_id"] == "bob" && item["channel_type"] == 1)
        .unwrap()["recents"]
        .clone();
    for message in recents.as_array().unwrap() {
        if message["from_uid"] == "ann" {
            own_last = own_last.max(message["message_seq"].as_i64().unwrap());
        }
    }
    let unread = recents
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["message_seq"].as_i64().unwrap() > own_last)
        .count();
    assert_eq!(bob["unread"], unread);
}
