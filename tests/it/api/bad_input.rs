//! Wrong input gets an error that names the field: never a 5xx, and nothing internal in the text.

use serde_json::{Value, json};

use crate::support::server::{message, payload};
use crate::support::{Engine, Server, fixtures};

on_every_database!(
    recorded_errors_v1,
    recorded_errors_v2,
    invalid_ids_are_refused,
    unread_out_of_range_is_refused,
    unknown_conversations,
    routes_name_the_wrong_field
);

/// Recorded steps with deliberately different responses, and the text of this server's message.
const KNOWN_DIFFERENCES: [(&str, &str); 9] = [
    // This server refuses anything after the JSON value.
    ("-trailing", "well-formed"),
    // Messages that name the field instead of the text of Go's decoder.
    ("-empty-body", "empty"),
    ("-no-json", "well-formed"),
    ("-array", "the body must be a JSON object"),
    ("-uid-number", "uid must be a string"),
    ("-form", "well-formed"),
    ("unread-negative", "unread must be between 0 and 2147483647"),
    ("send-type-0", "channel_type must be between 1 and 255"),
    (
        "send-bad-base64",
        "payload must be standard base64 with padding",
    ),
];

async fn recorded_errors(engine: Engine, version: &str) {
    let server = Server::start(engine).await;
    server.group("g1", &["ann"]).await;
    server.send("bob", "ann", 1, "one").await;
    let mut compared = 0;
    // The recording deletes the conversation in an earlier step.
    let mut listed = 1;
    for line in fixtures::lines(&format!("{version}/errors.jsonl")) {
        let (step, path) = (
            line["step"].as_str().unwrap(),
            line["path"].as_str().unwrap(),
        );
        let mut request = server.http(line["method"].as_str().unwrap(), path);
        if let Some(body) = line["request"].as_str() {
            request = request.body(body.to_owned());
        }
        let answer = server.request(request).await;
        compared += 1;
        if line["method"] == "OPTIONS" {
            assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{step}");
            continue;
        }
        assert_eq!(
            answer.content_type, "application/json; charset=utf-8",
            "{step}"
        );
        if step.ends_with("-get") {
            assert_eq!(
                (answer.status, answer.text.as_str()),
                (405, r#"{"msg":"method not allowed","status":405}"#),
                "{step}"
            );
            continue;
        }
        if let Some((_, text)) = KNOWN_DIFFERENCES
            .iter()
            .find(|(name, _)| step.ends_with(name) || step == *name)
        {
            assert_eq!(answer.status, 400, "{step}: {answer:?}");
            assert!(answer.msg().contains(text), "{step}: {answer:?}");
            continue;
        }
        let recorded = line["status"].as_u64().unwrap() as u16;
        if step.starts_with("messagesync") && version == "v1" {
            // v1 accepts any user and any channel; this server requires them, as v2 does.
            assert_eq!(answer.status, 400, "{step}: {answer:?}");
            assert!(
                ["channel_id不能为空！", "login_uid不能为空！"].contains(&answer.msg().as_str()),
                "{step}: {answer:?}"
            );
            continue;
        }
        if recorded == 404 {
            // The recorded response is plain text. Routes of the other version exist here, and
            // unknown paths have the envelope.
            let expected = if path == "/nowhere" { 404 } else { 400 };
            assert_eq!(
                (answer.status, answer.json()["status"].as_u64()),
                (expected, Some(u64::from(expected))),
                "{step}"
            );
            continue;
        }
        if recorded == 400 {
            let theirs = line["response"].as_str().unwrap();
            assert_eq!(answer.status, 400, "{step}: {answer:?}");
            if theirs.contains("json: cannot unmarshal") {
                // These messages have this server's own wording.
                let field = theirs
                    .split("field .")
                    .nth(1)
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap();
                assert!(answer.msg().starts_with(field), "{step}: {answer:?}");
            } else if step != "channel-type-1" || version == "v1" {
                assert_eq!(answer.text, theirs, "{step}");
            }
        } else if path == "/conversation/sync" {
            // v2 fails with 500 on an empty uid; this server answers as v1 does.
            assert_eq!(answer.status, 200, "{step}: {answer:?}");
            let expected = if line["request"].as_str().unwrap().contains("ann") {
                listed
            } else {
                0
            };
            assert_eq!(answer.json().as_array().unwrap().len(), expected, "{step}");
        } else if step == "channel-type-1" {
            // v2 accepts it and does nothing.
            assert_eq!(answer.msg(), "暂不支持个人频道！", "{step}");
        } else {
            assert_eq!(
                (u64::from(answer.status), answer.text.as_str()),
                (200, line["response"].as_str().unwrap()),
                "{step}"
            );
            if path == "/conversations/delete" {
                listed = 0;
            }
        }
    }
    assert!(compared > 105, "{compared}");
}

async fn recorded_errors_v1(engine: Engine) {
    recorded_errors(engine, "v1").await;
}

async fn recorded_errors_v2(engine: Engine) {
    recorded_errors(engine, "v2").await;
}

async fn invalid_ids_are_refused(engine: Engine) {
    let server = Server::start(engine).await;
    for bad in [
        "a\nb",
        "\u{0}",
        "\u{7f}",
        "\u{85}",
        &"x".repeat(256),
        &"é".repeat(128),
    ] {
        for (path, body, field) in [
            ("/conversation/sync", json!({"uid": bad}), "uid"),
            (
                "/conversations/setUnread",
                json!({"uid": bad, "channel_id": "x", "channel_type": 1}),
                "uid",
            ),
            (
                "/conversations/delete",
                json!({"uid": "ann", "channel_id": bad, "channel_type": 2}),
                "channel_id",
            ),
            ("/message/send", message(bad, "ann", 1, "x"), "from_uid"),
            ("/message/send", message("bob", bad, 1, "x"), "channel_id"),
            (
                "/message/send",
                message("bob", "ann", 1, bad),
                "client_msg_no",
            ),
            (
                "/channel",
                json!({"channel_id": bad, "channel_type": 2}),
                "channel_id",
            ),
            (
                "/channel/subscriber_add",
                json!({"channel_id": "x", "subscribers": ["ann", bad]}),
                "subscribers",
            ),
            (
                "/channel/subscriber_remove",
                json!({"channel_id": "x", "subscribers": [bad]}),
                "subscribers",
            ),
        ] {
            let answer = server.post(path, body.to_string()).await;
            assert_eq!(answer.status, 400, "{path}: {answer:?}");
            assert!(
                answer.msg().starts_with(&format!("{field} must")),
                "{path}: {answer:?}"
            );
        }
        let query = "query ($uid: ID) { conversations(uid: $uid) { version } }";
        assert_eq!(
            server.graphql_code(query, json!({"uid": bad})).await,
            "BAD_USER_INPUT",
            "{bad:?}"
        );
    }
    // A lone surrogate is not text.
    assert_eq!(
        server
            .post("/conversation/sync", r#"{"uid":"\ud800"}"#)
            .await
            .status,
        400
    );
    assert_eq!(
        server
            .post(
                "/conversation/sync",
                vec![b'{', b'"', 0xff, b'"', b':', b'1', b'}']
            )
            .await
            .status,
        400
    );
}

async fn unread_out_of_range_is_refused(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "one").await;
    for unread in [-1_i64, 2_147_483_648, i64::MAX, i64::MIN] {
        let body = json!({"uid": "ann", "channel_id": "bob", "channel_type": 1, "unread": unread});
        let answer = server
            .post("/conversations/setUnread", body.to_string())
            .await;
        assert_eq!(
            (answer.status, answer.msg().as_str()),
            (400, "unread must be between 0 and 2147483647"),
            "{unread}"
        );
    }
    let mutation = "mutation { setUnread(input: {uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}, unread: -1}) { conversation { id } } }";
    assert_eq!(
        server.graphql_code(mutation, json!({})).await,
        "BAD_USER_INPUT"
    );
    assert_unread!(server, "ann", 1);
}

async fn unknown_conversations(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("empty", &["ann"]).await;
    server.send("bob", "ann", 1, "one").await;
    server.delete("ann", "bob", 1).await;
    let before = server.full("ann").await;
    for (id, kind) in [("nobody", 1), ("nowhere", 2), ("empty", 2), ("bob", 1)] {
        for path in [
            "/conversations/setUnread",
            "/conversations/clearUnread",
            "/conversations/delete",
        ] {
            let answer = server
                .post(
                    path,
                    json!({"uid": "ann", "channel_id": id, "channel_type": kind, "unread": 3})
                        .to_string(),
                )
                .await;
            assert_eq!(answer.text, r#"{"status":200}"#, "{path} {id}");
        }
        let channel = json!({"channel": {"channelId": id, "channelType": kind}});
        let query = "query ($channel: ChannelInput!) { conversation(uid: \"ann\", channel: $channel) { id } }";
        assert_eq!(
            server.graphql(query, channel.clone()).await,
            json!({"conversation": null}),
            "{id}"
        );
        for query in [
            "mutation ($channel: ChannelInput!) { setUnread(input: {uid: \"ann\", channel: $channel, unread: 3}) { conversation { id } } }",
            "mutation ($channel: ChannelInput!) { clearUnread(input: {uid: \"ann\", channel: $channel}) { conversation { id } } }",
        ] {
            assert_eq!(
                server.graphql_code(query, channel.clone()).await,
                "NOT_FOUND",
                "{id}: {query}"
            );
        }
        let delete = "mutation ($channel: ChannelInput!) { deleteConversation(input: {uid: \"ann\", channel: $channel}) { removed { channelId } } }";
        if ["empty", "bob"].contains(&id) {
            // Deleting a deleted conversation succeeds and changes nothing.
            assert_eq!(
                server.graphql(delete, channel).await["deleteConversation"]["removed"]["channelId"],
                id,
                "{id}"
            );
        } else {
            assert_eq!(
                server.graphql_code(delete, channel).await,
                "NOT_FOUND",
                "{id}"
            );
        }
    }
    assert_eq!(server.full("ann").await, before);
}

/// Wrong input of the routes that were recorded from no server, with the message.
async fn routes_name_the_wrong_field(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "one").await;
    let number = |length: usize| vec![json!(1); length];
    let channel = json!({"channel_id": "bob", "channel_type": 1});
    for (path, body, msg) in [
        ("/messages", json!({}), "channel_id不能为空！"),
        ("/messages", channel.clone(), "message_seqs不能为空！"),
        (
            "/messages",
            json!({"channel_id": "bob", "channel_type": 1, "message_seqs": [1]}),
            "login_uid不能为空！",
        ),
        (
            "/messages",
            json!({"channel_id": "g", "channel_type": 0, "message_seqs": [1]}),
            "channel_type must be between 1 and 255",
        ),
        (
            "/messages",
            json!({"channel_id": "g", "channel_type": 2, "message_seqs": [-1]}),
            "message_seqs must be an array of numbers between 0 and 4294967295",
        ),
        (
            "/messages",
            json!({"channel_id": "g", "channel_type": 2, "message_ids": ["1"]}),
            "message_ids must be an array of numbers",
        ),
        (
            "/messages",
            json!({"channel_id": "g", "channel_type": 2, "client_msg_nos": [1]}),
            "client_msg_nos must be an array of strings",
        ),
        (
            "/messages",
            json!({"channel_id": "g", "channel_type": 2, "message_seqs": number(1001)}),
            "message_seqs must have at most 1000 entries",
        ),
        (
            "/messages",
            json!({"channel_id": "g", "channel_type": 2, "message_ids": number(1001)}),
            "message_ids must have at most 1000 entries",
        ),
        (
            "/messages",
            json!({"channel_id": "g", "channel_type": 2, "client_msg_nos": vec!["x"; 1001]}),
            "client_msg_nos must have at most 1000 entries",
        ),
        ("/conversation/list", json!({"uid": ""}), "uid不能为空！"),
        (
            "/conversation/list",
            json!({"uid": "a\nb"}),
            "uid must not contain control characters",
        ),
        (
            "/conversation/list",
            json!({"uid": "ann", "cursor": "x".repeat(5000)}),
            "cursor格式错误！",
        ),
        (
            "/conversation/list",
            json!({"uid": "ann", "cursor": 1}),
            "cursor must be a string",
        ),
        (
            "/conversation/list",
            json!({"uid": "ann", "limit": i64::MAX}),
            "limit must be between 0 and 200",
        ),
        (
            "/conversation/list",
            json!({"uid": "ann", "completed_coverage": -1}),
            "completed_coverage must not be negative",
        ),
        (
            "/conversation/retry",
            json!({"uid": "", "channels": [channel]}),
            "uid或channels不能为空！",
        ),
        (
            "/conversation/retry",
            json!({"uid": "ann", "channels": vec![channel.clone(); 201]}),
            "channels must have at most 200 entries",
        ),
        (
            "/conversation/retry",
            json!({"uid": "ann", "channels": [{"channel_id": "x", "channel_type": 256}]}),
            "channels.channel_type must be a whole number between 0 and 255",
        ),
        (
            "/conversations/activate",
            json!({"channel_id": "bob", "channel_type": 1}),
            "uid cannot be empty",
        ),
        (
            "/conversations/activate",
            json!({"uid": "ann", "channel_id": "bob"}),
            "channel_id or channel_type cannot be empty",
        ),
        (
            "/channel/messagesyncbatch",
            json!({"items": [channel]}),
            "login_uid不能为空！",
        ),
        (
            "/channel/messagesyncbatch",
            json!({"login_uid": "ann"}),
            "items must have between 1 and 200 entries",
        ),
        (
            "/channel/messagesyncbatch",
            json!({"login_uid": "ann", "items": vec![channel.clone(); 201]}),
            "items must have between 1 and 200 entries",
        ),
        (
            "/channel/messagesyncbatch",
            json!({"login_uid": "ann", "items": [{"channel_type": 1}]}),
            "channel_id不能为空！",
        ),
        (
            "/channel/messagesyncbatch",
            json!({"login_uid": "ann", "items": [{"channel_id": "x"}]}),
            "channel_type must be between 1 and 255",
        ),
        ("/message/sync", json!({}), "用户uid不能为空！"),
        (
            "/message/sync",
            json!({"uid": "ann", "limit": -1}),
            "limit不能为负数！",
        ),
        ("/message/syncack", json!({}), "用户UID不能为空！"),
        (
            "/message/syncack",
            json!({"uid": "ann"}),
            "最后一次messageSeq不能为0！",
        ),
        (
            "/user/onlinestatus",
            json!({"uids": ["ann"]}),
            "the body must be an array",
        ),
        (
            "/user/onlinestatus",
            json!([1]),
            "the body must be an array of strings",
        ),
        ("/user/onlinestatus", json!([""]), "uids must not be empty"),
        (
            "/channel/blacklist_remove",
            json!({}),
            "channel_id不能为空！",
        ),
        (
            "/channel/whitelist_remove",
            json!({"channel_id": "g"}),
            "频道类型不能为0！",
        ),
        (
            "/channel/whitelist_remove",
            json!({"channel_id": "g", "channel_type": 2}),
            "uids不能为空！",
        ),
        (
            "/channel/blacklist_remove",
            json!({"channel_id": "g", "channel_type": 2, "uids": [""]}),
            "uids must not be empty",
        ),
        (
            "/channel/blacklist_remove_all",
            json!({"channel_id": "g"}),
            "频道类型不能为0！",
        ),
        (
            "/channel/whitelist_remove_all",
            json!({}),
            "channel_id不能为空！",
        ),
    ] {
        let answer = server.post(path, body.to_string()).await;
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        assert!(answer.msg().starts_with(msg), "{path}: {answer:?}");
    }
    for (path, msg) in [
        ("/channel/last_message?channel_type=2", "channel_id不能为空"),
        (
            "/channel/last_message?channel_id=bob&channel_type=1",
            "login_uid不能为空",
        ),
        (
            "/channel/last_message?channel_id=g&channel_type=x",
            "channel_type must be a whole number",
        ),
        (
            "/channel/last_message?channel_id=g",
            "channel_type must be between 1 and 255",
        ),
        (
            "/channel/max_message_seq?channel_type=2",
            "channel_id不能为空",
        ),
        (
            "/channel/max_message_seq?channel_id=bob&channel_type=1",
            "login_uid不能为空",
        ),
        (
            "/message/byclientmsgno?channel_type=2&client_msg_no=x",
            "channel_id不能为空",
        ),
        (
            "/message/byclientmsgno?channel_id=g&client_msg_no=x",
            "channel_type不能为0",
        ),
        (
            "/message/byclientmsgno?channel_id=g&channel_type=2",
            "client_msg_no不能为空",
        ),
        ("/channel/whitelist", "channel_id不能为空！"),
    ] {
        let answer = server.request(server.http("GET", path)).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.msg().starts_with(msg), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn limits_at_and_one_past_the_boundary() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        let limits = &mut settings.limits;
        (
            limits.body_bytes,
            limits.webhook_body_bytes,
            limits.payload_bytes,
        ) = (2000, 3000, 100);
        (
            limits.max_messages_per_conversation,
            limits.page_size,
            limits.max_members_per_request,
            limits.max_last_msg_seqs,
        ) = (3, 4, 2, 2);
        limits.document_bytes = 1000;
    })
    .await;
    for text in ["one", "two", "three", "four", "five"] {
        server.send("bob", "ann", 1, text).await;
    }

    let padded = |length: usize| format!("{:length$}", json!({"uid": "ann"}).to_string());
    assert_eq!(
        server.post("/conversation/sync", padded(2000)).await.status,
        200
    );
    for path in ["/conversation/sync", "/message/send", "/channel"] {
        let answer = server.post(path, padded(2001)).await;
        assert_eq!(
            (answer.status, answer.msg().as_str()),
            (413, "the request body must be at most 2000 bytes long"),
            "{path}"
        );
    }
    assert_eq!(
        server
            .post("/webhook?event=msg.notify", format!("{:3000}", "[]"))
            .await
            .status,
        200
    );
    assert_eq!(
        server
            .post("/webhook?event=msg.notify", format!("{:3001}", "[]"))
            .await
            .status,
        413
    );
    assert_eq!(
        server
            .post("/conversation/sync", "x".repeat(9000))
            .await
            .status,
        413,
        "also one that nobody reads to its end"
    );

    let mut body = message("bob", "ann", 1, "six");
    use base64::Engine as _;
    let encode =
        |length: usize| base64::engine::general_purpose::STANDARD.encode(vec![b'x'; length]);
    body["payload"] = json!(encode(101));
    let answer = server.post("/message/send", body.to_string()).await;
    assert_eq!(
        (answer.status, answer.msg().as_str()),
        (400, "payload must be at most 100 bytes long")
    );
    body["payload"] = json!(encode(100));
    assert_eq!(
        server.post("/message/send", body.to_string()).await.status,
        200
    );

    // REST caps, GraphQL refuses.
    for (count, shown) in [(3, 3), (4, 3), (i64::MAX, 3), (0, 0), (-1, 0)] {
        let answer = server.sync(json!({"uid": "ann", "msg_count": count})).await;
        assert_eq!(
            answer[0]["recents"].as_array().unwrap().len(),
            shown,
            "{count}"
        );
    }
    let query = "query ($count: Int) { conversations(uid: \"ann\", msgCount: $count) { version } }";
    server.graphql(query, json!({"count": 3})).await;
    let query_recents = "query ($count: Int) { conversations(uid: \"ann\") { conversations { recents(last: $count) { id } } } }";
    for count in [4, -1] {
        assert_eq!(
            server.graphql_code(query, json!({"count": count})).await,
            "BAD_USER_INPUT",
            "{count}"
        );
        assert_eq!(
            server
                .graphql_code(query_recents, json!({"count": count}))
                .await,
            "BAD_USER_INPUT",
            "{count}"
        );
    }
    let query = "query ($first: Int) { conversations(uid: \"ann\", msgCount: 1, first: $first) { version } }";
    server.graphql(query, json!({"first": 4})).await;
    assert_eq!(
        server.graphql_code(query, json!({"first": 5})).await,
        "BAD_USER_INPUT"
    );

    assert_eq!(
        server
            .sync(json!({"uid": "ann", "last_msg_seqs": "a:1:1|b:1:1"}))
            .await
            .len(),
        1
    );
    let answer = server
        .post(
            "/conversation/sync",
            json!({"uid": "ann", "last_msg_seqs": "a:1:1|b:1:1|c:1:1"}).to_string(),
        )
        .await;
    assert_eq!(
        (answer.status, answer.msg().as_str()),
        (400, "last_msg_seqs must have at most 2 entries")
    );

    let members = |uids: &[&str]| {
        json!({"channel_id": "team", "channel_type": 2, "subscribers": uids}).to_string()
    };
    assert_eq!(
        server.post("/channel", members(&["a", "b"])).await.status,
        200
    );
    let answer = server.post("/channel", members(&["a", "b", "c"])).await;
    assert_eq!(
        (answer.status, answer.msg().as_str()),
        (400, "subscribers must name at most 2 users")
    );

    let document = |length: usize| {
        format!(
            "{:length$}",
            "{ conversations(uid: \"ann\", msgCount: 1) { version } }"
        )
    };
    server.graphql(&document(1000), json!({})).await;
    assert_eq!(
        server.graphql_code(&document(1001), json!({})).await,
        "QUERY_TOO_COMPLEX"
    );
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.manager_token = "hush".into()
    })
    .await;
    for (method, path, status, msg) in [
        ("GET", "/nowhere", 404, "page not found"),
        ("POST", "/conversation/sync/", 404, "page not found"),
        (
            "POST",
            "/webhook/guess?event=msg.notify",
            404,
            "page not found",
        ),
        (
            "POST",
            "/webhook/%ff?event=msg.notify",
            404,
            "page not found",
        ),
        // Only a WuKongIM can do this (COMPATIBILITY.md).
        ("GET", "/route?uid=ann", 404, "page not found"),
        ("POST", "/channel/blacklist_add", 404, "page not found"),
        ("POST", "/streammessage/start", 404, "page not found"),
        ("GET", "/message/send", 405, "method not allowed"),
        ("DELETE", "/channel", 405, "method not allowed"),
        ("POST", "/livez", 405, "method not allowed"),
        ("BREW", "/conversation/sync", 405, "method not allowed"),
    ] {
        let response = server
            .http(method, path)
            .header("token", "hush")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        if status == 405 {
            assert!(response.headers().contains_key("allow"), "{method} {path}");
        }
        assert_eq!(
            response.json::<Value>().await.unwrap(),
            json!({"msg": msg, "status": status}),
            "{method} {path}"
        );
    }
    for path in ["/", "/nowhere", "/graphql", "/message/send"] {
        let response = server.http("OPTIONS", path).send().await.unwrap();
        let origin = response
            .headers()
            .get("access-control-allow-origin")
            .map(|value| value.as_bytes());
        // Pages of other origins may not send even a preflight request for GraphQL.
        assert_eq!(
            (response.status().as_u16(), origin),
            (204, (path != "/graphql").then_some(b"*".as_slice())),
            "{path}"
        );
    }
    let response = server
        .http("POST", "/conversation/sync")
        .header("token", "hush")
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "*",
        "as WuKongIM"
    );
    // Without authentication, pages of other origins are refused everywhere.
    let open = Server::start(Engine::Sqlite).await;
    let response = open
        .http("POST", "/conversation/sync")
        .body("{}")
        .send()
        .await
        .unwrap();
    assert!(
        !response
            .headers()
            .contains_key("access-control-allow-origin")
    );
}

/// A listed origin may use GraphQL from a browser; others may not.
#[tokio::test]
async fn graphql_cors_allows_only_listed_origins() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.server.cors_origins = vec!["https://chat.example.com".to_owned()];
        settings.auth.manager_token = "hush".into();
    })
    .await;
    for (origin, allowed) in [
        ("https://chat.example.com", true),
        ("https://chat.example.com.evil.org", false),
        ("null", false),
    ] {
        for method in ["OPTIONS", "POST", "GET"] {
            let request = server
                .http(method, "/graphql?query=%7B__typename%7D")
                .header("origin", origin);
            let response = request
                .header("content-type", "application/json")
                .body("{}")
                .send()
                .await
                .unwrap();
            let headers = response.headers();
            let got = headers
                .get("access-control-allow-origin")
                .map(|value| value.to_str().unwrap());
            assert_eq!(got, allowed.then_some(origin), "{method} from {origin}");
            assert_eq!(
                headers.contains_key("access-control-allow-headers"),
                allowed,
                "{method} from {origin}"
            );
            assert!(
                !headers.contains_key("access-control-allow-credentials"),
                "the server sets no cookie"
            );
            let varies: Vec<&str> = headers
                .get_all("vary")
                .iter()
                .map(|value| value.to_str().unwrap())
                .collect();
            assert!(
                varies.iter().any(|vary| vary.contains("origin")),
                "{method}: {varies:?}"
            );
        }
    }
}

/// Pages may send the headers of GraphQL clients and of tracing, or those that the configuration
/// lists.
#[tokio::test]
async fn cors_allows_the_configured_request_headers() {
    let allowed_headers = async |headers: Option<Vec<String>>, path: &str| {
        let server = Server::start_with(Engine::Sqlite, |settings| {
            settings.server.cors_origins = vec!["https://chat.example.com".to_owned()];
            settings.auth.manager_token = "hush".into();
            if let Some(headers) = headers {
                settings.server.cors_headers = headers;
            }
        })
        .await;
        let preflight = server
            .http("OPTIONS", path)
            .header("origin", "https://chat.example.com")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "traceparent");
        let response = preflight.send().await.unwrap();
        assert_eq!(response.status(), 204);
        let headers = &response.headers()["access-control-allow-headers"];
        headers.to_str().unwrap().to_owned()
    };
    for path in ["/graphql", "/conversation/sync"] {
        let default = allowed_headers(None, path).await;
        let default: Vec<&str> = default.split(", ").collect();
        for name in [
            "accept",
            "apollo-require-preflight",
            "apollographql-client-name",
            "apollographql-client-version",
            "authorization",
            "baggage",
            "content-type",
            "sentry-trace",
            "token",
            "traceparent",
            "tracestate",
            "x-apollo-operation-name",
            "x-request-id",
        ] {
            assert!(default.contains(&name), "{path}: {name}");
        }
        let own = vec!["content-type".to_owned(), "x-mine".to_owned()];
        assert_eq!(
            allowed_headers(Some(own), path).await,
            "content-type, x-mine",
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_response_has_security_headers() {
    let server = Server::start(Engine::Sqlite).await;
    for (method, path) in [
        ("GET", "/"),
        ("POST", "/conversation/sync"),
        ("POST", "/graphql"),
        ("GET", "/nowhere"),
        ("GET", "/metrics"),
    ] {
        let response = server.http(method, path).body("{}").send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(headers.contains_key("cache-control"), "{path}");
    }
}

#[tokio::test]
async fn manager_token_protects_all_data_routes() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.manager_token = "hush".into()
    })
    .await;
    for path in [
        "/conversation/sync",
        "/conversations/setUnread",
        "/conversations/clearUnread",
        "/conversations/delete",
        "/message/send",
        "/channel",
        "/channel/subscriber_add",
        "/channel/subscriber_remove",
        "/webhook?event=msg.notify",
    ] {
        let answer = server.post(path, "{}").await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (401, ""),
            "{path}: as WuKongIM"
        );
        let wrong = server
            .request(server.http("POST", path).header("token", "hus").body("{}"))
            .await;
        assert_eq!(wrong.status, 401, "{path}");
    }
    let answer = server.graphql_raw("{ __typename }", json!({})).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    for (name, value) in [("token", "hush"), ("authorization", "Bearer hush")] {
        let request = server
            .http("POST", "/conversation/sync")
            .header(name, value)
            .body(json!({"uid": "ann"}).to_string());
        assert_eq!(server.request(request).await.text, "[]", "{name}");
    }
    for path in ["/livez", "/readyz", "/health", "/", "/graphiql"] {
        assert_eq!(
            server.request(server.http("GET", path)).await.status,
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn webhook_secret_is_part_of_the_path() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.ingest.webhook_secret = "s3cret".into();
        settings.auth.manager_token = "hush".into();
    })
    .await;
    assert_eq!(
        server
            .post("/webhook/s3cret?event=msg.notify", "[]")
            .await
            .status,
        200
    );
    assert_eq!(
        server
            .post("/webhook/s3cre?event=msg.notify", "[]")
            .await
            .status,
        404
    );
    let question = json!({"cmd": "getSystemUIDs"}).to_string();
    assert_eq!(
        server
            .post("/datasource/s3cret", question.clone())
            .await
            .text,
        "[]"
    );
    assert_eq!(
        server
            .post("/datasource/s3cre", question.clone())
            .await
            .status,
        404
    );
    assert_eq!(server.post("/datasource", question).await.status, 404);
    let with_token = server
        .http("POST", "/webhook?event=msg.notify")
        .header("token", "hush")
        .body("[]");
    assert_eq!(server.request(with_token).await.status, 404);
}

#[tokio::test]
async fn large_payload_is_returned_unchanged() {
    let server = Server::start(Engine::Sqlite).await;
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(vec![7; 256 << 10]);
    let mut body = message("bob", "ann", 1, "large");
    body["payload"] = json!(encoded);
    server.call("/message/send", body).await;
    assert_eq!(server.only("ann").await["recents"][0]["payload"], encoded);
    assert!(payload("x").len() < 100);
}
