//! Parsers with arbitrary input, through the public interfaces: no panic, no 5xx, a refusal that
//! explains the problem, and time proportional to the length of the input. A failing input shrinks
//! to the shortest one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use recents::config::Settings;
use recents::conversation::parse_last_msg_seqs;
use recents::model::{ChannelRef, Seq};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::process::{self, Process, run, stderr, stdout};
use crate::support::server::{Answer, webhook_message};
use crate::support::{Engine, Server, TestDatabase};

/// The keys of a JSON object, and the values written for them.
type Fields = [(&'static str, &'static str)];

const ROUTES: [(&str, &Fields); 12] = [
    (
        "/conversation/sync",
        &[
            ("uid", r#""ann""#),
            ("version", "0"),
            ("last_msg_seqs", r#""bob:1:1|g:with:colon:2:0""#),
            ("msg_count", "20"),
            ("only_unread", "0"),
            ("exclude_channel_types", "[3,null]"),
            ("larges", r#"[{"channel_id":"g1","channel_type":2}]"#),
            ("page", "0"),
            ("page_size", "0"),
        ],
    ),
    ("/conversations/setUnread", CONVERSATION),
    ("/conversations/clearUnread", CONVERSATION),
    ("/conversations/delete", CONVERSATION),
    (
        "/message/send",
        &[
            ("header", r#"{"no_persist":0,"red_dot":1,"sync_once":0}"#),
            ("client_msg_no", r#""c1""#),
            ("from_uid", r#""bob""#),
            ("channel_id", r#""ann""#),
            ("channel_type", "1"),
            ("subscribers", "[]"),
            ("setting", "0"),
            ("topic", r#""""#),
            ("expire", "0"),
            ("payload", r#""eA==""#),
        ],
    ),
    (
        "/conversation/list",
        &[
            ("uid", r#""ann""#),
            ("cursor", r#""WyJjMSIsMSwwLDAsMCwiIl0""#),
            ("limit", "1"),
            ("completed_coverage", "0"),
        ],
    ),
    (
        "/conversation/retry",
        &[
            ("uid", r#""ann""#),
            ("channels", r#"[{"channel_id":"bob","channel_type":1}]"#),
        ],
    ),
    (
        "/channel/messagesyncbatch",
        &[
            ("login_uid", r#""ann""#),
            (
                "items",
                r#"[{"channel_id":"bob","channel_type":1,"start_message_seq":1,"end_message_seq":0,"limit":2,"pull_mode":1}]"#,
            ),
        ],
    ),
    (
        "/messages",
        &[
            ("login_uid", r#""ann""#),
            ("channel_id", r#""bob""#),
            ("channel_type", "1"),
            ("message_seqs", "[1,null]"),
            ("message_ids", "[1]"),
            ("client_msg_nos", r#"["c1"]"#),
        ],
    ),
    ("/channel", CHANNEL),
    ("/channel/subscriber_add", CHANNEL),
    ("/channel/subscriber_remove", CHANNEL),
];

const CONVERSATION: &Fields = &[
    ("uid", r#""ann""#),
    ("channel_id", r#""bob""#),
    ("channel_type", "1"),
    ("message_seq", "0"),
    ("unread", "1"),
];

const CHANNEL: &Fields = &[
    ("channel_id", r#""g1""#),
    ("channel_type", "2"),
    ("subscribers", r#"["ann","bob",null]"#),
    ("large", "0"),
    ("ban", "0"),
    ("disband", "0"),
    ("reset", "0"),
];

/// A message of a webhook, also with receivers.
const WEBHOOK_FIELDS: &Fields = &[
    ("header", r#"{"no_persist":0,"red_dot":1,"sync_once":0}"#),
    ("setting", "0"),
    ("message_id", "11"),
    ("client_msg_no", r#""c11""#),
    ("message_seq", "1"),
    ("from_uid", r#""bob""#),
    ("channel_id", r#""team""#),
    ("channel_type", "2"),
    ("topic", r#""""#),
    ("expire", "0"),
    ("timestamp", "1795393001"),
    ("payload", r#""eA==""#),
    ("stream_no", r#""""#),
    ("stream_seq", "0"),
    ("stream_flag", "0"),
    ("end", "1"),
    ("error", r#""""#),
    ("stream_data", r#""eA==""#),
    ("event_meta", r#"{"event_version":1}"#),
    ("streams", "[]"),
    ("to_uids", r#"["ann","cid"]"#),
    ("compress", r#""""#),
    ("compress_to_uids", r#""""#),
];

const REQUEST: &Fields = &[
    (
        "query",
        r#""query A($uid: ID, $version: UInt53! = 0) { conversations(uid: $uid, version: $version) { version } }""#,
    ),
    ("variables", r#"{"uid":"ann","version":0}"#),
    ("operationName", r#""A""#),
];

const VARIABLES: &Fields = &[
    ("uid", r#""ann""#),
    ("version", "0"),
    ("seqs", r#""bob:1:1""#),
    ("count", "2"),
    ("unread", "false"),
    ("types", "[3]"),
    ("channel", r#"{"channelId":"bob","channelType":1}"#),
    ("cursor", "null"),
];

const WITH_VARIABLES: &str = "query ($uid: ID, $version: UInt53! = 0, $seqs: String, $count: Int, $unread: Boolean! = true,
    $types: [Int!], $channel: ChannelInput!, $cursor: String) {
    conversations(uid: $uid, version: $version, lastMsgSeqs: $seqs, onlyUnread: $unread, excludeChannelTypes: $types,
        first: $count) { version conversations { id recents(last: $count) { content } } removed { version } }
    messages(uid: $uid, channel: $channel, first: $count, after: $cursor) { nodes { payload } } }";

const DOCUMENTS: &[&str] = &[
    WITH_VARIABLES,
    r#"{ messages(uid: "ann", channel: {channelId: "bob", channelType: 1}, last: 2) {
        nodes { payload } pageInfo { endCursor } } }"#,
    r#"mutation { sendMessage(input: {fromUid: "ann", channel: {channelId: "bob", channelType: 1}, payload: "eA==", expire: 1}) {
        message { id } } }"#,
    "query A { ...f } query B($a: Boolean = true) { ...f @skip(if: $a) } fragment f on Query { __typename ...g }
        fragment g on Query { unreadSummary(uid: \"\"\"ann\"\"\") { total } }",
    "{ ...f ...g } fragment f on Query { ...g } fragment g on Query { ...f }",
    "{ __schema { types { name fields { name } } } } # \"comment\"\r\n",
];

const TOKENS: &str = r#"{ } ( ) [ ] : = ! $ @ ... " """ \ \" a é query mutation subscription fragment f on Query ...f ...on
    $a $a:[Nope] @skip(if:$a) @include(if:1) __typename conversations (uid:"ann") {version} 1e400 -0
    9223372036854775808 null true"#;

const BETWEEN_TOKENS: &[&str] = &[" ", "", ",", "\n", "\r", "\r\n", "#", "\u{0}", "\u{feff}"];

const ODD_JSON: &str = r#"null true 0 -0 -1 1.5 1e3 1e400 -1e-400 255 256 4294967296 9007199254740992 9223372036854775807
    9223372036854775808 -9223372036854775809 18446744073709551616 "" "x" "\u0000" "\ud800" "\udc00\ud800" "\ud83d\ude00" "m1:1"
    "bTE6MQ" "a|b:c:1" [] {} [null] ["ann",1,{}] [[[[]]]] [{}] {"uid":{}} {"red_dot":1e400,"red_dot":"x"} , nul NaN +1 01 .5 0x1
    "\x" "open [ { } {"a" 1,"uid":"eve""#;

const ODD_BYTES: &[&[u8]] = &[
    b"\0", b"\"", b"\\", b"{", b"}", b"[", b"]", b":", b",", b"-", b"1e400", b"\r", b"\n", b"#",
    b"\\ud800", b"\xff", b"\xc3",
];

/// A lone surrogate, a truncated character, a byte order mark, and UTF-16 NUL.
const INVALID_UTF_8: &[&[u8]] = &[
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98",
    b"\xef\xbb\xbf",
    b"\xc0\x80",
];

/// Bytes that a failure prints as text.
struct Body(Vec<u8>);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Cut,
    Double,
    Put(Vec<u8>),
}

/// Position, number of bytes, and the edit.
type Edits = Vec<(Index, usize, Edit)>;

fn edits() -> impl Strategy<Value = Edits> {
    let odd =
        prop_oneof![4 => prop::sample::select(ODD_BYTES), 1 => prop::sample::select(INVALID_UTF_8)];
    let put = prop_oneof![
        odd.prop_map(|bytes| bytes.to_vec()),
        prop::collection::vec(any::<u8>(), 1..4)
    ];
    let edit = prop_oneof![Just(Edit::Cut), Just(Edit::Double), put.prop_map(Edit::Put)];
    prop::collection::vec((any::<Index>(), 0..8_usize, edit), 0..3)
}

fn edited(mut bytes: Vec<u8>, edits: Edits) -> Vec<u8> {
    for (place, length, edit) in edits {
        let start = place.index(bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        let new = match edit {
            Edit::Cut => Vec::new(),
            Edit::Double => bytes[start..end].repeat(2),
            Edit::Put(new) => new,
        };
        drop(bytes.splice(start..end, new));
    }
    bytes
}

/// Chooses one of the words of a text.
fn word(text: &'static str) -> impl Strategy<Value = String> {
    prop::sample::select(text.split_whitespace().collect::<Vec<_>>()).prop_map(str::to_owned)
}

fn odd_json() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => word(ODD_JSON),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<String>().prop_map(|text| json!(text).to_string()),
        1 => (1_usize..300).prop_map(|length| json!("x".repeat(length)).to_string()),
        1 => (1_usize..200).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        1 => (1_usize..200).prop_map(|depth| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth)),
    ]
}

/// Generates an object of these fields, most of them valid; some are missing, odd, or repeated.
fn object(fields: &'static Fields) -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = fields.iter().map(|(name, _)| *name).collect();
    let given: Vec<_> = fields
        .iter()
        .map(|(name, value)| {
            let value = prop_oneof![12 => Just((*value).to_owned()), 1 => odd_json()];
            prop::option::weighted(0.97, value.prop_map(move |value| (*name, value)))
        })
        .collect();
    let more = prop::collection::vec((prop::sample::select(names), odd_json()), 0..2);
    (given, more).prop_map(|(given, more)| {
        let pairs = given
            .into_iter()
            .flatten()
            .chain(more)
            .map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
    })
}

/// Generates bytes that are nearly such a text, or arbitrary.
fn nearly(text: impl Strategy<Value = String>) -> impl Strategy<Value = Body> {
    let changed = (text, edits()).prop_map(|(text, edits)| Body(edited(text.into_bytes(), edits)));
    prop_oneof![9 => changed, 1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Body)]
}

/// Asserts that a property holds for this number of values. A panic is a failure that shrinks like
/// any other.
fn hold<S: Strategy>(
    cases: u32,
    strategy: &S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(strategy, |value| {
        catch_unwind(AssertUnwindSafe(|| property(value))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(TestCaseError::fail(format!(
                "it panicked: {}",
                text.unwrap_or_default()
            )))
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// A server, and the runtime of its requests.
struct FuzzTarget {
    server: Server,
    runtime: Runtime,
}

impl FuzzTarget {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(Server::start(Engine::Sqlite));
        Self { server, runtime }
    }

    fn request(&self, request: reqwest::RequestBuilder) -> Answer {
        self.runtime.block_on(
            self.server
                .request(request.header("content-type", "application/json")),
        )
    }

    /// A POST route succeeds, or explains the refusal in the envelope.
    fn legacy(&self, path: &str, body: Vec<u8>) -> Result<(), TestCaseError> {
        assert_done_or_refused(&self.request(self.server.http("POST", path).body(body)))
    }

    /// GraphQL responds, and every error has a code that blames the caller.
    fn graphql(&self, body: Vec<u8>) -> Result<Value, TestCaseError> {
        let answer = self.request(self.server.http("POST", "/graphql").body(body));
        assert_no_internals(&answer)?;
        let said: Value = serde_json::from_str(&answer.text)
            .map_err(|_| TestCaseError::fail(format!("{answer:?}")))?;
        for error in said["errors"].as_array().into_iter().flatten() {
            let code = error["extensions"]["code"].as_str().unwrap_or_default();
            let codes = [
                "BAD_USER_INPUT",
                "NOT_FOUND",
                "QUERY_TOO_COMPLEX",
                "GRAPHQL_PARSE_FAILED",
                "GRAPHQL_VALIDATION_FAILED",
            ];
            prop_assert!(codes.contains(&code), "{answer:?}");
        }
        prop_assert!(
            answer.status < 400 || said["errors"].is_array(),
            "{answer:?}"
        );
        Ok(said)
    }

    fn still_answers(&self) {
        self.runtime.block_on(async {
            self.server.sync(json!({"uid": "ann"})).await;
            self.server
                .graphql("{ conversations(uid: \"ann\") { version } }", json!({}))
                .await;
        });
    }
}

fn assert_no_internals(answer: &Answer) -> Result<(), TestCaseError> {
    let inside = ["panicked", "internal error"]
        .iter()
        .any(|words| answer.text.contains(words));
    prop_assert!(answer.status < 500 && !inside, "{answer:?}");
    Ok(())
}

fn assert_done_or_refused(answer: &Answer) -> Result<(), TestCaseError> {
    assert_no_internals(answer)?;
    let said: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    let is_envelope = said.as_object().is_some_and(|said| said.len() == 2)
        && said["msg"].as_str().is_some_and(|msg| !msg.is_empty())
        && said["status"] == answer.status;
    prop_assert!(answer.status == 200 || is_envelope, "{answer:?}");
    Ok(())
}

#[test]
fn post_route_bodies() {
    let target = FuzzTarget::start();
    for (path, fields) in ROUTES {
        hold(60, &nearly(object(fields)), |Body(body)| {
            target.legacy(path, body)
        });
        target.still_answers();
    }
}

#[test]
fn webhook_bodies() {
    let target = FuzzTarget::start();
    let messages = prop::collection::vec(object(WEBHOOK_FIELDS), 0..3)
        .prop_map(|messages| format!("[{}]", messages.join(",")));
    hold(150, &nearly(messages), |Body(body)| {
        target.legacy("/webhook?event=msg.notify", body)
    });
    hold(150, &nearly(object(WEBHOOK_FIELDS)), |Body(body)| {
        target.legacy("/webhook?event=msg.offline", body)
    });
    for path in [
        "/webhook",
        "/webhook?event=user.onlinestatus",
        "/webhook?event=something.new",
    ] {
        let states = Just(r#"["ann-1-1-7-1-1"]"#.to_owned());
        hold(20, &nearly(states), |Body(body)| target.legacy(path, body));
    }
    hold(60, &any::<String>(), |event| {
        let request = target
            .server
            .http("POST", "/webhook")
            .query(&[("event", &event)])
            .body("[]");
        assert_done_or_refused(&target.request(request))
    });
    target.still_answers();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// Whatever an unknown field contains, the message is stored.
#[test]
fn unknown_fields_cost_no_message() {
    let target = FuzzTarget::start();
    let depth = || 1_usize..3000;
    let odd = prop_oneof![
        4 => odd_json(),
        1 => depth().prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        1 => depth().prop_map(|depth| "{\"a\":[".repeat(depth) + "1" + &"]}".repeat(depth)),
        1 => "\"(\\\\u[dD][89a-fA-F][0-9]{2}|\\\\\\\\|\\\\\"|x){0,5}\"",
        1 => "-?[1-9][0-9]{0,400}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,5})?",
    ];
    let odd = odd.prop_filter("JSON", |text| {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    });
    let seq = std::cell::Cell::new(0);
    hold(150, &(odd, any::<bool>()), |(odd, first)| {
        seq.set(seq.get() + 1);
        let seq = seq.get();
        let message = webhook_message("bob", "ann", 1, seq, 1000 + seq).to_string();
        let message = if first {
            message.replacen('{', &format!("{{\"zzz\":{odd},"), 1)
        } else {
            format!("{},\"zzz\":{odd}}}", &message[..message.len() - 1])
        };
        target.legacy(
            "/webhook?event=msg.notify",
            format!("[{message}]").into_bytes(),
        )?;
        let conversation = target.runtime.block_on(target.server.only("ann"));
        prop_assert_eq!(&conversation["last_msg_seq"], &json!(seq));
        Ok(())
    });
    target.still_answers();
}

#[test]
fn compressed_webhook_receivers() {
    let target = FuzzTarget::start();
    let list =
        prop::collection::vec(any::<String>(), 0..4).prop_map(|uids| json!(uids).to_string());
    let packed =
        (nearly(list), edits()).prop_map(|(Body(list), edits)| Body(edited(gzip(&list), edits)));
    hold(100, &packed, |Body(packed)| {
        let mut message = webhook_message("bob", "team", 2, 1, 11);
        message["compress"] = json!("gzip");
        message["compress_to_uids"] = json!(STANDARD.encode(packed));
        let body = message.to_string();
        let answer = target.request(
            target
                .server
                .http("POST", "/webhook?event=msg.offline")
                .body(body),
        );
        // The message is stored, whatever its receivers are.
        prop_assert!(answer.status == 200, "{answer:?}");
        Ok(())
    });
    target.still_answers();
}

#[test]
fn graphql_bodies() {
    let target = FuzzTarget::start();
    hold(200, &nearly(object(REQUEST)), |Body(body)| {
        target.graphql(body).map(drop)
    });
    target.still_answers();
}

#[test]
fn graphql_documents() {
    let target = FuzzTarget::start();
    let changed = (prop::sample::select(DOCUMENTS), edits()).prop_map(|(document, edits)| {
        String::from_utf8_lossy(&edited(document.as_bytes().to_vec(), edits)).into_owned()
    });
    let token = (word(TOKENS), prop::sample::select(BETWEEN_TOKENS))
        .prop_map(|(token, after)| token + after);
    let tokens = prop::collection::vec(token, 0..30).prop_map(|tokens| tokens.concat());
    hold(400, &prop_oneof![changed, tokens], |document| {
        target
            .graphql(json!({"query": document}).to_string().into_bytes())
            .map(drop)
    });
    target.still_answers();
}

#[test]
fn graphql_variables() {
    let target = FuzzTarget::start();
    target
        .runtime
        .block_on(target.server.send("bob", "ann", 1, "one"));
    hold(200, &object(VARIABLES), |variables| {
        let body = format!(
            "{{\"query\":{},\"variables\":{variables}}}",
            json!(WITH_VARIABLES)
        );
        target.graphql(body.into_bytes()).map(drop)
    });
    target.still_answers();
}

#[test]
fn graphql_variables_of_any_type_with_any_default() {
    let target = FuzzTarget::start();
    let types = [
        "Int",
        "Int!",
        "[Int]",
        "[[ID!]!]!",
        "Nope",
        "Nope!",
        "[Nope]",
        "[Query]",
        "Query",
        "[ChannelInput!]",
        "JSON",
    ];
    let defaults = [
        "",
        "= 1",
        "= 1e400",
        "= null",
        "= \"x\"",
        "= x",
        "= $b",
        "= [1]",
        "= [[null]]",
        "= {channelId: 1}",
        "= [{}]",
    ];
    for kind in types {
        for default in defaults {
            let document =
                format!("query ($a: {kind} {default}) {{ unreadSummary(uid: $a) {{ total }} }}");
            let body = json!({"query": document}).to_string();
            target
                .graphql(body.into_bytes())
                .unwrap_or_else(|error| panic!("{document}: {error}"));
        }
    }
    target.still_answers();
}

#[test]
fn versions_are_accepted_up_to_2_to_the_53() {
    let target = FuzzTarget::start();
    let number = prop_oneof![
        0..10_u64,
        (1_u64 << 53) - 3..(1_u64 << 53) + 3,
        any::<u64>()
    ];
    hold(100, &number, |number| {
        let query = "query ($version: UInt53!) { conversations(uid: \"ann\", version: $version) { version } }";
        let literal = format!("{{ conversations(uid: \"ann\", version: {number}) {{ version }} }}");
        for body in [
            json!({"query": query, "variables": {"version": number}}),
            json!({"query": literal}),
        ] {
            let said = target.graphql(body.to_string().into_bytes())?;
            prop_assert!(said.get("errors").is_none() == (number < 1 << 53), "{said}");
        }
        Ok(())
    });
}

#[test]
fn numeric_cursors_are_accepted_and_others_refused() {
    let target = FuzzTarget::start();
    target
        .runtime
        .block_on(target.server.send("bob", "ann", 1, "one"));
    let encoded = |text: String| URL_SAFE_NO_PAD.encode(text);
    let cursor = prop_oneof![
        any::<i64>().prop_map(move |seq| (encoded(format!("m1:{seq}")), true)),
        "m[0-9]?:?[-+ 0-9]{0,22}".prop_map(move |text| (encoded(text), false)),
        any::<String>().prop_map(move |text| (encoded(text), false)),
        any::<String>().prop_map(|text| (text, false)),
    ];
    let query = "query ($after: String, $before: String, $first: Int) { messages(uid: \"ann\", channel: {channelId: \"bob\",
        channelType: 1}, first: $first, after: $after, before: $before) { nodes { id } pageInfo { hasNextPage } } }";
    let two = (
        prop::option::of(cursor.clone()),
        prop::option::of(cursor),
        prop::option::of(0..3),
    );
    hold(200, &two, |(after, before, first)| {
        let is_number = [&after, &before]
            .into_iter()
            .flatten()
            .all(|(_, is_number)| *is_number);
        let text = |cursor: Option<(String, bool)>| cursor.map(|(text, _)| text);
        let variables = json!({"after": text(after), "before": text(before), "first": first});
        let said = target.graphql(
            json!({"query": query, "variables": variables})
                .to_string()
                .into_bytes(),
        )?;
        prop_assert!(!is_number || said.get("errors").is_none(), "{said}");
        Ok(())
    });
}

const MALFORMED: &str = ": :: ::: :1:2 x x:1 x:0:3 x:256:3 x:-1:3 x:1:-1 x:1: x::1 x:1:9223372036854775808 x:one:1 x:1:one x:1.0:1 x:1:1e3";

const MALFORMED_BY_A_CHARACTER: &[&str] = &[
    "",
    "x: 1:1",
    "x:1:1 ",
    "a\nb:1:1",
    "a\u{0}b:1:1",
    "a\u{85}b:1:1",
];

#[test]
fn well_formed_last_msg_seqs_are_parsed() {
    let well_formed = ("[^|\\p{Cc}]{1,60}", 1_i64..=255, 0_i64..).prop_map(|(id, kind, seq)| {
        let written = format!("{id}:{kind}:{seq}");
        (
            written,
            Some((ChannelRef::parse(id, kind).unwrap(), Seq(seq))),
        )
    });
    let malformed = prop_oneof![
        word(MALFORMED),
        prop::sample::select(MALFORMED_BY_A_CHARACTER).prop_map(str::to_owned),
        // An id may have 255 bytes.
        (256_usize..300).prop_map(|length| format!("{}:1:1", "x".repeat(length))),
    ];
    let part = prop_oneof![3 => well_formed, 1 => malformed.prop_map(|written| (written, None::<(ChannelRef, Seq)>))];
    hold(500, &prop::collection::vec(part, 0..12), |parts| {
        let text = parts
            .iter()
            .map(|(written, _)| written.as_str())
            .collect::<Vec<_>>()
            .join("|");
        // For a channel named twice, the last entry counts.
        let expected: HashMap<ChannelRef, Seq> =
            parts.into_iter().filter_map(|(_, meant)| meant).collect();
        prop_assert_eq!(parse_last_msg_seqs(&text), expected);
        Ok(())
    });
}

fn any_last_msg_seqs() -> impl Strategy<Value = String> {
    prop_oneof!["[a:|0-9+-]{0,60}", "[:|1é\u{0}\\n]{0,20}", any::<String>()]
}

#[test]
fn last_msg_seqs_parts_are_independent() {
    hold(
        500,
        &(any_last_msg_seqs(), any_last_msg_seqs()),
        |(one, other)| {
            let mut each = parse_last_msg_seqs(&one);
            each.extend(parse_last_msg_seqs(&other));
            prop_assert_eq!(parse_last_msg_seqs(&format!("{one}|{other}")), each);
            Ok(())
        },
    );
}

#[test]
fn last_msg_seqs_are_never_refused() {
    let target = FuzzTarget::start();
    target
        .runtime
        .block_on(target.server.send("bob", "ann", 1, "one"));
    let query =
        "query ($seqs: String) { conversations(uid: \"ann\", lastMsgSeqs: $seqs) { version } }";
    hold(100, &any_last_msg_seqs(), |seqs| {
        let body = json!({"uid": "ann", "last_msg_seqs": seqs}).to_string();
        let answer = target.request(target.server.http("POST", "/conversation/sync").body(body));
        prop_assert!(answer.status == 200, "{answer:?}");
        let said = target.graphql(
            json!({"query": query, "variables": {"seqs": seqs}})
                .to_string()
                .into_bytes(),
        )?;
        prop_assert!(said.get("errors").is_none(), "{said}");
        Ok(())
    });
}

/// In a separate process, because a stack overflow ends the process.
#[tokio::test]
async fn deeply_nested_documents_are_refused() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = Process::start(&database);
    let list = |depth: usize| "[".repeat(depth) + "1" + &"]".repeat(depth);
    for depth in [300, 1000, 3000, 10_000, 30_000] {
        for document in [
            "{a".repeat(depth),
            "{a".repeat(depth) + &"}".repeat(depth),
            format!("{{a(b:{})}}", list(depth)),
            // A carriage return ends a comment, too.
            format!("#\r{}", "{a".repeat(depth)),
            format!("#\r{{a(b:{})}}", list(depth)),
            // Three quotes that are not closed by three others are an empty string and the start of
            // the next string.
            format!("{{a(b:[\"\"\"x\" {}])}}", list(depth)),
        ] {
            let begins = document.get(..20).unwrap_or_default();
            let answer = server
                .post("/graphql", json!({"query": document}).to_string())
                .await;
            let answer = answer.unwrap_or_else(|error| panic!("{depth} times {begins}: {error}"));
            assert_eq!(
                answer.json()["errors"][0]["extensions"]["code"],
                "QUERY_TOO_COMPLEX",
                "{depth} times {begins}"
            );
        }
    }
    // Fragments in a chain, and in a cycle.
    let rules: [fn(usize) -> usize; 2] = [|number| number + 1, |number| (number + 1) % 2000];
    for next in rules {
        let fragments: String = (0..2000)
            .map(|number| format!("fragment f{number} on Q{{...f{}}}", next(number)))
            .collect();
        for query in ["{...f0}", "{__typename}"] {
            let answer = server
                .post(
                    "/graphql",
                    json!({"query": format!("{query}{fragments}")}).to_string(),
                )
                .await;
            let answer =
                answer.unwrap_or_else(|error| panic!("{query} and {}: {error}", &fragments[..40]));
            assert!(answer.status < 500, "{query}: {answer:?}");
        }
    }
    let (status, _) = server.get("/readyz").await;
    assert_eq!(status, 200);
}

/// Eight times the input must take about eight times as long, not sixty-four times. The best of
/// five runs counts, because other processes use the machine, too.
fn grows_linearly(
    what: &str,
    length: usize,
    input: impl Fn(usize) -> Vec<u8>,
    work: impl Fn(&[u8]),
) {
    let (short, long) = (input(length), input(8 * length));
    let time = |input: &[u8]| {
        let begun = Instant::now();
        work(input);
        begun.elapsed()
    };
    let best = (0..5).map(|_| time(&short)).min().unwrap();
    let limit = 24 * best + Duration::from_millis(10);
    // Enough as soon as one of the five is short enough.
    let mut times = Vec::new();
    while times.len() < 5 {
        let took = time(&long);
        if took < limit {
            return;
        }
        times.push(took);
    }
    panic!(
        "{what}: {} bytes take {best:?}, {} bytes {times:?}",
        short.len(),
        long.len()
    );
}

/// The name of an input, and a function that generates it with about this number of bytes.
type Shape = (&'static str, fn(usize) -> String);

#[test]
fn last_msg_seqs_take_linear_time() {
    let shapes: [Shape; 7] = [
        ("bars", |length| "|".repeat(length)),
        ("colons", |length| ":".repeat(length)),
        ("bars and colons", |length| ":|".repeat(length / 2)),
        ("one channel again and again", |length| {
            "a:1:1|".repeat(length / 6)
        }),
        ("many channels", |length| {
            (0..length / 10)
                .map(|number| format!("g{number}:2:1|"))
                .collect()
        }),
        ("a long number", |length| {
            format!("a:1:{}", "9".repeat(length))
        }),
        ("a long id", |length| {
            format!("{}:1:1", "a:".repeat(length / 2))
        }),
    ];
    for (what, shape) in shapes {
        grows_linearly(
            what,
            128 << 10,
            |length| shape(length).into_bytes(),
            |text| {
                std::hint::black_box(parse_last_msg_seqs(std::str::from_utf8(text).unwrap()));
            },
        );
    }
}

#[test]
fn json_bodies_take_linear_time() {
    let target = FuzzTarget::start();
    let shapes: [Shape; 18] = [
        ("opening brackets", |length| "[".repeat(length)),
        ("opening braces", |length| "{\"a\":".repeat(length / 5)),
        ("brackets", |length| {
            "[".repeat(length / 2) + &"]".repeat(length / 2)
        }),
        ("brackets of an unknown field", |length| {
            format!(
                "{{\"zzz\":{}{}}}",
                "[".repeat(length / 2),
                "]".repeat(length / 2)
            )
        }),
        ("braces of an unknown field", |length| {
            let (open, close) = ("{\"a\":".repeat(length / 6), "}".repeat(length / 6));
            format!("{{\"zzz\":{open}1{close}}}")
        }),
        ("halves of surrogate pairs", |length| {
            format!("{{\"zzz\":\"{}\"}}", "\\ud800".repeat(length / 6))
        }),
        ("huge numbers", |length| {
            format!("{{\"zzz\":[{}1]}}", "1e999,".repeat(length / 6))
        }),
        ("commas", |length| ",".repeat(length)),
        ("spaces", |length| " ".repeat(length)),
        ("quotes", |length| "\"".repeat(length)),
        ("backslashes", |length| {
            format!("{{\"uid\":\"{}\"}}", "\\".repeat(length / 2 * 2))
        }),
        ("a backslash that nobody closes", |length| {
            format!("{{\"uid\":\"{}", "\\".repeat(length))
        }),
        ("surrogates", |length| {
            format!("{{\"uid\":\"{}\"}}", "\\ud83d\\ude00".repeat(length / 12))
        }),
        ("a long number", |length| {
            format!("{{\"version\":{}}}", "9".repeat(length))
        }),
        ("a long fraction", |length| {
            format!("{{\"version\":0.{}1}}", "0".repeat(length))
        }),
        ("one key again and again", |length| {
            format!("{{{}\"uid\":7}}", "\"uid\":\"ann\",".repeat(length / 12))
        }),
        ("many keys", |length| {
            let keys: String = (0..length / 10)
                .map(|number| format!("\"k{number}\":1,"))
                .collect();
            format!("{{{keys}\"uid\":7}}")
        }),
        ("many objects", |length| {
            format!("{{\"larges\":[{}{{}}]}}", "{},".repeat(length / 3))
        }),
    ];
    for (what, shape) in shapes {
        grows_linearly(
            what,
            128 << 10,
            |length| shape(length).into_bytes(),
            |body| {
                target.legacy("/conversation/sync", body.to_vec()).unwrap();
            },
        );
    }
    grows_linearly(
        "many texts",
        128 << 10,
        |length| {
            format!(
                "{{\"channel_id\":\"g1\",\"subscribers\":[{}7]}}",
                "\"\",".repeat(length / 3)
            )
            .into_bytes()
        },
        |body| {
            target
                .legacy("/channel/subscriber_add", body.to_vec())
                .unwrap()
        },
    );
}

#[test]
fn webhook_bodies_take_linear_time() {
    let target = FuzzTarget::start();
    let shapes: [Shape; 5] = [
        ("opening brackets", |length| "[".repeat(length)),
        ("numbers", |length| {
            format!("[{}1]", "1,".repeat(length / 2))
        }),
        ("empty objects", |length| {
            format!("[{}{{}}]", "{},".repeat(length / 3))
        }),
        ("one message again and again", |length| {
            let message = webhook_message("bob", "team", 2, 1, 11).to_string();
            format!(
                "[{}]",
                vec![message.as_str(); length / message.len()].join(",")
            )
        }),
        ("one message with many keys", |length| {
            let keys: String = (0..length / 10)
                .map(|number| format!("\"k{number}\":1,"))
                .collect();
            format!("[{{{keys}\"uid\":7}}]")
        }),
    ];
    for (what, shape) in shapes {
        grows_linearly(
            what,
            128 << 10,
            |length| shape(length).into_bytes(),
            |body| {
                target
                    .legacy("/webhook?event=msg.notify", body.to_vec())
                    .unwrap();
            },
        );
    }
    let packed = |length: usize| {
        let list = format!("[{}\"\"]", "\"\",".repeat(length / 3));
        json!({"compress": "gzip", "compress_to_uids": STANDARD.encode(gzip(list.as_bytes()))})
            .to_string()
            .into_bytes()
    };
    let listed = |length: usize| {
        format!("{{\"to_uids\":[{}\"\"]}}", "\"\",".repeat(length / 3)).into_bytes()
    };
    let offline = |body: &[u8]| {
        target
            .legacy("/webhook?event=msg.offline", body.to_vec())
            .unwrap()
    };
    grows_linearly("packed receivers", 256 << 10, packed, offline);
    grows_linearly("receivers", 128 << 10, listed, offline);
}

#[test]
fn graphql_documents_take_linear_time() {
    let target = FuzzTarget::start();
    let shapes: [Shape; 16] = [
        ("opening braces", |length| "{a".repeat(length / 2)),
        ("opening brackets", |length| {
            format!("{{a(b:{}", "[".repeat(length))
        }),
        ("quotes", |length| format!("{{a(b:[{}", "\"".repeat(length))),
        ("backslashes", |length| {
            format!("{{a(b:\"{}\")}}", "\\".repeat(length / 2 * 2))
        }),
        ("a block string that nobody closes", |length| {
            format!("{{a(b:\"\"\"{}", "x".repeat(length))
        }),
        ("comments", |length| {
            format!("{{a{}}}", "#\n".repeat(length / 2))
        }),
        ("commas", |length| format!("{{a{}}}", ",".repeat(length))),
        ("one long name", |length| {
            format!("{{{}}}", "a".repeat(length))
        }),
        ("one long number", |length| {
            format!("{{a(b:{})}}", "9".repeat(length))
        }),
        ("fields", |length| {
            format!("{{{}}}", "a ".repeat(length / 2))
        }),
        ("aliases", |length| {
            format!("{{{}}}", "a:b ".repeat(length / 4))
        }),
        ("spreads", |length| {
            format!("{{{}}}", "...a ".repeat(length / 5))
        }),
        ("directives", |length| {
            format!("{{a{}}}", "@x ".repeat(length / 3))
        }),
        ("arguments", |length| {
            format!("{{a({})}}", "b:1 ".repeat(length / 4))
        }),
        ("values", |length| {
            format!("{{a(b:[{}])}}", "1 ".repeat(length / 2))
        }),
        ("variables", |length| {
            let variables: String = (0..length / 12)
                .map(|number| format!("$v{number}:Int "))
                .collect();
            format!("query({variables}){{__typename}}")
        }),
    ];
    let query = |document: String| json!({"query": document}).to_string().into_bytes();
    let ask = |body: &[u8]| drop(target.graphql(body.to_vec()).unwrap());
    for (what, shape) in shapes {
        grows_linearly(what, 7 << 10, |length| query(shape(length)), ask);
    }
    // Short inputs, because reading is not the main cost of these.
    let lacking = |length: usize| {
        format!(
            "{{a({}){}}}",
            "b:1 ".repeat(length / 8),
            " a".repeat(length / 4)
        )
    };
    grows_linearly(
        "arguments that many fields lack",
        256,
        |length| query(lacking(length)),
        ask,
    );
    let conflicts = |length: usize| {
        let operations: String = (0..length / 34)
            .map(|number| format!("query q{number}{{...f}}"))
            .collect();
        format!(
            "{operations}fragment f on Query{{{}}}",
            "x:a,x:b,".repeat(length / 16)
        )
    };
    grows_linearly(
        "conflicts that many operations share",
        900,
        |length| query(conflicts(length)),
        ask,
    );
}

/// Returns every key with its section.
fn known_keys() -> Vec<(String, String)> {
    let all = serde_json::to_value(Settings::default()).unwrap();
    let sections = all.as_object().unwrap().iter();
    sections
        .flat_map(|(section, keys)| {
            keys.as_object()
                .unwrap()
                .keys()
                .map(move |key| (section.clone(), key.clone()))
        })
        .collect()
}

/// Returns whether a configuration error names the line or the key.
fn names_a_key(error: &str) -> bool {
    let named = |(section, key): (String, String)| {
        error.starts_with(&section) || error.contains(&format!("{section}.{key}"))
    };
    error.contains(" at line ")
        || ["unknown key ", "env variable "]
            .iter()
            .any(|words| error.starts_with(words))
        || known_keys().into_iter().any(named)
}

/// Asserts that a file is accepted, and then printed so that it can be read again, or refused with
/// the key or the line.
fn assert_accepted_or_explained(path: &Path, file: &[u8]) -> Result<(), TestCaseError> {
    let load = |file: &[u8]| {
        std::fs::write(path, file).unwrap();
        Settings::load(Some(path)).map_err(|error| error.to_string())
    };
    let settings = match load(file) {
        Ok(settings) => settings,
        Err(error) => {
            prop_assert!(names_a_key(&error), "neither key nor line: {error}");
            return Ok(());
        }
    };
    let printed = settings.to_toml().unwrap();
    // Secrets are not printed.
    if !printed.contains("***") {
        let again = load(printed.as_bytes()).map(|settings| settings.to_toml().unwrap());
        prop_assert_eq!(again, Ok(printed));
    }
    Ok(())
}

const ODD_TOML: &str = r#"0 1 -1 -0 2.5 -0.0 1e19 1e400 inf -inf nan 0xFF 86400 86401 4294967295 4294967296 9223372036854775807
    9223372036854775808 true '' 'x' '-1' '1e3' '18446744073709551615' "\u0000" """x""" [] [1] [[[]]] {} {a=1} {v1=1} 1979-05-27
    1979-05-27T07:32:00Z"#;

const LINES: &str = r#"[server] [limits] [[limits]] [database.url] [nope] [a.b.c] [""] server=1 limits=[1,2] log={level='x'}
    listen='x' listen.x=1 msg_count=3 max_messages_per_conversation=3 max_messages_per_conversation='many' ""=1 'server.listen'='x' 'server[0]'='x' 'server[-1]'='x'
    'server[9223372036854775807]'=1 'server[-9223372036854775808]'=1 'a[1][2].b'=1 a.b.c.d=1 x=""" x=''' #é = [ x="#;

#[test]
fn any_config_file_is_accepted_or_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given.toml");
    let shipped = include_str!("../../../recents.toml")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    hold(300, &nearly(Just(shipped)), |Body(file)| {
        assert_accepted_or_explained(&path, &file)
    });
    let lines = prop::collection::vec(word(LINES), 0..5).prop_map(|lines| lines.join("\n"));
    hold(300, &lines, |file| {
        assert_accepted_or_explained(&path, file.as_bytes())
    });
}

#[test]
fn any_config_value_is_accepted_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given.toml");
    for (section, key) in known_keys() {
        for value in ODD_TOML.split_whitespace() {
            let file = format!("[{section}]\n{key} = {value}\n");
            assert_accepted_or_explained(&path, file.as_bytes())
                .unwrap_or_else(|error| panic!("{file}{error}"));
        }
    }
}

#[test]
fn any_environment_is_accepted_or_explained() {
    let folder = tempfile::tempdir().unwrap();
    let known: Vec<String> = known_keys()
        .into_iter()
        .map(|(section, key)| format!("{section}__{key}").to_uppercase())
        .collect();
    let odd = [
        "",
        "SERVER",
        "LISTEN",
        "NOPE",
        ".",
        "A.B",
        "SERVER[0]",
        "SERVER[9223372036854775807]",
        "X[-9223372036854775808]",
        "é",
    ];
    let odd = prop::collection::vec(prop::sample::select(odd.to_vec()), 0..3)
        .prop_map(|words| words.join("__"));
    let name =
        prop_oneof![prop::sample::select(known), odd].prop_map(|name| format!("RECENTS__{name}"));
    let values = [
        "",
        "0",
        "-1",
        "2",
        "1e3",
        "true",
        "18446744073709551615",
        "18446744073709551616",
        "sqlite://x",
        "v1",
        "json",
    ];
    let value = prop_oneof![
        prop::sample::select(values.to_vec()).prop_map(|value| Body(value.as_bytes().to_vec())),
        prop::collection::vec(1..=255_u8, 0..12).prop_map(Body),
    ];
    hold(
        60,
        &prop::collection::vec((name, value), 1..3),
        |variables| {
            let variables = variables
                .into_iter()
                .map(|(name, Body(value))| (name, OsString::from_vec(value)));
            let output = process::recents()
                .current_dir(folder.path())
                .arg("config")
                .envs(variables)
                .output()
                .unwrap();
            let (printed, said) = (stdout(&output), stderr(&output));
            match output.status.code() {
                Some(0) => prop_assert!(printed.parse::<toml::Table>().is_ok(), "{printed}"),
                Some(2) => prop_assert!(
                    names_a_key(said.strip_prefix("error: ").unwrap_or_default()),
                    "{said}"
                ),
                code => return Err(TestCaseError::fail(format!("{code:?}: {said}"))),
            }
            Ok(())
        },
    );
}

#[test]
fn deeply_nested_variable_is_an_unknown_key() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("RECENTS__{}X", "X__".repeat(40_000));
    let output = run(folder.path(), &["config"], &[(name.as_str(), "1")]);
    assert_eq!(output.status.code(), Some(2), "{:?}", output.status);
    assert!(stderr(&output).starts_with("error: unknown key x.x"));
}
