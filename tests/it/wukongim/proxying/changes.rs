//! Changes of channels and members: there first, then here.

use std::time::Duration;

use serde_json::{Value, json};

use super::in_front_of;
use crate::support::server::Answer;
use crate::support::upstream::{Reply, Upstream};
use crate::support::{Engine, Server};

on_every_database!(
    refusals_change_nothing_here,
    failures_here_are_answered_and_may_be_repeated,
    change_is_finished_when_its_caller_hangs_up,
    changes_of_a_channel_have_one_order,
    graphql_changes_are_done_there_first,
);

async fn members(server: &Server, id: &str) -> Vec<String> {
    let body = json!({"cmd": "getSubscribers", "data": {"channel_id": id, "channel_type": 2}});
    let request = server
        .http("POST", "/datasource")
        .header("token", "hush")
        .body(body.to_string());
    let mut members: Vec<String> =
        serde_json::from_value(server.request(request).await.json()).unwrap();
    members.sort();
    members
}

fn group(subscribers: &[&str]) -> String {
    json!({"channel_id": "g", "channel_type": 2, "subscribers": subscribers}).to_string()
}

async fn refusals_change_nothing_here(engine: Engine) {
    let upstream = Upstream::start().await;
    let server = Server::start_with(engine, in_front_of(&upstream)).await;
    assert_eq!(server.post("/channel", group(&["ann"])).await.status, 200);
    assert_eq!(members(&server, "g").await, ["ann"]);
    for (path, body) in [
        ("/channel", group(&["bob"])),
        ("/channel/info", group(&[])),
        ("/channel/subscriber_add", group(&["bob"])),
        ("/channel/subscriber_remove", group(&["ann"])),
        ("/channel/subscriber_remove_all", group(&[])),
        ("/channel/delete", group(&[])),
    ] {
        let refusal = r#"{"msg":"不行","status":400}"#;
        for (status, text) in [(400, refusal), (500, "broken"), (401, ""), (302, "")] {
            upstream.reply_json(path, status, text);
            let answer = server.post(path, body.clone()).await;
            assert_eq!(
                (answer.status, answer.text.as_str()),
                (status, text),
                "{path}"
            );
            assert_eq!(members(&server, "g").await, ["ann"], "{path}");
        }
        upstream.take_calls();
        // A change that could never be made here is not made there.
        for (body, text) in [
            ("{", "well-formed"),
            (
                r#"{"channel_id": "g", "channel_type": "2"}"#,
                "channel_type",
            ),
            (
                r#"{"channel_id": "", "channel_type": 2, "subscribers": ["x"]}"#,
                "频道ID",
            ),
        ] {
            let answer = server.post(path, body).await;
            assert_eq!(answer.status, 400, "{path} {body}");
            assert!(answer.msg().contains(text), "{path}: {}", answer.msg());
        }
        let too_many: Vec<String> = (0..100_001).map(|number| number.to_string()).collect();
        let body = json!({"channel_id": "g", "channel_type": 2, "subscribers": too_many});
        if [
            "/channel",
            "/channel/subscriber_add",
            "/channel/subscriber_remove",
        ]
        .contains(&path)
        {
            let answer = server.post(path, body.to_string()).await;
            assert_eq!(answer.status, 400, "{path}");
            assert!(answer.msg().starts_with("subscribers"), "{}", answer.msg());
        }
        assert!(upstream.take_calls().is_empty(), "{path}");
    }
    assert_eq!(members(&server, "g").await, ["ann"]);
}

async fn failures_here_are_answered_and_may_be_repeated(engine: Engine) {
    let upstream = Upstream::start().await;
    let server = Server::start_with(engine, in_front_of(&upstream)).await;
    server.app.core.base.store.close().await;
    let answer = server
        .post("/channel/subscriber_add", group(&["ann"]))
        .await;
    assert!([500, 503].contains(&answer.status), "{answer:?}");
    assert_eq!(upstream.take_call().target, "/channel/subscriber_add");
    let server = server.restart(in_front_of(&upstream)).await;
    let answer = server
        .post("/channel/subscriber_add", group(&["ann"]))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(members(&server, "g").await, ["ann"]);
}

async fn change_is_finished_when_its_caller_hangs_up(engine: Engine) {
    let upstream = Upstream::start().await;
    let server = Server::start_with(engine, in_front_of(&upstream)).await;
    let done = || r#"{"status":200}"#.to_owned();
    let pause = Duration::from_millis(500);
    upstream.reply("/channel/subscriber_add", Reply::Json(200, done(), pause));
    let request = server
        .http("POST", "/channel/subscriber_add")
        .timeout(Duration::from_millis(150))
        .body(group(&["ann", "bob"]));
    assert!(request.send().await.unwrap_err().is_timeout());
    tokio::time::timeout(Duration::from_secs(10), async {
        while members(&server, "g").await != ["ann", "bob"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the change is made here, too");
    // A caller that hangs up while WuKongIM takes the call does not stop it there either.
    assert_eq!(
        upstream.take_call().json()["subscribers"],
        json!(["ann", "bob"])
    );
}

async fn changes_of_a_channel_have_one_order(engine: Engine) {
    let upstream = Upstream::start().await;
    let server = Server::start_with(engine, in_front_of(&upstream)).await;
    for _ in 0..5 {
        let adds = (0..4).map(|_| server.post("/channel/subscriber_add", group(&["ann"])));
        let removes = (0..4).map(|_| server.post("/channel/subscriber_remove", group(&["ann"])));
        let (adds, removes) = tokio::join!(
            futures_util::future::join_all(adds),
            futures_util::future::join_all(removes)
        );
        assert!(
            adds.iter()
                .chain(&removes)
                .all(|answer| answer.status == 200)
        );
        let calls = upstream.take_calls();
        assert_eq!(calls.len(), 8);
        let is_member = !members(&server, "g").await.is_empty();
        assert_eq!(
            is_member,
            calls.last().unwrap().target == "/channel/subscriber_add",
            "the last change there is the last one here"
        );
    }
}

async fn graphql(server: &Server, mutation: &str, input: &str) -> Value {
    let query = format!(
        "mutation {{ {mutation}(input: {{channel: {{channelId: \"g\", channelType: 2}}{input}}}) {{ channel {{ id }} }} }}"
    );
    let request = server
        .http("POST", "/graphql")
        .header("token", "hush")
        .header("content-type", "application/json")
        .body(json!({"query": query}).to_string());
    let answer: Answer = server.request(request).await;
    answer.json()
}

async fn graphql_changes_are_done_there_first(engine: Engine) {
    let upstream = Upstream::start().await;
    let in_front = in_front_of(&upstream);
    let server = Server::start_with(engine, |settings| {
        in_front(settings);
        settings.proxy.wukongim_token = "theirs".into();
    })
    .await;
    let name = json!({"channel_id": "g", "channel_type": 2});
    let with = |more: Value| {
        let mut body = name.clone();
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let created = |ban: u8, disband: u8, subscribers: Value| {
        with(
            json!({"large": 0, "ban": ban, "disband": disband, "reset": 0, "subscribers": subscribers}),
        )
    };
    let changes = [
        (
            ("createChannel", ", uids: [\"ann\"], ban: true"),
            Some(("/channel", created(1, 0, json!(["ann"])))),
            vec!["ann"],
        ),
        // A flag that is not named keeps its value there, too.
        (
            ("createChannel", ", disband: true"),
            Some(("/channel", created(1, 1, json!([])))),
            vec!["ann"],
        ),
        (
            ("addMembers", ", uids: [\"bob\", \"cat\"]"),
            Some((
                "/channel/subscriber_add",
                with(json!({"reset": 0, "subscribers": ["bob", "cat"]})),
            )),
            vec!["ann", "bob", "cat"],
        ),
        (
            ("addMembers", ", uids: []"),
            Some(("/channel", created(1, 1, json!([])))),
            vec!["ann", "bob", "cat"],
        ),
        (
            ("removeMembers", ", uids: [\"ann\"]"),
            Some((
                "/channel/subscriber_remove",
                with(json!({"subscribers": ["ann"]})),
            )),
            vec!["bob", "cat"],
        ),
        (("removeMembers", ", uids: []"), None, vec!["bob", "cat"]),
        (
            ("replaceMembers", ", uids: [\"bob\", \"dan\"]"),
            Some((
                "/channel/subscriber_add",
                with(json!({"reset": 1, "subscribers": ["bob", "dan"]})),
            )),
            vec!["bob", "dan"],
        ),
        (
            ("replaceMembers", ", uids: []"),
            Some(("/channel/subscriber_remove_all", name.clone())),
            vec![],
        ),
        (
            ("addMembers", ", uids: [\"eve\"]"),
            Some((
                "/channel/subscriber_add",
                with(json!({"reset": 0, "subscribers": ["eve"]})),
            )),
            vec!["eve"],
        ),
        (
            ("deleteChannel", ""),
            Some(("/channel/delete", name.clone())),
            vec![],
        ),
    ];
    for ((mutation, input), expected, after) in changes {
        if let Some((path, _)) = expected {
            let before = members(&server, "g").await;
            for (status, text, code, reason) in [
                (
                    400,
                    r#"{"msg":"不行","status":400}"#,
                    "BAD_USER_INPUT",
                    "refused this: 不行",
                ),
                (
                    404,
                    "404 page not found",
                    "BAD_USER_INPUT",
                    "refused this: status 404",
                ),
                (500, "", "SERVICE_UNAVAILABLE", "cannot be reached"),
                (401, "", "SERVICE_UNAVAILABLE", "cannot be reached"),
            ] {
                upstream.reply_json(path, status, text);
                let answer = graphql(&server, mutation, input).await;
                let error = &answer["errors"][0];
                assert_eq!(error["extensions"]["code"], code, "{mutation}: {answer}");
                assert!(
                    error["message"].as_str().unwrap().contains(reason),
                    "{answer}"
                );
                assert_eq!(members(&server, "g").await, before, "{mutation}");
            }
            upstream.reply_json(path, 200, r#"{"status":200}"#);
            upstream.take_calls();
        }
        let answer = graphql(&server, mutation, input).await;
        assert_eq!(answer["errors"], Value::Null, "{mutation}: {answer}");
        let calls = upstream.take_calls();
        match expected {
            Some((path, body)) => {
                assert_eq!(calls.len(), 1, "{calls:?}");
                assert_eq!(calls[0].target, path, "{mutation}");
                assert_eq!(calls[0].json(), body, "{mutation} {input}");
                assert_eq!(calls[0].headers["token"], "theirs");
                assert_eq!(calls[0].headers["content-type"], "application/json");
            }
            None => assert!(calls.is_empty(), "{mutation}: {calls:?}"),
        }
        assert_eq!(members(&server, "g").await, after, "{mutation} {input}");
    }
    // Nothing is asked for changes that are refused here.
    let answer = graphql(&server, "addMembers", ", uids: [\"\"]").await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
    assert!(upstream.take_calls().is_empty());
    // Away.
    drop(upstream);
    let answer = graphql(&server, "addMembers", ", uids: [\"zoe\"]").await;
    assert_eq!(
        answer["errors"][0]["extensions"],
        json!({"code": "SERVICE_UNAVAILABLE", "retryAfter": 1}),
        "{answer}"
    );
    assert_eq!(members(&server, "g").await, Vec::<String>::new());
}
