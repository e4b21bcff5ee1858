//! `Message.content` is the sent text wherever the text is JSON, and payloads that are not JSON do
//! not break the response.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::support::sse::{Event, Events};
use crate::support::{Engine, Server};

/// Returns the bytes of the content of ann's newest message from bob, as each of the two
/// serialisers writes them. The responses must be JSON.
async fn contents(server: &Server, payload: &[u8]) -> Vec<String> {
    let text = STANDARD.encode(payload);
    let send = format!(
        "mutation ($p: Base64!) {{ sendMessage(input: {{fromUid: \"bob\", {}, payload: $p}}) {{ message {{ content }} }} }}",
        "channel: {channelId: \"ann\", channelType: 1}"
    );
    let with = "channel: {channelId: \"bob\", channelType: 1}";
    let queries = [
        (send, json!({"p": text})),
        (
            format!(
                "{{ conversation(uid: \"ann\", {with}) {{ recents(last: 1) {{ content }} }} }}"
            ),
            json!({}),
        ),
        (
            format!("{{ messages(uid: \"ann\", {with}, last: 1) {{ nodes {{ content }} }} }}"),
            json!({}),
        ),
    ];
    let mut contents = Vec::new();
    for (query, variables) in queries {
        let body = json!({"query": query, "variables": variables}).to_string();
        let request = server
            .http("POST", "/graphql")
            .header("content-type", "application/json")
            .body(body);
        let answer = server.request(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (before, content) = answer
            .text
            .split_once("{\"content\":")
            .unwrap_or_else(|| panic!("{answer:?}"));
        assert!(before.starts_with("{\"data\":{"), "{answer:?}");
        let end = content.len() - before.matches(['{', '[']).count() - 1;
        let (content, after) = content.split_at(end);
        assert!(
            after.chars().all(|bracket| "}]".contains(bracket)),
            "{answer:?}"
        );
        contents.push(content.to_owned());
    }
    contents
}

#[tokio::test]
async fn content_is_the_sent_text() {
    let server = Server::start(Engine::Sqlite).await;
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for text in [
        "18446744073709551616",
        "1e400",
        "-0.10e-7",
        r#""\ud800""#,
        r#"{"a":1,"a":2}"#,
        r#" { "type" : 1 , "x" : [ ] } "#,
        "{\n\t\"a\": [\r\n1]\n}",
        r#"{"$serde_json::private::RawValue":"{\"uid\":1"}"#,
        r#"{"\u0061":"é","b":"\/"}"#,
        "null",
        &nested(127),
        &nested(128),
        &nested(500),
    ] {
        assert_eq!(
            contents(&server, text.as_bytes()).await,
            [text; 3],
            "{text}"
        );
    }
    for payload in [
        &b"\xff"[..],
        b"{",
        b"{}x",
        b"[1,]",
        b"\"\xed\xa0\x80\"",
        b"NaN",
        b"\xef\xbb\xbf1",
        nested(501).as_bytes(),
    ] {
        assert_eq!(
            contents(&server, payload).await,
            ["null"; 3],
            "{}",
            payload.escape_ascii()
        );
    }
}

#[tokio::test]
async fn line_breaks_stay_within_one_event() {
    let server = Server::start(Engine::Sqlite).await;
    let mut message = crate::support::server::message("bob", "ann", 1, "lines");
    message["payload"] = json!(STANDARD.encode("{\n\"a\":\r\n[1,\r2]}"));
    server.call("/message/send", message).await;
    let query = "subscription { conversationChanges(uid: \"ann\") { conversations { recents { content } } } }";
    let mut events = Events::open(server.http("POST", "/graphql"), query, json!({}))
        .await
        .unwrap();
    let Event::Next(answer) = events.next().await else {
        panic!("no event")
    };
    assert_eq!(
        answer["data"]["conversationChanges"]["conversations"][0]["recents"],
        json!([{"content": {"a": [1, 2]}}])
    );
}

/// JSON texts with everything that the grammar allows.
fn any_json() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec!["", "", "", " ", "\t", "\n", "\r\n"]);
    let string = prop::collection::vec(
        prop_oneof![
            "[ !#-\\[\\]-~é😀]{1,4}",
            "\\\\u[0-9a-fA-F]{4}",
            prop::sample::select(vec![
                "\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"
            ])
            .prop_map(str::to_owned),
        ],
        0..4,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "false", "{}", "[]"]).prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
        string.clone(),
    ];
    leaf.prop_recursive(5, 30, 4, move |inner| {
        let item = (space.clone(), inner, space.clone())
            .prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        let field =
            (string.clone(), item.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
        let field = (space.clone(), field).prop_map(|(before, field)| format!("{before}{field}"));
        prop_oneof![
            prop::collection::vec(item, 1..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(field, 1..4)
                .prop_map(|fields| format!("{{{}}}", fields.join(","))),
        ]
    })
}

#[test]
fn any_json_is_returned_unchanged() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(Server::start(Engine::Sqlite));
    let config = Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config.clone()).run(&any_json(), |text| {
        let found = runtime.block_on(contents(&server, text.as_bytes()));
        prop_assert_eq!(found, vec![text; 3]);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // A text with bytes removed or inserted is returned unchanged, or null.
    let edit = (
        any_json(),
        any::<prop::sample::Index>(),
        0..3_usize,
        prop::collection::vec(any::<u8>(), 0..3),
    );
    let result = TestRunner::new(config).run(&edit, |(text, place, length, new)| {
        let mut bytes = text.into_bytes();
        let start = place.index(bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        drop(bytes.splice(start..end, new));
        prop_assume!(!bytes.is_empty());
        let found = runtime.block_on(contents(&server, &bytes));
        let text = String::from_utf8(bytes).unwrap_or_default();
        prop_assert!(
            found == [text.as_str(); 3] || found == ["null"; 3],
            "{found:?} of {text:?}"
        );
        if found[0] != "null" {
            prop_assert!(
                serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(),
                "{text:?}"
            );
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
