//! Messages of streams: v1 sends a stream's number only with the second of two webhooks, v2 answers
//! with the text of a stream so far.

use std::sync::Arc;

use recents::import::{ImportOptions, import_server};
use recents::model::Uid;
use recents::upstream::WukongimClient;
use serde_json::{Value, json};

use crate::support::server::webhook_message;
use crate::support::{Engine, Server, fixtures};

on_every_database!(
    recorded_stream_of_v1,
    a_repeat_completes_a_stream_in_any_order,
    a_completed_stream_reaches_other_servers_and_devices,
    every_route_serves_the_state_of_a_stream,
    an_import_keeps_the_state_of_a_stream,
);

const STREAM_NO: &str = "01b5d54c2b4a4c82a86c8921904f2f04";

/// The messages of v1's recorded stream, with the events that brought them.
fn recorded() -> Vec<(String, Value)> {
    fixtures::lines("v1/streams.jsonl")
        .iter()
        .flat_map(|line| {
            let path = line["path"].as_str().unwrap().to_owned();
            let body: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
            let messages = match body {
                Value::Array(messages) => messages,
                message => vec![message],
            };
            messages
                .into_iter()
                .map(move |message| (path.clone(), message))
        })
        .collect()
}

async fn conversation(server: &Server, uid: &str, channel_id: &str) -> Value {
    let all = server.full(uid).await;
    let found = all.iter().find(|item| item["channel_id"] == channel_id);
    found
        .unwrap_or_else(|| panic!("{channel_id} is not in {all:?}"))
        .clone()
}

async fn recorded_stream_of_v1(engine: Engine) {
    let server = Server::start(engine).await;
    for line in fixtures::lines("v1/streams.jsonl") {
        let path = format!("/webhook{}", line["path"].as_str().unwrap());
        let body = line["body"].as_str().unwrap().to_owned();
        assert_eq!(server.post(&path, body).await.status, 200, "{line}");
    }
    let item = conversation(&server, "u00", "u11").await;
    let message = &item["recents"][0];
    assert_eq!(
        (&message["stream_no"], &message["setting"], &item["unread"]),
        (&json!(STREAM_NO), &json!(4), &json!(1)),
        "{item:#}"
    );
    // Those of other messages have no stream.
    let item = conversation(&server, "u00", "u08").await;
    assert!(item["recents"][0].get("stream_no").is_none(), "{item:#}");
}

async fn a_repeat_completes_a_stream_in_any_order(engine: Engine) {
    let of_stream: Vec<Value> = recorded()
        .into_iter()
        .filter(|(_, message)| message["message_id"] == 2_126_119_397_444_550_656_i64)
        .map(|(_, message)| message)
        .collect();
    let [offline, notify] = of_stream.try_into().unwrap();
    let state = |end: u8, data: &str, version: u64| {
        let mut message = notify.clone();
        message["stream_data"] = json!(data);
        message["end"] = json!(end);
        message["event_meta"] = json!({"has_events": true, "event_version": version});
        message
    };
    let all = [
        offline,
        notify.clone(),
        state(0, "YQ==", 1),
        state(1, "YWI=", 2),
    ];
    let mut expected = None;
    for order in [[0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0], [2, 0, 3, 1]] {
        for in_one_body in [false, true] {
            let server = Server::start(engine).await;
            let messages: Vec<&Value> = order.iter().map(|number| &all[*number]).collect();
            if in_one_body {
                assert_eq!(server.notify(json!(messages)).await.status, 200);
            } else {
                for message in messages {
                    assert_eq!(server.notify(json!([message])).await.status, 200);
                    assert_unread!(server, "u00", 1);
                }
            }
            let mut item = server.only("u00").await;
            item["version"] = json!(0);
            let message = &item["recents"][0];
            assert_eq!(message["stream_no"], STREAM_NO, "{order:?}");
            assert_eq!(
                (&message["stream_data"], &message["end"]),
                (&json!("YWI="), &json!(1)),
                "{order:?}"
            );
            let expected = expected.get_or_insert_with(|| item.clone());
            assert_eq!(item, *expected, "{order:?}, in one body: {in_one_body}");
        }
    }
}

async fn a_completed_stream_reaches_other_servers_and_devices(engine: Engine) {
    let one = Server::start(engine).await;
    let other = Server::start_on(Arc::clone(&one.database), |_| {}).await;
    let mut message = webhook_message("bob", "ann", 1, 1, 11);
    one.notify(json!([message])).await;
    // Both servers keep the message in memory.
    for server in [&one, &other] {
        let item = server.only("ann").await;
        assert!(item["recents"][0].get("stream_no").is_none(), "{item:#}");
    }
    let version = one.only("ann").await["version"].clone();
    message["stream_no"] = json!("s1");
    one.notify(json!([message])).await;
    for server in [&one, &other] {
        let item = server.only("ann").await;
        assert_eq!(item["recents"][0]["stream_no"], "s1", "{item:#}");
        // A device that has the message learns of the change.
        let changed = server
            .sync(json!({"uid": "ann", "version": version, "msg_count": 20}))
            .await;
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0]["recents"][0]["stream_no"], "s1");
        assert_eq!(changed[0]["unread"], 1);
    }
    // The same again, or less, changes nothing.
    let version = one.only("ann").await["version"].clone();
    one.notify(json!([message])).await;
    message.as_object_mut().unwrap().remove("stream_no");
    one.notify(json!([message])).await;
    // What the first webhook said of the message stands, whatever a repeat says.
    message["stream_no"] = json!("s2");
    message["from_uid"] = json!("bob");
    message["payload"] = json!("eA==");
    one.notify(json!([message])).await;
    let later = json!({"uid": "ann", "version": version, "msg_count": 20});
    assert_eq!(other.sync(later).await, Vec::<Value>::new());
    assert_eq!(one.only("ann").await["recents"][0]["stream_no"], "s1");
}

/// A message of a stream as v2 answers it.
fn with_state(seq: i64) -> Value {
    let mut message = webhook_message("bob", "g", 2, seq, 10 + seq);
    message["setting"] = json!(2);
    message["end"] = json!(1);
    message["end_reason"] = json!(3);
    message["error"] = json!("cancelled \u{1f600}");
    message["stream_data"] = json!("aGVsbG8=");
    message["event_meta"] = json!({
        "has_events": true, "completed": true, "event_version": 12, "last_msg_event_seq": 12, "event_count": 1,
        "events": [{"event_key": "main", "status": "closed", "snapshot": {"kind": "text", "text": "hello"}}],
    });
    message["event_sync_hint"] = json!({"client_msg_no": "c11", "from_msg_event_seq": 0});
    message["streams"] = json!([{"stream_seq": 1, "client_msg_no": "c1", "blob": "aGVsbG8="}]);
    message
}

async fn every_route_serves_the_state_of_a_stream(engine: Engine) {
    // The second server has no cache.
    for bytes in [64 << 20, 0] {
        let server = Server::start_with(engine, |settings| {
            settings.cache.recent_messages_bytes = bytes;
        })
        .await;
        server.group("g", &["ann"]).await;
        let message = with_state(1);
        server.notify(json!([message])).await;
        let channels = json!([{"channel_id": "g", "channel_type": 2, "last_msg_seq": 0}]);
        let of = |list: &Value| list[0].clone();
        let by_channels = json!({"uid": "ann", "channels": channels});
        let history =
            json!({"login_uid": "ann", "channel_id": "g", "channel_type": 2, "limit": 10});
        let conversations = server.http("GET", "/conversations?uid=ann");
        for (route, served) in [
            ("sync", of(&server.only("ann").await["recents"])),
            (
                "syncByChannels",
                of(&of(&server
                    .call("/conversation/syncByChannels", by_channels.clone())
                    .await)["recents"]),
            ),
            (
                "syncMessages",
                of(&of(&server.call("/conversation/syncMessages", by_channels).await)["messages"]),
            ),
            (
                "messagesync",
                of(&server.call("/channel/messagesync", history).await["messages"]),
            ),
            (
                "conversations",
                of(&server.request(conversations).await.json())["last_message"].clone(),
            ),
        ] {
            assert_eq!(served, message, "{route}");
        }
        // The order of v2's fields, and v1's list at the end.
        let text = server
            .post(
                "/conversation/sync",
                json!({"uid": "ann", "msg_count": 1}).to_string(),
            )
            .await
            .text;
        let fields = [
            "client_msg_no",
            "end",
            "end_reason",
            "error",
            "stream_data",
            "event_meta",
            "event_sync_hint",
            "message_seq",
            "from_uid",
            "payload",
            "streams",
        ];
        let recents = text.split_once("recents").unwrap().1;
        let places = fields.map(|field| recents.find(&format!("\"{field}\":")).unwrap());
        assert!(places.is_sorted(), "{text}");

        let fields = "streamNo streamData streamEnded";
        let channel = "channel: {channelId: \"g\", channelType: 2}";
        let query = format!(
            "{{ conversations(uid: \"ann\") {{ conversations {{ recents {{ {fields} }} lastMessage {{ {fields} }} }} }}
                messages(uid: \"ann\", {channel}) {{ nodes {{ {fields} }} }} }}"
        );
        let data = server.graphql(&query, json!({})).await;
        let expected = json!({"streamNo": null, "streamData": "aGVsbG8=", "streamEnded": true});
        let item = &data["conversations"]["conversations"][0];
        assert_eq!(
            (
                &item["recents"][0],
                &item["lastMessage"],
                &data["messages"]["nodes"][0]
            ),
            (&expected, &expected, &expected)
        );
    }
}

async fn an_import_keeps_the_state_of_a_stream(engine: Engine) {
    let (there, here) = (
        Server::start(Engine::Sqlite).await,
        Server::start(engine).await,
    );
    there.group("g", &["ann"]).await;
    let mut plain = webhook_message("bob", "g", 2, 1, 11);
    plain["stream_no"] = json!("s1");
    let mut system = webhook_message("", "g", 2, 3, 13);
    system["timestamp"] = json!(1_795_393_003_000_i64);
    there.notify(json!([plain, with_state(2), system])).await;
    let client = Arc::new(WukongimClient::new(&there.url, "", 10_000).unwrap());
    let uids = [Uid::parse("uid", "ann").unwrap()];
    let summary = import_server(&here.app.core, &client, &uids, &ImportOptions::default())
        .await
        .unwrap();
    assert_eq!((summary.stored, summary.refused), (3, 0), "{summary}");
    let recents = here.only("ann").await["recents"].clone();
    assert_eq!(recents, there.only("ann").await["recents"]);
    assert_eq!(
        (
            &recents[2]["stream_no"],
            &recents[1]["stream_data"],
            &recents[0]["from_uid"]
        ),
        (&json!("s1"), &json!("aGVsbG8="), &json!(""))
    );
    assert_eq!(recents[0]["timestamp"], 1_795_393_003);
}
