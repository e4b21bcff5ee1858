//! Sending: seqs are dense and each message is stored once, under any concurrency.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::server::{message, payload};
use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server};

on_every_database!(
    repeated_send_returns_the_first_message,
    concurrent_sends_have_dense_seqs,
    concurrent_retries_are_stored_once,
    concurrent_first_messages_of_both_sides,
    responses_match_recordings,
    graphql_send_equals_rest_send,
    concurrent_readers_lose_no_change,
    concurrent_requests_equal_sequential_ones,
);

async fn repeated_send_returns_the_first_message(engine: Engine) {
    let server = Server::start(engine).await;
    let first = server.send("bob", "ann", 1, "one").await;
    server.send("bob", "ann", 1, "two").await;
    assert_eq!(server.send("bob", "ann", 1, "one").await, first);
    // Another text with the same number is a repeat, too; another sender or another channel is not.
    let mut other = message("bob", "ann", 1, "one");
    other["payload"] = json!(payload("different"));
    assert_eq!(server.call("/message/send", other).await["data"], first);
    assert_eq!(server.send("ann", "bob", 1, "one").await["message_seq"], 3);
    assert_eq!(server.send("bob", "cid", 1, "one").await["message_seq"], 1);
    // Without a `client_msg_no` every send is a new message.
    let mut anonymous = message("bob", "ann", 1, "x");
    anonymous.as_object_mut().unwrap().remove("client_msg_no");
    let (one, two) = (
        server.call("/message/send", anonymous.clone()).await,
        server.call("/message/send", anonymous).await,
    );
    assert_eq!(
        (&one["data"]["message_seq"], &two["data"]["message_seq"]),
        (&json!(4), &json!(5))
    );
    let number = one["data"]["client_msg_no"].as_str().unwrap();
    assert!(
        number.len() == 33 && number.ends_with('0') && number != two["data"]["client_msg_no"],
        "{number}"
    );
    let server = server.restart(|_| {}).await;
    assert_eq!(
        server.send("bob", "ann", 1, "one").await,
        first,
        "also for another server"
    );
}

async fn concurrent_sends_have_dense_seqs(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    let sends = (0..60).map(|number| {
        let server = &server;
        async move {
            let (from, text) = (["ann", "bob", "eve"][number % 3], format!("m{number}"));
            server.send(from, "team", 2, &text).await["message_seq"]
                .as_i64()
                .unwrap()
        }
    });
    let seqs: BTreeSet<i64> = futures_util::future::join_all(sends)
        .await
        .into_iter()
        .collect();
    assert_eq!(seqs, (1..=60).collect());
    let answer = server.sync(json!({"uid": "ann", "msg_count": 100})).await;
    assert_eq!(answer[0]["recents"].as_array().unwrap().len(), 60);
    let ids: BTreeSet<i64> = answer[0]["recents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["message_id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids.len(), 60);
}

async fn concurrent_retries_are_stored_once(engine: Engine) {
    let server = Server::start(engine).await;
    let answers =
        futures_util::future::join_all((0..16).map(|_| server.send("bob", "ann", 1, "once"))).await;
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(server.only("ann").await["last_msg_seq"], 1);
}

async fn concurrent_first_messages_of_both_sides(engine: Engine) {
    let server = Server::start(engine).await;
    for number in 0..10 {
        let (one, other) = (format!("a{number}"), format!("b{number}"));
        let (sent, back) = tokio::join!(
            server.send(&one, &other, 1, "hello"),
            server.send(&other, &one, 1, "hello")
        );
        let seqs = BTreeSet::from([
            sent["message_seq"].as_i64().unwrap(),
            back["message_seq"].as_i64().unwrap(),
        ]);
        assert_eq!(seqs, BTreeSet::from([1, 2]), "{one} and {other}");
        let (one, other) = (server.only(&one).await, server.only(&other).await);
        assert_eq!(
            one["unread"].as_i64().unwrap() + other["unread"].as_i64().unwrap(),
            1,
            "the first was read by sending"
        );
    }
}

async fn responses_match_recordings(engine: Engine) {
    let server = Server::start(engine).await;
    let answer = server
        .post("/message/send", message("bob", "ann", 1, "one").to_string())
        .await;
    assert_eq!(answer.content_type, "application/json; charset=utf-8");
    let id = answer.json()["data"]["message_id"].as_i64().unwrap();
    assert_eq!(
        answer.text,
        format!(
            r#"{{"data":{{"client_msg_no":"one","message_id":{id},"message_seq":1}},"status":200}}"#
        )
    );
    assert!(id > 1 << 53);
    // A command to named users gets an ID, and nothing is stored.
    let command = json!({"header": {"sync_once": 1}, "from_uid": "bob", "subscribers": ["ann"], "payload": payload("x"), "client_msg_no": "c"});
    assert_eq!(
        server.call("/message/send", command.clone()).await["data"]["message_seq"],
        0
    );
    let mut stored = command;
    stored["header"]["sync_once"] = json!(0);
    let refused = server.post("/message/send", stored.to_string()).await;
    assert_eq!(
        (refused.status, refused.msg().as_str()),
        (400, "无法处理发送消息请求！")
    );
    assert_eq!(server.only("ann").await["last_msg_seq"], 1);
}

async fn graphql_send_equals_rest_send(engine: Engine) {
    let server = Server::start(engine).await;
    let mutation = "mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message {
        messageId messageSeq clientMsgNo fromUid channelId channelType setting topic expire payload content header { redDot noPersist syncOnce } } } }";
    let input = json!({"fromUid": "bob", "channel": {"channelId": "ann", "channelType": 1}, "payload": payload("hello"),
        "clientMsgNo": "n1", "setting": 8, "topic": "t", "expire": 4_294_967_295_u32});
    let sent =
        server.graphql(mutation, json!({"input": input})).await["sendMessage"]["message"].clone();
    assert_eq!(
        sent,
        json!({"messageId": sent["messageId"], "messageSeq": 1, "clientMsgNo": "n1", "fromUid": "bob", "channelId": "ann", "channelType": 1,
            "setting": 8, "topic": "t", "expire": 4_294_967_295_u32, "payload": payload("hello"),
            "content": {"type": 1, "content": "hello"}, "header": {"redDot": true, "noPersist": false, "syncOnce": false}})
    );
    assert_eq!(
        server.graphql(mutation, json!({"input": input})).await["sendMessage"]["message"],
        sent
    );
    let shown = server.only("ann").await["recents"][0].clone();
    assert_eq!(
        (
            &shown["message_idstr"],
            &shown["topic"],
            &shown["setting"],
            &shown["expire"]
        ),
        (
            &sent["messageId"],
            &json!("t"),
            &json!(8),
            &json!(4_294_967_295_u32)
        )
    );
    for (field, value) in [
        ("setting", json!(256)),
        ("expire", json!(4_294_967_296_i64)),
        ("payload", json!("")),
        ("payload", json!("*")),
        ("fromUid", json!("")),
        ("clientMsgNo", json!("a\nb")),
    ] {
        let mut wrong = input.clone();
        wrong[field] = value;
        let code = server.graphql_code(mutation, json!({"input": wrong})).await;
        assert!(
            ["BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED"].contains(&code.as_str()),
            "{field}: {code}"
        );
    }
}

/// Two servers on one database with clocks hours apart, writers on both, and readers that switch
/// between them until the writers are done: no change is lost and no version goes back. Every
/// channel of the first kind changes once, so that no later change can hide a lost one.
async fn concurrent_readers_lose_no_change(engine: Engine) {
    const ONCE: usize = 60;
    let one = Server::start(engine).await;
    let two = Server::start_on(std::sync::Arc::clone(&one.database), |_| {}).await;
    two.set_clock(1_795_393_000_000 + 3 * 3_600_000);
    one.group("team", &["ann", "bob", "cid"]).await;
    one.group("other", &["ann", "bob"]).await;
    let servers = [&one, &two];
    let done = &std::sync::atomic::AtomicUsize::new(0);
    let writer = |number: usize| {
        let server = servers[number % 2];
        async move {
            for round in 0..ONCE / 4 {
                server
                    .send(&format!("once{number}-{round}"), "ann", 1, "hello")
                    .await;
                let from = ["ann", "bob", "cid"][(number + round) % 3];
                let channel = ["team", "other"][round % 2];
                server
                    .send(from, channel, 2, &format!("w{number}-{round}"))
                    .await;
                let members =
                    json!({"channel_id": "other", "channel_type": 2, "subscribers": ["ann"]});
                match round % 6 {
                    1 => {
                        server
                            .set_unread("ann", "team", 2, (round % 4) as i64)
                            .await
                    }
                    3 => server.delete("ann", "other", 2).await,
                    4 => drop(server.call("/channel/subscriber_remove", members).await),
                    5 => drop(server.call("/channel/subscriber_add", members).await),
                    _ => {}
                }
            }
            done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    };
    let reader = |number: usize| async move {
        let mut device = if number < 2 {
            Incremental::new("ann")
        } else {
            Incremental::in_pages("ann", 3)
        };
        let mut round = 0;
        while done.load(std::sync::atomic::Ordering::SeqCst) < 4 {
            device.sync(servers[(number + round) % 2]).await;
            round += 1;
        }
        assert!(round > 0);
        device
    };
    let writers = futures_util::future::join_all((0..4).map(writer));
    let readers = futures_util::future::join_all((0..4).map(reader));
    let (_, readers) = tokio::join!(writers, readers);
    let full = one.full("ann").await;
    assert!(full.len() > ONCE);
    for (number, mut device) in readers.into_iter().enumerate() {
        device.sync(servers[number % 2]).await;
        device.must_hold(&full);
    }
    let answer = two.sync(json!({"uid": "bob", "msg_count": 100})).await;
    let team = answer
        .iter()
        .find(|item| item["channel_id"] == "team")
        .unwrap();
    let seqs = team["recents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["message_seq"].as_i64().unwrap());
    assert_eq!(seqs.collect::<Vec<_>>(), (1..=32).rev().collect::<Vec<_>>());
}

/// Concurrent requests share transactions: each must be answered as if it were alone.
async fn concurrent_requests_equal_sequential_ones(engine: Engine) {
    let server = &Server::start(engine).await;
    let users = ["ann", "bob", "cid", "dan"];
    let groups = ["g0", "g1", "g2"];
    for group in groups {
        server.group(group, &users).await;
        server.send("eve", group, 2, "first").await;
    }
    // Every message is sent twice, so that some repeats meet the original in the same transaction;
    // some messages have a red dot, some do not.
    let sends = (0..120).map(|number| async move {
        let number = number / 2;
        let (from, group) = (users[number % 4], groups[number % 3]);
        let mut body = message(from, group, 2, &format!("m{number}"));
        body["header"]["red_dot"] = json!(i32::from(number % 5 > 0));
        (
            group,
            server.call("/message/send", body).await["data"].clone(),
        )
    });
    let marks = (0..60).map(|number| async move {
        server
            .set_unread(
                users[number % 4],
                groups[number / 4 % 3],
                2,
                1000 + number as i64,
            )
            .await;
    });
    let deletes = (0..4).map(|number| async move { server.delete(users[number], "g2", 2).await });
    let (sent, _, _) = tokio::join!(
        futures_util::future::join_all(sends),
        futures_util::future::join_all(marks),
        futures_util::future::join_all(deletes)
    );

    let mut seqs: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for pair in sent.chunks(2) {
        assert_eq!(pair[0], pair[1], "a repeat answers as the first time");
        seqs.entry(pair[0].0)
            .or_default()
            .insert(pair[0].1["message_seq"].as_i64().unwrap());
        ids.insert(pair[0].1["message_id"].as_i64().unwrap());
    }
    assert_eq!(ids.len(), 60);
    for (group, seqs) in &seqs {
        assert_eq!(
            seqs.iter().copied().collect::<Vec<_>>(),
            (2..=21).collect::<Vec<_>>(),
            "{group} has no hole and nothing twice"
        );
    }
    // From here on unread counts are known, and sequential requests give the counts of the model.
    for group in groups {
        for user in users {
            server.set_unread(user, group, 2, 0).await;
        }
    }
    let later: Vec<_> = futures_util::future::join_all((0..48).map(|number| async move {
        let (from, group) = (users[number % 4], groups[number % 3]);
        let answer = server
            .call(
                "/message/send",
                message(from, group, 2, &format!("later{number}")),
            )
            .await;
        (group, answer["data"]["message_seq"].as_i64().unwrap(), from)
    }))
    .await;
    for user in users {
        let mut device = Incremental::new(user);
        device.sync(server).await;
        let full = server.full(user).await;
        assert_eq!(full.len(), 3, "{user}: {full:?}");
        for conversation in full {
            let group = conversation["channel_id"].as_str().unwrap();
            let of_group = later.iter().filter(|(of, ..)| *of == group);
            let own = of_group
                .clone()
                .filter(|(.., from)| *from == user)
                .map(|(_, seq, _)| *seq)
                .max()
                .unwrap_or(0);
            let unread = of_group.filter(|(_, seq, _)| *seq > own).count();
            assert_eq!(conversation["unread"], unread, "{user} in {group}");
            assert_eq!(conversation["last_msg_seq"], 37, "{user} in {group}");
            // One conversation was deleted in between: later messages show in any case.
            let shown = conversation["recents"].as_array().unwrap().len();
            assert!(
                shown == 20 || (group == "g2" && shown >= 16),
                "{user} sees {shown} of {group}"
            );
        }
    }
    // Concurrent marks: one of them wins, and each got a version of its own.
    futures_util::future::join_all(
        (1..=40).map(|number| server.set_unread("ann", "g0", 2, number)),
    )
    .await;
    let unread = server
        .full("ann")
        .await
        .iter()
        .find(|item| item["channel_id"] == "g0")
        .unwrap()["unread"]
        .as_i64()
        .unwrap();
    assert!((1..=40).contains(&unread), "{unread}");
}
