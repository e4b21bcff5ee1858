//! v3's routes for conversations: the recorded calls, and walks while the list changes.

use serde_json::{Value, json};

use crate::support::server::{payload, webhook_message};
use crate::support::sync_clients::{Incremental, Walk, Walker};
use crate::support::{Engine, Server, fixtures};

on_every_database!(
    recorded_calls,
    deletions_are_told,
    walks_amid_changes,
    reset,
    batched_history,
    answers_are_bounded
);

/// Recorded calls whose answers differ, and the reasons.
const DIFFERENT: [(&str, &str); 15] = [
    (
        "after delete, with completed_coverage of the first walk",
        "everything there, without a word about the deletion; the changes here, the deletion told",
    ),
    ("after leaving lg1: deletes", "the same"),
    ("completed_coverage ancient: reset_required?", "the same"),
    (
        "after activate: last_message null",
        "nothing happens there, because the channel has no messages",
    ),
    (
        "deleted conversation back with a new message",
        "the same; read_seq here has what deletion reads",
    ),
    ("limit 201", "another text here, which names the field"),
    ("limit -1", "the same"),
    ("no json", "the same"),
    ("setUnread -1", "the same"),
    ("unknown user", "the time there; no version here"),
    (
        "messagesyncbatch",
        "one unknown channel refuses all there; it is empty here",
    ),
    (
        "activated: first, last_message null, active_at set",
        "read_seq here has what deletion and own messages read",
    ),
    ("retry the activated one", "the same"),
    ("setUnread unknown", "400 there; 200 here, as v1 and v2"),
    (
        "messagesync without limit",
        "100 messages there; 400 here, as COMPATIBILITY.md says",
    ),
];

/// A webhook's message with the recorded id, sender, client number, payload and time.
fn recorded_message(last: &Value, channel_id: &str, channel_type: u8) -> Value {
    let id = last["message_id"].as_i64().unwrap();
    let seq = last["message_seq"].as_i64().unwrap();
    let from = last["from_uid"].as_str().unwrap();
    let mut message = webhook_message(from, channel_id, channel_type, seq, id);
    message["client_msg_no"] = last["client_msg_no"].clone();
    message["payload"] = last["payload"].clone();
    if let Some(ms) = last["server_timestamp_ms"].as_i64() {
        message["timestamp"] = json!(ms / 1000);
    }
    message
}

/// Removes what depends on the moment, and the order of lists, which is another one on purpose.
fn normal(text: &str) -> Value {
    let Ok(mut answer) = serde_json::from_str::<Value>(text) else {
        return json!(text);
    };
    fn forget(value: &mut Value) {
        match value {
            Value::Array(entries) => entries.iter_mut().for_each(forget),
            Value::Object(fields) => {
                // v3 does not know when a message was sent, nor whether it has a red dot.
                fields.remove("timestamp");
                fields.remove("red_dot");
                if let Some(ms) = fields.get_mut("server_timestamp_ms") {
                    *ms = json!(ms.as_i64().unwrap() / 1000);
                }
                if let Some(at) = fields.get_mut("active_at") {
                    *at = json!(at.as_i64().unwrap() > 0);
                }
                if let Some(cursor) = fields.get_mut("next_cursor") {
                    *cursor = json!("…");
                }
                if let Some(coverage) = fields.get_mut("coverage") {
                    *coverage = json!(coverage.as_i64().unwrap() > 0);
                }
                fields.values_mut().for_each(forget);
            }
            _ => {}
        }
    }
    forget(&mut answer);
    for field in ["conversations", "deletes"] {
        if let Some(list) = answer.get_mut(field).and_then(Value::as_array_mut) {
            list.sort_by_key(|item| item["channel_id"].to_string());
        }
    }
    answer
}

/// The channels of a list in its order.
fn ids(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item["channel_id"].as_str().unwrap())
        .collect()
}

/// Repeats the events before the recording.
async fn prepare(server: &Server, lines: &[Value]) {
    let first: Value = serde_json::from_str(lines[0]["answer"].as_str().unwrap()).unwrap();
    server.group("lg1", &["la", "lb"]).await;
    server.group("lg2", &["la"]).await;
    let mut hooks = Vec::new();
    for item in first["conversations"].as_array().unwrap() {
        let last = &item["last_message"];
        let (kind, id) = match item["channel_id"].as_str().unwrap() {
            "lg1" => (2, "lg1"),
            _ => (1, "la"),
        };
        if last["message_seq"] == 2 {
            let mut earlier = webhook_message("lb", id, kind, 1, 42);
            earlier["timestamp"] = json!(1_795_741_094);
            hooks.push(earlier);
        }
        hooks.push(recorded_message(last, id, kind));
    }
    // The second half of the recording has other users.
    let history: Value =
        serde_json::from_str(lines.last().unwrap()["answer"].as_str().unwrap()).unwrap();
    server.group("g1", &["u00", "u01", "u02", "u03"]).await;
    for message in history["messages"].as_array().unwrap() {
        hooks.push(recorded_message(message, "g1", 2));
    }
    let batch = lines
        .iter()
        .find(|line| line["note"] == "messagesyncbatch, works")
        .unwrap();
    let batch: Value = serde_json::from_str(batch["answer"].as_str().unwrap()).unwrap();
    for message in batch["items"][0]["messages"].as_array().unwrap() {
        let to = if message["from_uid"] == "u00" {
            "u01"
        } else {
            "u00"
        };
        hooks.push(recorded_message(message, to, 1));
    }
    for seq in 1..=3 {
        hooks.push(webhook_message("u00", "u02", 1, seq, 100 + seq));
    }
    let mut old = webhook_message("u03", "u02", 1, 1, 200);
    old["timestamp"] = json!(1_795_000_000);
    hooks.push(old);
    assert_eq!(server.notify(json!(hooks)).await.status, 200);
}

async fn recorded_calls(engine: Engine) {
    let server = Server::start(engine).await;
    server.set_clock(1_795_743_312_857);
    let lines = fixtures::lines("v3/list.jsonl");
    prepare(&server, &lines).await;
    let (mut first_coverage, mut cursor) = (Value::Null, Value::Null);
    let (mut walked, mut recorded_walk) = (Vec::new(), Vec::new());
    let mut differ = Vec::new();
    for line in &lines {
        let note = line["note"].as_str().unwrap();
        let mut request = line["request"].clone();
        if request
            .get("completed_coverage")
            .is_some_and(|given| *given != 1)
        {
            request["completed_coverage"] = first_coverage.clone();
        }
        if request.get("cursor").is_some_and(|given| *given != "!!") {
            request["cursor"] = cursor.clone();
        }
        if note == "deleted conversation back with a new message" {
            let recorded: Value = serde_json::from_str(line["answer"].as_str().unwrap()).unwrap();
            let last = &recorded["conversations"][1]["last_message"];
            let hook = recorded_message(last, "la", 1);
            assert_eq!(server.notify(json!([hook])).await.status, 200);
        }
        let body = match request.as_str() {
            Some(text) => text.to_owned(),
            None => request.to_string(),
        };
        let answer = server.post(line["path"].as_str().unwrap(), body).await;
        let recorded = line["answer"].as_str().unwrap();
        if note.starts_with("limit 1") {
            // The pages of a walk are in another order.
            for (text, into) in [(&*answer.text, &mut walked), (recorded, &mut recorded_walk)] {
                let page = normal(text);
                for list in ["conversations", "deletes"] {
                    into.extend(page[list].as_array().unwrap().iter().map(Value::to_string));
                }
            }
            cursor = answer.json()["next_cursor"].clone();
            continue;
        }
        if note == "first page, everything" {
            let page = answer.json();
            first_coverage = page["coverage"].clone();
            assert_eq!(
                ids(&page["conversations"]),
                ["lb", "lc", "lg1"],
                "newest first"
            );
            // The order of the fields counts, too.
            let fields = |text: &str| -> Vec<String> {
                let names = text.split('"').skip(1).step_by(2);
                let names = names.filter(|name| text.contains(&format!("\"{name}\":")));
                let mut seen = Vec::new();
                for name in names {
                    if !seen.contains(&name.to_owned()) {
                        seen.push(name.to_owned());
                    }
                }
                seen
            };
            assert_eq!(fields(&answer.text), fields(recorded));
        }
        let is_same = line["status"] == answer.status && normal(&answer.text) == normal(recorded);
        if !is_same {
            println!(
                "{note}\n actual   {} {}\n recorded {} {recorded}",
                answer.status, answer.text, line["status"]
            );
            differ.push(note);
        }
        let page: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        match note {
            "after delete, with completed_coverage of the first walk" => {
                assert_eq!(ids(&page["conversations"]), ["lb", "lg1"]);
                assert_eq!(ids(&page["deletes"]), ["lc"]);
            }
            "after leaving lg1: deletes" => {
                assert_eq!(ids(&page["conversations"]), ["lb"]);
                assert_eq!(ids(&page["deletes"]), ["lc", "lg1"]);
            }
            "completed_coverage ancient: reset_required?" => {
                assert_eq!(ids(&page["conversations"]), ["lb"]);
                assert_eq!(ids(&page["deletes"]), ["lg2", "lc", "lg1"]);
            }
            "after activate: last_message null" => {
                assert_eq!(ids(&page["conversations"]), ["lg2", "lb"]);
                assert_eq!(page["conversations"][0]["last_message"], Value::Null);
            }
            "deleted conversation back with a new message" => {
                assert_eq!(ids(&page["conversations"]), ["lg2", "lc", "lb"]);
                let back = &page["conversations"][1];
                assert_eq!(
                    (&back["unread"], &back["deleted_to_seq"], &back["read_seq"]),
                    (&json!(1), &json!(1), &json!(1))
                );
            }
            "unknown user" => assert_eq!(page["coverage"], 0),
            "messagesyncbatch" => {
                let counts = page["items"].as_array().unwrap().iter();
                let counts: Vec<usize> = counts
                    .map(|item| item["messages"].as_array().unwrap().len())
                    .collect();
                assert_eq!(counts, [2, 0, 0]);
            }
            "activated: first, last_message null, active_at set" => {
                let expected = json!({"channel_id": "u00", "channel_type": 1, "active_at": 1_795_743_312_857_000_000_i64, "read_seq": 3, "deleted_to_seq": 3, "unread": 0, "last_message": null});
                assert_eq!(page["conversations"][0], expected);
                assert_eq!(ids(&page["conversations"]), ["u00", "g1"]);
                assert_eq!(page["conversations"][1]["unread"], 2);
                assert_eq!(page["done"], false);
            }
            "limit 201" | "limit -1" => {
                assert_eq!(page["msg"], "limit must be between 0 and 200");
            }
            _ => {}
        }
    }
    for walk in [&mut walked, &mut recorded_walk] {
        walk.sort();
        walk.dedup();
    }
    assert_eq!(walked, recorded_walk);
    let mut expected: Vec<&str> = DIFFERENT.iter().map(|(note, _)| *note).collect();
    for list in [&mut expected, &mut differ] {
        list.sort_unstable();
    }
    assert_eq!(differ, expected);
    assert_eq!(lines.len(), 36);
}

/// The client that v3's list fails: it learns that a conversation was deleted on another device.
async fn deletions_are_told(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    for (from, to, kind) in [("bob", "ann", 1), ("cid", "ann", 1), ("bob", "team", 2)] {
        server.send(from, to, kind, "one").await;
    }
    let mut walker = Walker::new("ann", 50);
    walker.walk(&server).await;
    walker.must_hold(&server.full("ann").await);
    server.delete("ann", "bob", 1).await;
    walker.walk(&server).await;
    walker.must_hold(&server.full("ann").await);
    let leave = json!({"channel_id": "team", "channel_type": 2, "subscribers": ["ann"]});
    server.call("/channel/subscriber_remove", leave).await;
    walker.walk(&server).await;
    walker.must_hold(&server.full("ann").await);
    // Nothing changed: nothing is sent again.
    let request = json!({"uid": "ann", "completed_coverage": walker.coverage});
    let page = server.call("/conversation/list", request).await;
    assert_eq!(
        page,
        json!({"conversations": [], "deletes": [], "unresolved": [], "done": true, "coverage": walker.coverage, "tombstones_retained_since": 0, "reset_required": false})
    );
    // A deleted conversation that is opened again is empty, until a message comes.
    let open = json!({"uid": "ann", "channel_id": "bob", "channel_type": 1});
    server.call("/conversations/activate", open.clone()).await;
    walker.walk(&server).await;
    assert_eq!(walker.opened(), ["bob"]);
    walker.must_hold(&server.full("ann").await);
    let retry = json!({"uid": "ann", "channels": [open, {"channel_id": "team", "channel_type": 2}, {"channel_id": "bob", "channel_type": 1}]});
    let found = server.call("/conversation/retry", retry).await;
    assert_eq!(ids(&found["conversations"]), ["bob"]);
    assert_eq!(ids(&found["deletes"]), ["team"]);
    server.delete("ann", "bob", 1).await;
    walker.walk(&server).await;
    assert_eq!(walker.opened(), Vec::<&str>::new());
    server.call("/conversations/activate", open).await;
    server.send("bob", "ann", 1, "two").await;
    walker.walk(&server).await;
    assert_eq!(walker.opened(), Vec::<&str>::new());
    walker.must_hold(&server.full("ann").await);
}

/// The next walk completes one that changes interrupted.
async fn walks_amid_changes(engine: Engine) {
    let server = Server::start(engine).await;
    let groups: Vec<String> = (0..8).map(|number| format!("g{number}")).collect();
    for group in &groups {
        server.group(group, &["ann", "bob"]).await;
        server
            .send("bob", group, 2, &format!("first in {group}"))
            .await;
    }
    let mut random = 12345_u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut old = Walker::new("ann", 3);
    let mut incremental = Incremental::new("ann");
    let mut clock = 1_795_393_000_000;
    for round in 0..12 {
        let mut new = Walker::new("ann", 1 + next(3) as u32);
        let (mut of_old, mut of_new) = (Walk::default(), Walk::default());
        while !of_old.is_done || !of_new.is_done {
            if !of_old.is_done {
                old.step(&server, &mut of_old).await;
            }
            if !of_new.is_done {
                new.step(&server, &mut of_new).await;
            }
            let group = &groups[next(8) as usize];
            clock += 700;
            server.set_clock(clock);
            let target = json!({"uid": "ann", "channel_id": group, "channel_type": 2});
            let member = json!({"channel_id": group, "channel_type": 2, "subscribers": ["ann"]});
            match next(12) {
                0..3 => {
                    let text = format!("{round} at {clock}");
                    server.send("bob", group, 2, &text).await;
                }
                3 => server.set_unread("ann", group, 2, next(4) as i64).await,
                4 => server.delete("ann", group, 2).await,
                5 => drop(server.call("/conversations/activate", target).await),
                6 => drop(server.call("/channel/subscriber_remove", member).await),
                7 => drop(server.call("/channel/subscriber_add", member).await),
                _ => {}
            }
        }
        for walker in [&mut old, &mut new] {
            walker.walk(&server).await;
        }
        incremental.sync(&server).await;
        let full = server.full("ann").await;
        incremental.must_hold(&full);
        old.must_hold(&full);
        new.must_hold(&full);
        assert_eq!(old.opened(), new.opened());
    }
}

/// A coverage that this server did not give, such as one of v3, which counts nanoseconds.
async fn reset(engine: Engine) {
    let server = Server::start(engine).await;
    for from in ["bob", "cid", "dan"] {
        server.send(from, "ann", 1, "one").await;
    }
    let mut walker = Walker::new("ann", 2);
    walker.coverage = 1_795_741_096_482_160_808;
    walker.walk(&server).await;
    walker.must_hold(&server.full("ann").await);
    assert!(walker.coverage < 1 << 53);
    let request =
        json!({"uid": "ann", "limit": 2, "completed_coverage": 1_795_741_096_482_160_808_i64});
    let page = server.call("/conversation/list", request.clone()).await;
    assert_eq!(page["reset_required"], true);
    let mut next = request;
    next["cursor"] = page["next_cursor"].clone();
    let page = server.call("/conversation/list", next).await;
    assert_eq!(
        (&page["reset_required"], &page["done"]),
        (&json!(false), &json!(true)),
        "the client keeps the first page"
    );
    // A cursor of one user is a position in the list of another one.
    server.send("eve", "bob", 1, "one").await;
    let mut foreign = json!({"uid": "bob", "limit": 1});
    foreign["cursor"] = page["next_cursor"].clone();
    let answer = server.post("/conversation/list", foreign.to_string()).await;
    assert_eq!(answer.status, 200);
}

async fn batched_history(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    for number in 1..=5 {
        server.send("bob", "team", 2, &format!("m{number}")).await;
        server.send("bob", "ann", 1, &format!("p{number}")).await;
    }
    let page = |start: u32, end: u32, limit: i64, mode: u8| json!({"channel_id": "team", "channel_type": 2, "start_message_seq": start, "end_message_seq": end, "limit": limit, "pull_mode": mode});
    let items = [
        page(0, 0, 2, 0),
        page(2, 4, 10, 1),
        page(4, 1, 2, 0),
        page(0, 3, 10, 0),
        json!({"channel_id": "bob", "channel_type": 1}),
        json!({"channel_id": "nowhere", "channel_type": 2, "limit": 1}),
    ];
    let answer = server
        .call(
            "/channel/messagesyncbatch",
            json!({"login_uid": "ann", "items": items}),
        )
        .await;
    for (item, asked) in answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .zip(&items)
        .take(4)
    {
        let mut single = asked.clone();
        single["login_uid"] = json!("ann");
        let mut expected = server.call("/channel/messagesync", single).await;
        expected["channel_id"] = json!("team");
        expected["channel_type"] = json!(2);
        assert_eq!(*item, expected, "{asked}");
    }
    let person = &answer["items"][4];
    assert_eq!(person["messages"].as_array().unwrap().len(), 5);
    assert_eq!(
        person["messages"][0]["channel_id"], "bob",
        "the peer, as v3"
    );
    assert_eq!(
        answer["items"][5],
        json!({"channel_id": "nowhere", "channel_type": 2, "start_message_seq": 0, "end_message_seq": 0, "more": 0, "messages": []})
    );
}

/// The messages of one answer are bounded; what is missing is named and can be requested again.
async fn answers_are_bounded(engine: Engine) {
    let server = Server::start_with(engine, |settings| {
        settings.limits.answer_bytes = 8000;
        settings.limits.payload_bytes = 4000;
    })
    .await;
    for peer in ["bob", "cid", "dan", "eve"] {
        server.send(peer, "ann", 1, &"x".repeat(200)).await;
        let mut long = crate::support::server::message(peer, "ann", 1, "long");
        long["payload"] = json!(payload(&"x".repeat(2500)));
        server.call("/message/send", long).await;
    }
    let page = server
        .call("/conversation/list", json!({"uid": "ann"}))
        .await;
    let (shown, lacking) = (ids(&page["conversations"]), ids(&page["unresolved"]));
    assert_eq!(
        (shown.len(), lacking.len()),
        (2, 2),
        "{shown:?} {lacking:?}"
    );
    let mut walker = Walker::new("ann", 50);
    walker.walk(&server).await;
    assert_eq!(
        walker.opened(),
        Vec::<&str>::new(),
        "it has every last message"
    );
    let item = |peer: &str| json!({"channel_id": peer, "channel_type": 1, "limit": 1});
    let items = ["bob", "cid", "dan", "eve"].map(item);
    let answer = server
        .call(
            "/channel/messagesyncbatch",
            json!({"login_uid": "ann", "items": items}),
        )
        .await;
    let full: Vec<bool> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let is_full = item["error"] == "the answer is full: ask for this channel again";
            assert_eq!(item["messages"].as_array().unwrap().is_empty(), is_full);
            is_full
        })
        .collect();
    assert!(full.contains(&true) && !full[0], "{full:?}");
    let named =
        json!({"login_uid": "ann", "channel_id": "bob", "channel_type": 1, "message_seqs": [2, 1]});
    let all = server.call("/messages", named).await;
    assert_eq!(
        (all["messages"].as_array().unwrap().len(), &all["more"]),
        (2, &json!(0))
    );
}
