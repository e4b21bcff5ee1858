//! A business server that calls recents instead of its WuKongIM, and sends no token: every call that
//! the library of TangSengDaoDao makes, with the bodies that it sends.

use serde_json::{Value, json};

use super::in_front_of;
use crate::support::server::{payload, webhook_message};
use crate::support::upstream::Upstream;
use crate::support::{Engine, Server};

on_every_database!(every_call_is_answered, sends_come_back_by_webhook);

/// Who answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// WuKongIM alone.
    There,
    /// WuKongIM first, and recents then does the same.
    Both,
    /// recents alone.
    Here,
}

use By::{Both, Here, There};

fn members(id: &str) -> Value {
    json!({"channel_id": id, "channel_type": 2, "subscribers": ["ann", "bob"]})
}

fn list(id: &str) -> Value {
    json!({"channel_id": id, "channel_type": 2, "uids": ["ann"]})
}

/// The calls: method, path, body (null for none).
fn calls() -> Vec<(By, &'static str, &'static str, Value)> {
    let target = json!({"uid": "ann", "channel_id": "bob", "channel_type": 1, "message_seq": 0});
    let send = json!({
        "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0}, "setting": 0, "from_uid": "bob",
        "channel_id": "ann", "channel_type": 1, "stream_no": "", "subscribers": null,
        "payload": payload("hello"),
    });
    let batch = json!({
        "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0}, "from_uid": "bob",
        "subscribers": ["ann", "cat"], "payload": payload("hello"),
    });
    let history = json!({
        "login_uid": "ann", "device_uuid": "d1", "channel_id": "bob", "channel_type": 1,
        "start_message_seq": 0, "end_message_seq": 0, "limit": 10, "pull_mode": 1,
    });
    let found = json!({
        "login_uid": "ann", "channel_id": "bob", "channel_type": 1, "message_seqs": [1],
    });
    let post = |by, path, body| (by, "POST", path, body);
    vec![
        // Users and their connections.
        post(
            There,
            "/user/token",
            json!({"uid": "ann", "token": "t", "device_flag": 0, "device_level": 1}),
        ),
        post(
            There,
            "/user/device_quit",
            json!({"uid": "ann", "device_flag": -1}),
        ),
        post(There, "/user/onlinestatus", json!(["ann", "bob"])),
        post(There, "/user/systemuids_add", json!({"uids": ["sys"]})),
        post(There, "/user/systemuids_remove", json!({"uids": ["sys"]})),
        (There, "GET", "/route?uid=ann", Value::Null),
        post(There, "/route/batch", json!(["ann", "bob"])),
        // Channels.
        post(Both, "/channel", members("g1")),
        post(
            Both,
            "/channel/info",
            json!({"channel_id": "g1", "channel_type": 2, "ban": 0}),
        ),
        // A user is banned by the flag of a person channel.
        post(
            There,
            "/channel/info",
            json!({"channel_id": "ann", "channel_type": 1, "ban": 1}),
        ),
        post(Both, "/channel/subscriber_add", members("g2")),
        post(
            Both,
            "/channel/subscriber_remove",
            json!({"channel_id": "g2", "channel_type": 2, "subscribers": ["bob"]}),
        ),
        post(
            Both,
            "/channel/delete",
            json!({"channel_id": "g1", "channel_type": 2}),
        ),
        post(There, "/channel/blacklist_add", list("g2")),
        post(There, "/channel/blacklist_set", list("g2")),
        post(There, "/channel/blacklist_remove", list("g2")),
        post(There, "/channel/whitelist_add", list("g2")),
        post(There, "/channel/whitelist_set", list("g2")),
        post(There, "/channel/whitelist_remove", list("g2")),
        // Messages.
        post(There, "/message/send", send),
        post(There, "/message/sendbatch", batch),
        post(
            There,
            "/message/sync",
            json!({"uid": "ann", "message_seq": 0, "limit": 100}),
        ),
        post(
            There,
            "/message/syncack",
            json!({"uid": "ann", "last_message_seq": 1}),
        ),
        post(
            There,
            "/message/revoke",
            json!({"channel_id": "bob", "channel_type": 1, "message_ids": [1]}),
        ),
        post(
            There,
            "/streammessage/start",
            json!({"header": {"red_dot": 1}, "from_uid": "bob", "channel_id": "ann", "channel_type": 1, "payload": payload("…")}),
        ),
        post(
            There,
            "/streammessage/end",
            json!({"stream_no": "s1", "channel_id": "ann", "channel_type": 1}),
        ),
        post(
            There,
            "/plugins/wk.plugin.search/usersearch",
            json!({"uid": "ann", "payload": {"content": "x"}, "limit": 20, "page": 1}),
        ),
        // Conversations and history.
        (Here, "GET", "/conversations?uid=ann", Value::Null),
        post(
            Here,
            "/conversation/sync",
            json!({"uid": "ann", "version": 0, "last_msg_seqs": "", "msg_count": 20, "larges": null}),
        ),
        post(
            Here,
            "/conversation/syncMessages",
            json!({"uid": "ann", "channels": [{"channel_id": "bob", "channel_type": 1, "last_msg_seq": 0}]}),
        ),
        post(Here, "/channel/messagesync", history),
        (
            Here,
            "GET",
            "/channel/max_message_seq?channel_id=bob&channel_type=1&login_uid=ann",
            Value::Null,
        ),
        post(Here, "/messages", found),
        post(Here, "/conversations/setUnread", {
            let mut body = target.clone();
            body["unread"] = json!(0);
            body
        }),
        post(Here, "/conversations/clearUnread", target.clone()),
        post(Here, "/conversations/delete", target),
    ]
}

async fn every_call_is_answered(engine: Engine) {
    let upstream = Upstream::start().await;
    let server = Server::start_with(engine, in_front_of(&upstream)).await;
    let webhook = server
        .http("POST", "/webhook?event=msg.notify")
        .header("token", "hush")
        .body(json!([webhook_message("bob", "ann", 1, 1, 7)]).to_string());
    assert_eq!(server.request(webhook).await.status, 200);
    for (by, method, path, body) in calls() {
        let name = path.split('?').next().unwrap();
        // An answer that nobody else gives.
        let reply = json!({"status": 200, "there": format!("{name} {body}")}).to_string();
        upstream.reply_json(name, 200, &reply);
        let mut request = server
            .http(method, path)
            .header("user-agent", "Go-http-client/1.1");
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        if !text.is_empty() {
            request = request
                .header("content-type", "application/json")
                .body(text.clone());
        }
        let answer = server.request(request).await;
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        assert_eq!(
            answer.content_type, "application/json; charset=utf-8",
            "{path}"
        );
        if by == Here {
            assert!(upstream.take_calls().is_empty(), "{path}");
            assert!(!answer.text.contains("there"), "{path}: {answer:?}");
            continue;
        }
        assert_eq!(answer.text, reply, "{path}");
        let call = upstream.take_call();
        assert_eq!((call.method.as_str(), call.target.as_str()), (method, path));
        assert_eq!(String::from_utf8(call.body).unwrap(), text, "{path}");
        assert!(!call.headers.contains_key("token"), "{path}");
        assert_eq!(call.headers["user-agent"], "Go-http-client/1.1", "{path}");
    }
    // recents did what concerns it.
    let datasource = server
        .http("POST", "/datasource")
        .header("token", "hush")
        .body(
            json!({"cmd": "getSubscribers", "data": {"channel_id": "g2", "channel_type": 2}})
                .to_string(),
        );
    assert_eq!(server.request(datasource).await.json(), json!(["ann"]));
}

async fn sends_come_back_by_webhook(engine: Engine) {
    let upstream = Upstream::start().await;
    let server = Server::start_with(engine, in_front_of(&upstream)).await;
    let sent = r#"{"data":{"client_msg_no":"c9","message_id":9,"message_seq":41},"status":200}"#;
    upstream.reply_json("/message/send", 200, sent);
    let body = crate::support::server::message("bob", "ann", 1, "c9");
    let answer = server.post("/message/send", body.to_string()).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, sent));
    assert_eq!(upstream.take_call().json(), body);
    assert_eq!(
        server.full("ann").await,
        Vec::<Value>::new(),
        "not stored here"
    );
    let webhook = server
        .http("POST", "/webhook?event=msg.notify")
        .header("token", "hush")
        .body(json!([webhook_message("bob", "ann", 1, 41, 9)]).to_string());
    assert_eq!(server.request(webhook).await.status, 200);
    let conversation = server.only("ann").await;
    assert_eq!(
        (&conversation["last_msg_seq"], &conversation["unread"]),
        (&json!(41), &json!(1))
    );
    // GraphQL would number the message itself.
    let query = r#"mutation { sendMessage(input: {channel: {channelId: "ann", channelType: 1}, payload: "eA=="}) { message { id } } }"#;
    let request = server
        .http("POST", "/graphql")
        .header("token", "hush")
        .header("content-type", "application/json")
        .body(json!({"query": query}).to_string());
    let error = server.request(request).await.json()["errors"][0].clone();
    assert_eq!(error["extensions"]["code"], "FORBIDDEN", "{error}");
    let text = error["message"].as_str().unwrap();
    assert!(
        text.contains("proxy.wukongim_url") && text.contains("/message/send"),
        "{text}"
    );
    assert!(upstream.take_calls().is_empty());
}
