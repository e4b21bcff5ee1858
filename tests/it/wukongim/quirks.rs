//! What real servers send and one would not expect: receivers without an end, a system without a
//! name, messages to oneself, times in milliseconds, base64 with line breaks.

use recents::config::WukongimVersion;
use serde_json::{Value, json};

use crate::support::server::{payload, webhook_message};
use crate::support::webhooks::{grpc_channel, import_webhooks, send_over_grpc, seqs};
use crate::support::{Engine, Server, fixtures};

on_every_database!(
    base64_with_line_breaks_is_taken,
    recorded_receivers_without_an_end,
    times_in_smaller_units_are_converted,
    messages_of_the_system_have_no_sender,
    a_message_to_oneself_is_one_conversation,
    online_states_are_accepted,
);

async fn base64_with_line_breaks_is_taken(engine: Engine) {
    let server = Server::start(engine).await;
    let whole = payload("a text that a mailer would break into several lines");
    let broken = |between: &str| {
        let lines: Vec<&str> = (0..whole.len())
            .step_by(20)
            .map(|at| &whole[at..whole.len().min(at + 20)])
            .collect();
        lines.join(between) + between
    };
    let mut message = webhook_message("bob", "ann", 1, 1, 11);
    message["payload"] = json!(broken("\r\n"));
    server.notify(json!([message])).await;
    message = webhook_message("bob", "ann", 1, 2, 12);
    message["payload"] = json!(broken("\n"));
    message["to_uids"] = json!(["ann"]);
    server.call("/webhook?event=msg.offline", message).await;
    let body =
        json!({"from_uid": "bob", "channel_id": "ann", "channel_type": 1, "payload": broken("\r")});
    server.call("/message/send", body).await;
    let body = json!({"from_uid": "bob", "subscribers": ["ann"], "payload": broken("\n\n")});
    assert_eq!(
        server.call("/message/sendbatch", body).await["fail_uids"],
        json!([])
    );
    let recents = server.only("ann").await["recents"].clone();
    assert_eq!(recents.as_array().unwrap().len(), 4);
    for message in recents.as_array().unwrap() {
        assert_eq!(message["payload"], json!(whole), "{message}");
    }
    // Nothing else is skipped.
    for odd in [" ", "\t", "\u{b}", "-", "\0"] {
        let mut message = webhook_message("bob", "ann", 1, 9, 19);
        message["payload"] = json!(broken(odd));
        assert_eq!(server.notify(json!([message])).await.status, 200);
        let body = json!({"from_uid": "bob", "channel_id": "ann", "channel_type": 1, "payload": broken(odd)});
        let answer = server.post("/message/send", body.to_string()).await;
        assert_eq!(answer.status, 400, "{odd:?}");
        assert_eq!(
            answer.msg(),
            "payload must be standard base64 with padding",
            "{odd:?}"
        );
    }
    assert_eq!(seqs(&server.only("ann").await), [4, 3, 2, 1]);
}

async fn recorded_receivers_without_an_end(engine: Engine) {
    // An unoptimised server on a busy machine needs some time for 25,000 members.
    let server = Server::start_with(engine, |settings| {
        settings.limits.request_timeout_seconds = 300;
    })
    .await;
    for line in fixtures::lines("v2/compressed.jsonl") {
        let path = format!("/webhook{}", line["path"].as_str().unwrap());
        let body = line["body"].as_str().unwrap().to_owned();
        let answer = server.post(&path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // The first two lists are empty, but the messages are stored; their sender is a member.
    let mut groups: Vec<Value> = server.full("z000000").await;
    groups.sort_by_key(|item| item["channel_id"].to_string());
    let names: Vec<&Value> = groups.iter().map(|item| &item["channel_id"]).collect();
    assert_eq!(names, ["gz1000", "gz150", "gz30000"]);
    // 254,245 bytes of the third list could be unpacked: 25,424 whole uids.
    let members = server
        .call(
            "/datasource",
            json!({"cmd": "getSubscribers", "data": {"channel_id": "gz30000", "channel_type": 2}}),
        )
        .await;
    assert_eq!(members.as_array().unwrap().len(), 25_424 + 1);
    assert_unread!(server, "z014550", 1);
    assert_unread!(server, "z009805", 1);
}

async fn times_in_smaller_units_are_converted(engine: Engine) {
    let server = Server::start(engine).await;
    let message = |seq: i64, timestamp: i64| {
        let mut message = webhook_message("bob", "ann", 1, seq, 10 + seq);
        message["timestamp"] = json!(timestamp);
        message
    };
    server
        .notify(json!([
            message(1, 1_795_393_001),
            message(2, 1_795_393_002_345),
            message(3, 1_795_393_003_345_678)
        ]))
        .await;
    let last = message(4, 1_795_393_004_345_678_901);
    server.call("/webhook?event=msg.offline", last).await;
    let body = json!([message(5, 1_795_393_005_999)]).to_string();
    import_webhooks(&server, &[("msg.notify", body)]).await;
    let item = server.only("ann").await;
    assert_eq!(item["timestamp"], 1_795_393_005);
    let times: Vec<i64> = item["recents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["timestamp"].as_i64().unwrap())
        .collect();
    assert_eq!(
        times,
        (1_795_393_001..=1_795_393_005).rev().collect::<Vec<_>>()
    );
}

async fn messages_of_the_system_have_no_sender(engine: Engine) {
    for version in [
        WukongimVersion::V1,
        WukongimVersion::V2,
        WukongimVersion::V3,
    ] {
        let server =
            Server::start_with(engine, |settings| settings.ingest.wukongim = version).await;
        server.group("g", &["ann"]).await;
        server
            .notify(json!([
                webhook_message("", "g", 2, 1, 11),
                webhook_message("____system", "g", 2, 2, 12)
            ]))
            .await;
        let body = json!({"channel_id": "g", "channel_type": 2, "payload": payload("x"), "header": {"red_dot": 1}});
        server.call("/message/send", body.clone()).await;
        let mut named = body;
        named["from_uid"] = json!("____system");
        server.call("/message/send", named).await;

        let item = server.only("ann").await;
        assert_eq!(item["unread"], 4, "{version:?}");
        let channels = json!([{"channel_id": "g", "channel_type": 2}]);
        let by_channels = json!({"uid": "ann", "channels": channels});
        let history =
            json!({"login_uid": "ann", "channel_id": "g", "channel_type": 2, "limit": 10});
        let by_channel = server
            .call("/conversation/syncByChannels", by_channels.clone())
            .await;
        let messages = server.call("/conversation/syncMessages", by_channels).await;
        let history = server.call("/channel/messagesync", history).await;
        for (route, messages) in [
            ("sync", &item["recents"]),
            ("syncByChannels", &by_channel[0]["recents"]),
            ("syncMessages", &messages[0]["messages"]),
            ("messagesync", &history["messages"]),
        ] {
            let messages = messages.as_array().unwrap();
            assert_eq!(messages.len(), 4, "{version:?} {route}");
            for message in messages {
                assert_eq!(message["from_uid"], "", "{version:?} {route}");
            }
        }
        let conversations = server
            .request(server.http("GET", "/conversations?uid=ann"))
            .await
            .json();
        assert_eq!(
            conversations[0]["last_message"]["from_uid"], "",
            "{version:?}"
        );
        // GraphQL names the system user, which a client can pass to other fields.
        let query = "{ conversations(uid: \"ann\") { conversations { lastMessage { fromUid } } } }";
        let data = server.graphql(query, json!({})).await;
        assert_eq!(
            data["conversations"]["conversations"][0]["lastMessage"]["fromUid"],
            "____system"
        );
    }
    // v2's msg.notify may name the system as the recipient of its own message, to whomever it was:
    // several such messages have the same seq.
    let server = Server::start(engine).await;
    for (uid, id) in [("ann", 11), ("bob", 12)] {
        let mut offline = webhook_message("____system", uid, 1, 1, id);
        offline["to_uids"] = json!([uid]);
        server.call("/webhook?event=msg.offline", offline).await;
        server
            .notify(json!([webhook_message("", "____system", 1, 1, id)]))
            .await;
        let history =
            json!({"login_uid": uid, "channel_id": "____system", "channel_type": 1, "limit": 10});
        let history = server.call("/channel/messagesync", history).await;
        let message = &history["messages"][0];
        assert_eq!(
            (
                &message["message_id"],
                &message["from_uid"],
                &message["channel_id"]
            ),
            (&json!(id), &json!(""), &json!(uid)),
            "{history}"
        );
    }
}

async fn a_message_to_oneself_is_one_conversation(engine: Engine) {
    let recorded: Vec<(String, String)> = fixtures::lines("v2/oneself.jsonl")
        .iter()
        .map(|line| {
            let path = line["path"].as_str().unwrap();
            let event = path.strip_prefix("?event=").unwrap().to_owned();
            (event, line["body"].as_str().unwrap().to_owned())
        })
        .collect();
    for way in ["http", "grpc", "import"] {
        for is_reversed in [false, true] {
            let server = Server::start(engine).await;
            let mut bodies: Vec<(&str, String)> = recorded
                .iter()
                .map(|(event, body)| (event.as_str(), body.clone()))
                .collect();
            if is_reversed {
                bodies.reverse();
            }
            match way {
                "http" => {
                    for (event, body) in bodies {
                        let path = format!("/webhook?event={event}");
                        assert_eq!(server.post(&path, body).await.status, 200);
                    }
                }
                "grpc" => {
                    let channel = grpc_channel(&server).await;
                    for (event, body) in bodies {
                        send_over_grpc(&channel, event, body).await;
                    }
                }
                _ => import_webhooks(&server, &bodies).await,
            }
            let item = server.only("w02").await;
            assert_eq!(
                (&item["channel_id"], &item["channel_type"], &item["unread"]),
                (&json!("w02"), &json!(1), &json!(0)),
                "{way}"
            );
            assert_eq!(
                (seqs(&item), &item["recents"][0]["channel_id"]),
                (vec![1], &json!("w02")),
                "{way}"
            );
            for nobody in ["w02@w02", "____system"] {
                assert_eq!(server.full(nobody).await, Vec::<Value>::new(), "{way}");
            }
        }
    }
}

async fn online_states_are_accepted(engine: Engine) {
    let server = Server::start(engine).await;
    for body in [
        r#"["ann-0-1-7-1-2","with-hyphens-1-0-8-0-0"]"#,
        r#"["", "ann", "ann-1", "1-1-1-1-1", "ann-x-1-7-1-1", 7, null, {}]"#,
        r#"["\ud800-0-1-7-1-2"]"#,
        "[]",
        "null",
        "{}",
        "what",
        "",
    ] {
        let answer = server.post("/webhook?event=user.onlinestatus", body).await;
        assert_eq!(answer.text, r#"{"status":200}"#, "{body}");
    }
    assert_eq!(server.full("ann").await, Vec::<Value>::new());
}
