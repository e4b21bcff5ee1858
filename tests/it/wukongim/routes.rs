//! The other routes that business servers call: single messages, and what a WuKongIM without any
//! state would answer.

use serde_json::{Value, json};

use crate::support::server::{message, payload, webhook_message};
use crate::support::tokens::{SECRET, token};
use crate::support::{Engine, Server};

on_every_database!(
    messages_by_name,
    system_messages_have_no_sender,
    persons_are_named_by_pairs,
    deleted_messages_are_not_found,
    long_answers_are_cut,
    without_wukongim
);

async fn get(server: &Server, path: &str) -> Value {
    let answer = server.request(server.http("GET", path)).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

fn seqs(answer: &Value) -> Vec<i64> {
    answer["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["message_seq"].as_i64().unwrap())
        .collect()
}

async fn messages_by_name(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    let mut ids = Vec::new();
    for number in 1..=5 {
        let sent = server.send("bob", "team", 2, &format!("m{number}")).await;
        ids.push(sent["message_id"].as_i64().unwrap());
    }
    // Another sender may use the same number: the first message is meant.
    server.send("ann", "team", 2, "m3").await;
    let history = json!({"login_uid": "ann", "channel_id": "team", "channel_type": 2, "limit": 10});
    let history = server.call("/channel/messagesync", history).await;
    let ask = async |names: Value| {
        let mut body = json!({"login_uid": "ann", "channel_id": "team", "channel_type": 2});
        for (name, value) in names.as_object().unwrap() {
            body[name] = value.clone();
        }
        server.call("/messages", body).await
    };
    let answer = ask(json!({"message_seqs": [3, 1, 99, 0, 1]})).await;
    assert_eq!(
        answer,
        json!({"start_message_seq": 0, "end_message_seq": 0, "more": 0, "messages": [history["messages"][2], history["messages"][0]]})
    );
    let text = server
        .post("/messages", json!({"login_uid": "ann", "channel_id": "team", "channel_type": 2, "message_seqs": [99]}).to_string())
        .await
        .text;
    assert_eq!(
        text,
        r#"{"start_message_seq":0,"end_message_seq":0,"more":0,"messages":[]}"#
    );
    let mixed = json!({"client_msg_nos": ["m3", "none", "", "m5"], "message_ids": [ids[3], 1, ids[1]], "message_seqs": [2]});
    assert_eq!(seqs(&ask(mixed).await), [2, 4, 3, 5]);
    // A service that names nobody, or a stranger, sees the group, too.
    for login_uid in [json!(null), json!(""), json!("zoe")] {
        let body = json!({"login_uid": login_uid, "channel_id": "team", "channel_type": 2, "message_seqs": [1, 2]});
        assert_eq!(seqs(&server.call("/messages", body).await), [1, 2]);
    }
    let unknown = json!({"login_uid": "ann", "channel_id": "nowhere", "channel_type": 2, "message_seqs": [1]});
    assert_eq!(seqs(&server.call("/messages", unknown).await), [0_i64; 0]);
    for (query, last) in [("", 6), ("&login_uid=ann", 6), ("&login_uid=zoe", 6)] {
        let path = format!("channel_id=team&channel_type=2{query}");
        let found = get(&server, &format!("/channel/last_message?{path}")).await;
        assert_eq!(found, history["messages"][5], "{query}");
        let found = get(&server, &format!("/channel/max_message_seq?{path}")).await;
        assert_eq!(found, json!({"message_seq": last}), "{query}");
        let found = get(
            &server,
            &format!("/message/byclientmsgno?client_msg_no=m3&{path}"),
        )
        .await;
        assert_eq!(found, history["messages"][2], "{query}");
    }
    // As v2, the status is in the body.
    for path in [
        "/channel/last_message?channel_id=nowhere&channel_type=2",
        "/message/byclientmsgno?channel_id=team&channel_type=2&client_msg_no=none",
        "/message/byclientmsgno?channel_id=nowhere&channel_type=2&client_msg_no=m1",
    ] {
        let answer = server.request(server.http("GET", path)).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (200, r#"{"status":404}"#),
            "{path}"
        );
    }
    assert_eq!(
        get(
            &server,
            "/channel/max_message_seq?channel_id=nowhere&channel_type=2"
        )
        .await,
        json!({"message_seq": 0})
    );
}

async fn system_messages_have_no_sender(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("news", &["ann"]).await;
    let mut from_nobody = message("", "news", 2, "hello");
    server.call("/message/send", from_nobody.clone()).await;
    from_nobody["channel_id"] = json!("ann");
    from_nobody["channel_type"] = json!(1);
    server.call("/message/send", from_nobody).await;
    for (id, kind, listed) in [("news", 2, true), ("____system", 1, false)] {
        let channel = json!({"channel_id": id, "channel_type": kind});
        let mut senders = Vec::new();
        let mut named = channel.clone();
        named["login_uid"] = json!("ann");
        named["message_seqs"] = json!([1]);
        let found = server.call("/messages", named).await;
        senders.push(found["messages"][0]["from_uid"].clone());
        let batch = json!({"login_uid": "ann", "items": [channel]});
        let found = server.call("/channel/messagesyncbatch", batch).await;
        senders.push(found["items"][0]["messages"][0]["from_uid"].clone());
        for path in ["/channel/last_message", "/message/byclientmsgno"] {
            let query =
                format!("channel_id={id}&channel_type={kind}&login_uid=ann&client_msg_no=hello");
            senders.push(get(&server, &format!("{path}?{query}")).await["from_uid"].clone());
        }
        if listed {
            let page = server
                .call("/conversation/list", json!({"uid": "ann"}))
                .await;
            senders.push(page["conversations"][0]["last_message"]["from_uid"].clone());
            let retry = json!({"uid": "ann", "channels": [channel]});
            let found = server.call("/conversation/retry", retry).await;
            senders.push(found["conversations"][0]["last_message"]["from_uid"].clone());
        }
        assert!(
            senders.iter().all(|sender| sender == ""),
            "{id}: {senders:?}"
        );
    }
}

async fn persons_are_named_by_pairs(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("alice", "bob", 1, "one").await;
    server.send("bob", "alice", 1, "two").await;
    server.send("a@b", "c", 1, "three").await;
    // A message to oneself.
    server.send("me", "me", 1, "four").await;
    let pair = |one: &str, other: &str| {
        let rank = |uid: &str| (crc32fast::hash(uid.as_bytes()), uid.to_owned());
        if rank(one) >= rank(other) {
            format!("{one}@{other}")
        } else {
            format!("{other}@{one}")
        }
    };
    assert_eq!(pair("alice", "bob"), "bob@alice");
    for (one, other, number, seq) in [
        ("alice", "bob", "two", 2),
        ("a@b", "c", "three", 1),
        ("me", "me", "four", 1),
    ] {
        for query in [
            format!("channel_id={}", pair(one, other)),
            format!("channel_id={other}&login_uid={one}"),
            format!("channel_id={one}&login_uid={other}"),
        ] {
            let query = format!("{query}&channel_type=1&client_msg_no={number}");
            let mut found = Vec::new();
            for path in [
                "/message/byclientmsgno",
                "/channel/last_message",
                "/channel/max_message_seq",
            ] {
                found.push(get(&server, &format!("{path}?{query}")).await["message_seq"].clone());
            }
            assert_eq!(found, [seq, seq, seq], "{query}");
        }
    }
    for none in ["alice@bob", "bob@", "@", "bob@nobody"] {
        let path = format!("/channel/last_message?channel_id={none}&channel_type=1");
        assert_eq!(get(&server, &path).await, json!({"status": 404}), "{none}");
    }
    let names = json!({"login_uid": "alice", "channel_id": "bob", "channel_type": 1, "message_seqs": [1, 2]});
    let answer = server.call("/messages", names).await;
    assert_eq!(seqs(&answer), [1, 2]);
    assert_eq!(
        answer["messages"][1]["channel_id"], "alice",
        "the recipient"
    );
}

/// A user never gets a deleted message, and a former member none that was sent later.
async fn deleted_messages_are_not_found(engine: Engine) {
    let server = Server::start_with(engine, |settings| {
        settings.auth.jwt.secret = SECRET.into();
        settings.auth.manager_token = "hush".into();
    })
    .await;
    let call = async |path: &str, body: Value| {
        let request = server.http("POST", path).header("token", "hush");
        let answer = server.request(request.body(body.to_string())).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    };
    let members = json!({"channel_id": "team", "channel_type": 2, "subscribers": ["ann", "bob"]});
    call("/channel", members).await;
    for text in ["one", "two"] {
        call("/message/send", message("bob", "team", 2, text)).await;
    }
    let target = json!({"uid": "ann", "channel_id": "team", "channel_type": 2, "message_seq": 1});
    call("/conversations/delete", target).await;
    let remove = json!({"channel_id": "team", "channel_type": 2, "subscribers": ["ann"]});
    call("/channel/subscriber_remove", remove).await;
    call("/message/send", message("bob", "team", 2, "three")).await;
    let bearer = format!("Bearer {}", token("ann"));
    let as_ann = async |method: &str, path: &str, body: Value| {
        let request = server.http(method, path).header("authorization", &bearer);
        server.request(request.body(body.to_string())).await.json()
    };
    // The user of the token is meant where nobody is named.
    let names = json!({"channel_id": "team", "channel_type": 2, "message_seqs": [1, 2, 3], "client_msg_nos": ["one", "two", "three"]});
    assert_eq!(seqs(&as_ann("POST", "/messages", names.clone()).await), [2]);
    let query = "channel_id=team&channel_type=2";
    let path = format!("/channel/last_message?{query}");
    assert_eq!(as_ann("GET", &path, json!(null)).await["message_seq"], 2);
    let path = format!("/channel/max_message_seq?{query}");
    assert_eq!(as_ann("GET", &path, json!(null)).await["message_seq"], 2);
    for (number, seq) in [("one", None), ("two", Some(2)), ("three", None)] {
        let path = format!("/message/byclientmsgno?{query}&client_msg_no={number}");
        let found = as_ann("GET", &path, json!(null)).await;
        assert_eq!(found["message_seq"].as_i64(), seq, "{number}: {found}");
    }
    assert_eq!(seqs(&call("/messages", names).await), [1, 2, 3]);
    // A channel that was deleted has no messages, for nobody.
    call(
        "/channel/delete",
        json!({"channel_id": "team", "channel_type": 2}),
    )
    .await;
    let request = server
        .http("GET", &format!("/channel/max_message_seq?{query}"))
        .header("token", "hush");
    assert_eq!(
        server.request(request).await.json(),
        json!({"message_seq": 0})
    );
}

async fn long_answers_are_cut(engine: Engine) {
    let server = Server::start_with(engine, |settings| {
        settings.limits.answer_bytes = 8000;
        settings.limits.payload_bytes = 8000;
    })
    .await;
    server.group("team", &["ann"]).await;
    for number in 1..=4 {
        let mut long = message("bob", "team", 2, &format!("m{number}"));
        let length = if number == 4 { 7000 } else { 2500 };
        long["payload"] = json!(payload(&"x".repeat(length)));
        server.call("/message/send", long).await;
    }
    let ask = async |asked: &[i64]| {
        let body = json!({"channel_id": "team", "channel_type": 2, "message_seqs": asked});
        let answer = server.call("/messages", body).await;
        (seqs(&answer), answer["more"].as_i64().unwrap())
    };
    assert_eq!(ask(&[1, 2]).await, (vec![1, 2], 0));
    assert_eq!(ask(&[3, 2, 1]).await, (vec![3, 2], 1));
    assert_eq!(ask(&[4, 1]).await, (vec![4], 1), "always one");
}

/// Each answer is that of a WuKongIM which has nothing.
async fn without_wukongim(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    server.send("bob", "team", 2, "one").await;
    let before = server.full("ann").await;
    let named = json!({"channel_id": "team", "channel_type": 2, "uids": ["ann"]});
    for (path, body, expected) in [
        (
            "/message/sync",
            json!({"uid": "ann", "message_seq": 3, "limit": 50}),
            json!([]),
        ),
        (
            "/message/syncack",
            json!({"uid": "ann", "last_message_seq": 1}),
            json!({"status": 200}),
        ),
        ("/user/onlinestatus", json!(["ann", "bob"]), json!([])),
        ("/user/onlinestatus", json!([]), json!([])),
        (
            "/channel/blacklist_remove",
            named.clone(),
            json!({"status": 200}),
        ),
        (
            "/channel/blacklist_remove_all",
            named.clone(),
            json!({"status": 200}),
        ),
        (
            "/channel/whitelist_remove",
            named.clone(),
            json!({"status": 200}),
        ),
        (
            "/channel/whitelist_remove_all",
            named.clone(),
            json!({"status": 200}),
        ),
    ] {
        assert_eq!(server.call(path, body).await, expected, "{path}");
    }
    assert_eq!(get(&server, "/user/systemuids").await, json!([]));
    assert_eq!(
        get(&server, "/channel/whitelist?channel_id=team&channel_type=2").await,
        json!([])
    );
    // A success would promise what nobody does.
    for path in [
        "/channel/blacklist_add",
        "/channel/blacklist_set",
        "/channel/whitelist_add",
        "/channel/whitelist_set",
        "/route/batch",
        "/streammessage/start",
        "/streammessage/end",
        "/message/event",
        "/message/eventsync",
    ] {
        let answer = server.post(path, named.to_string()).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (404, r#"{"msg":"page not found","status":404}"#),
            "{path}"
        );
    }
    assert_eq!(server.full("ann").await, before);
}

/// A batch of a user counts each channel as a request.
#[tokio::test]
async fn batches_of_users_are_counted() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.jwt.secret = SECRET.into();
        settings.limits.user_requests_per_second = 5;
    })
    .await;
    let ask = async |channels: usize| {
        let items = vec![json!({"channel_id": "bob", "channel_type": 1}); channels];
        let body = json!({"login_uid": "ann", "items": items}).to_string();
        let request = server
            .http("POST", "/channel/messagesyncbatch")
            .header("authorization", format!("Bearer {}", token("ann")));
        server.request(request.body(body)).await.status
    };
    assert_eq!(ask(8).await, 200);
    assert_eq!(ask(8).await, 429);
}

/// A feeder's clients choose their numbers: the same one a thousand times is still one message.
#[tokio::test]
async fn a_number_that_many_messages_have() {
    let server = Server::start(Engine::Sqlite).await;
    let hooks: Vec<Value> = (1..=1000)
        .map(|seq| {
            let mut hook = webhook_message("bob", "team", 2, seq, seq);
            hook["client_msg_no"] = json!(if seq % 2 == 0 { "same" } else { "" });
            hook
        })
        .collect();
    assert_eq!(server.notify(json!(hooks)).await.status, 200);
    let path = "/message/byclientmsgno?channel_id=team&channel_type=2&client_msg_no=same";
    assert_eq!(get(&server, path).await["message_seq"], 2);
}
