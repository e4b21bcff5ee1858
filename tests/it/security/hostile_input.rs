//! Hostile texts in every place where a caller's bytes are parsed. The server is a separate
//! process, because a stack overflow ends the process. Every request is answered, with 4xx where
//! the text is not JSON, and the process survives.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use recents::rest::wukong::grpc::{EventReq, EventResp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::support::hostile_target::{HostileTarget, MANAGER};
use crate::support::hostile_texts::{RAW_VALUE, is_json, raw_values, texts, within};
use crate::support::server::{message, webhook_message};
use crate::support::tokens::{SECRET, in_seconds, token};
use crate::support::websocket::{Received, Socket};

/// POST routes, each with a field that must be a string or a list of strings.
const ROUTES: [(&str, &str); 20] = [
    ("/conversation/sync", "uid"),
    ("/conversation/channels", "uid"),
    ("/conversation/syncByChannels", "uid"),
    ("/conversation/syncMessages", "uid"),
    ("/conversations/setUnread", "uid"),
    ("/conversations/clearUnread", "uid"),
    ("/conversations/delete", "uid"),
    ("/message/send", "channel_id"),
    ("/message/sendbatch", "subscribers"),
    ("/channel", "channel_id"),
    ("/channel/info", "channel_id"),
    ("/channel/delete", "channel_id"),
    ("/channel/messagesync", "login_uid"),
    ("/channel/subscriber_remove_all", "channel_id"),
    ("/channel/subscriber_add", "channel_id"),
    ("/channel/subscriber_remove", "channel_id"),
    ("/datasource", "cmd"),
    ("/webhook?event=msg.offline", "to_uids"),
    ("/webhook?event=msg.notify", ""),
    ("/webhook/hush?event=msg.notify", ""),
];

#[tokio::test]
async fn request_bodies() {
    let target = HostileTarget::start(&[]).await;
    let secret = HostileTarget::start(&[("RECENTS__INGEST__WEBHOOK_SECRET", MANAGER)]).await;
    for (path, field) in ROUTES {
        let target = if path.starts_with("/webhook/") {
            &secret
        } else {
            &target
        };
        // The longest text, once.
        let bytes = if path == "/conversation/sync" {
            1 << 20
        } else {
            100_000
        };
        let is_list = path.ends_with("msg.notify");
        for (name, text) in texts(bytes) {
            let what = format!("{path}: {name}");
            for template in ["@", "{\"x\":@}", "[{\"x\":@}]"] {
                let body = within(template, &text);
                let is_right = is_json(&body) && (body[0] == b'[') == is_list;
                if is_right {
                    target.post(&what, path, body).await;
                } else {
                    target.refuses(&what, path, body).await;
                }
            }
            if !field.is_empty() {
                target
                    .refuses(&what, path, within(&format!("{{\"{field}\":@}}"), &text))
                    .await;
            }
        }
        target.still_answers().await;
    }
}

#[tokio::test]
async fn url_parameters() {
    let target = HostileTarget::start(&[]).await;
    let query = "query ($uid: ID) { conversations(uid: $uid) { version } }";
    for (name, text) in texts(4000) {
        let encoded: String = text.iter().map(|byte| format!("%{byte:02x}")).collect();
        for path in [
            format!("/conversations?uid={encoded}"),
            format!("/channel/max_message_seq?login_uid=ann&channel_id=x&channel_type={encoded}"),
            format!("/channel/max_message_seq?login_uid=ann&channel_type=2&channel_id={encoded}"),
            format!("/graphql?query={encoded}"),
            format!("/graphql?query=%7B__typename%7D&variables={encoded}"),
            format!("/graphql?query=%7B__typename%7D&extensions={encoded}"),
            format!("/graphql?query=%7B__typename%7D&operationName={encoded}"),
            format!("/webhook/{encoded}?event=msg.notify"),
            format!("/docs/{encoded}"),
            format!("/nowhere?{encoded}={encoded}"),
        ] {
            target
                .ask(
                    &format!("{name} in {}", path.get(..20).unwrap_or(&path)),
                    target.http("GET", &path),
                )
                .await;
        }
        let variables = within("{\"uid\":@}", &text);
        let request = target.http("GET", "/graphql").query(&[
            ("query", query),
            ("variables", &String::from_utf8_lossy(&variables)),
        ]);
        target.ask(name, request).await;
        let webhook = target
            .http("POST", &format!("/webhook?event={encoded}"))
            .body("[]");
        target.ask(name, webhook).await;
    }
    target.still_answers().await;
}

#[tokio::test]
async fn headers() {
    let target = HostileTarget::start(&[("RECENTS__SERVER__TRUSTED_PROXIES", "127.0.0.1")]).await;
    let names = [
        "accept",
        "content-type",
        "if-none-match",
        "last-event-id",
        "x-request-id",
        "x-forwarded-for",
        "origin",
        "token",
    ];
    for (name, text) in texts(8000) {
        let text: Vec<u8> = text
            .into_iter()
            .filter(|byte| *byte >= 0x20 && *byte != 0x7f)
            .collect();
        for header in names {
            for value in [
                text.clone(),
                text.split(|byte| *byte == b'[')
                    .collect::<Vec<_>>()
                    .join(b",".as_slice()),
            ] {
                let body = json!({"query": "{ __typename }"}).to_string();
                let value = reqwest::header::HeaderValue::from_bytes(&value).unwrap();
                let request = target
                    .process
                    .http("POST", "/graphql")
                    .header("content-type", "application/json");
                let request = if header == "content-type" {
                    target.process.http("POST", "/graphql")
                } else {
                    request
                };
                target
                    .ask(
                        &format!("{name} in {header}"),
                        request.header(header, value).body(body),
                    )
                    .await;
            }
        }
    }
    target.still_answers().await;
}

/// The same bytes repeated, compressed.
pub fn gzip(bytes: &[u8], times: usize) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..times {
        std::io::Write::write_all(&mut packer, bytes).unwrap();
    }
    packer.finish().unwrap()
}

#[tokio::test]
async fn compressed_receivers() {
    let target = HostileTarget::start(&[]).await;
    let before = target.process.memory();
    let packed = |packed: &[u8]| {
        let mut message = webhook_message("bob", "team", 2, 1, 11);
        (message["compress"], message["compress_to_uids"]) =
            (json!("gzip"), json!(STANDARD.encode(packed)));
        message.to_string().into_bytes()
    };
    let path = "/webhook?event=msg.offline";
    for (name, text) in texts(1 << 20) {
        // The message is stored, whatever its receivers are.
        target.accepts(name, path, packed(&gzip(&text, 1))).await;
        target.accepts(name, path, packed(&text)).await;
        let mut message = webhook_message("bob", "team", 2, 1, 11);
        message["compress"] = json!("gzip");
        let body = message.to_string();
        let template = format!("{},\"compress_to_uids\":@}}", &body[..body.len() - 1]);
        let body = within(&template, &text);
        if is_json(&body) {
            target.accepts(name, path, body).await;
        } else {
            target.refuses(name, path, body).await;
        }
    }
    // Half a gigabyte in a body that is within the limit.
    target
        .accepts(
            "a gzip bomb",
            path,
            packed(&gzip(&[b'['; 1 << 16], 1 << 13)),
        )
        .await;
    let grew = target.process.memory().saturating_sub(before);
    assert!(grew < 200_000, "{grew} KiB more");
    target.still_answers().await;
}

/// Sends bytes unchanged.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = EventResp;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = EventResp;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<EventResp>, tonic::Status> {
        Ok(prost::Message::decode(from).ok())
    }
}

#[tokio::test]
async fn webhooks_over_grpc() {
    // The port was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let target = HostileTarget::start(&[("RECENTS__INGEST__GRPC_LISTEN", &address)]).await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let path = || {
        tonic::codegen::http::uri::PathAndQuery::from_static("/wkhook.WebhookService/SendWebhook")
    };
    let send = async |bytes: Vec<u8>| {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        client
            .unary(tonic::Request::new(bytes), path(), RawCodec)
            .await
            .map(tonic::Response::into_inner)
    };
    let event = |event: &str, data: Vec<u8>| {
        prost::Message::encode_to_vec(&EventReq {
            event: event.to_owned(),
            data: data.into(),
        })
    };
    for (name, text) in texts(1 << 20) {
        for (kind, template) in [
            ("msg.notify", "@"),
            ("msg.notify", "[{\"x\":@}]"),
            ("msg.offline", "{\"to_uids\":@}"),
            ("x", "@"),
        ] {
            let data = within(template, &text);
            // Elements that are not messages are skipped.
            let is_right = kind == "x" || kind == "msg.notify" && data[0] == b'[' && is_json(&data);
            let answer = send(event(kind, data))
                .await
                .unwrap_or_else(|status| panic!("{name}: {status:?}"));
            assert!(
                is_right == (answer.status == 1) && is_right == answer.data.is_empty(),
                "{name} in {template}: {answer:?}"
            );
        }
    }
    for (name, bytes) in [
        ("groups in groups", [0x1b].repeat(1 << 20)),
        (
            "groups that end",
            [[0x1b].repeat(1 << 19), [0x1c].repeat(1 << 19)].concat(),
        ),
        (
            "a length beyond all",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(),
        ),
        ("a number without end", [0xff].repeat(1 << 20)),
        ("no UTF-8", b"\x0a\x02\xff\xfe".to_vec()),
        ("a field of another kind", b"\x08\x01\x10\x01".to_vec()),
    ] {
        let status = send(bytes).await.expect_err(name);
        assert_ne!(
            status.code(),
            tonic::Code::Unavailable,
            "{name}: {status:?}"
        );
    }
    let good = json!([webhook_message("bob", "ann", 1, 1, 11)]).to_string();
    assert_eq!(
        send(event("msg.notify", good.into_bytes()))
            .await
            .unwrap()
            .status,
        1
    );
    target.still_answers().await;
}

/// A hostile payload is stored, and returned through every interface.
#[tokio::test]
async fn stored_payloads() {
    let target = HostileTarget::start(&[]).await;
    let payloads = texts(200_000);
    let messages = |peer: &str| {
        let (target, payloads) = (&target, &payloads);
        let peer = peer.to_owned();
        async move {
            for (number, (name, payload)) in payloads.iter().enumerate() {
                let number = number as i64 + 1;
                let mut sent = message("bob", &peer, 1, name);
                let mut hook =
                    webhook_message("bob", &format!("hooked-{peer}"), 1, number, 100 + number);
                (sent["payload"], hook["payload"]) = (
                    json!(STANDARD.encode(payload)),
                    json!(STANDARD.encode(payload)),
                );
                let (status, text) = target
                    .post(name, "/message/send", sent.to_string().into_bytes())
                    .await;
                assert_eq!(status, 200, "{name}: {text}");
                let (status, text) = target
                    .post(
                        name,
                        "/webhook?event=msg.notify",
                        json!([hook]).to_string().into_bytes(),
                    )
                    .await;
                assert_eq!(status, 200, "{name}: {text}");
                let input = json!({"fromUid": "bob", "channel": {"channelId": format!("graphql-{peer}"), "channelType": 1}, "payload": STANDARD.encode(payload)});
                target.graphql(
                    "mutation ($a: SendMessageInput!) { sendMessage(input: $a) { message { content } } }",
                    json!({"a": input}),
                )
                .await;
            }
        }
    };
    messages("ann").await;
    for uid in ["ann", "hooked-ann", "graphql-ann"] {
        let sync = json!({"uid": uid, "msg_count": 100}).to_string();
        let (status, text) = target
            .post(uid, "/conversation/sync", sync.into_bytes())
            .await;
        assert_eq!(
            (status, text.matches("\"payload\":").count()),
            (200, payloads.len()),
            "{uid}"
        );
        let history =
            json!({"login_uid": uid, "channel_id": "bob", "channel_type": 1, "limit": 100})
                .to_string();
        let (status, text) = target
            .post(uid, "/channel/messagesync", history.into_bytes())
            .await;
        assert_eq!(
            (status, text.matches("\"payload\":").count()),
            (200, payloads.len()),
            "{uid}"
        );
        for query in [
            "query ($u: ID) { conversations(uid: $u, msgCount: 100) { conversations { recents(last: 100) { content } } } }",
            "query ($u: ID) { conversationList(uid: $u) { nodes { recents(last: 100) { content } } } }",
            "query ($u: ID) { conversation(uid: $u, channel: {channelId: \"bob\", channelType: 1}) { recents(last: 100) { content } } }",
            "query ($u: ID) { messages(uid: $u, channel: {channelId: \"bob\", channelType: 1}, last: 100) { nodes { content } } }",
        ] {
            let text = target.graphql(query, json!({"u": uid})).await;
            assert_eq!(
                text.matches("{\"content\":").count(),
                payloads.len(),
                "{query}"
            );
            // A private key is a key.
            assert!(
                text.contains(&json!({"content": {RAW_VALUE: "\"w3\""}}).to_string()),
                "{query}"
            );
        }
        let ids = "query ($u: ID) { messages(uid: $u, channel: {channelId: \"bob\", channelType: 1}, last: 100) { nodes { id } } }";
        let ids: Value =
            serde_json::from_str(&target.graphql(ids, json!({"u": uid})).await).unwrap();
        let ids: Vec<&Value> = ids["data"]["messages"]["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| &node["id"])
            .collect();
        for id in &ids {
            target
                .graphql(
                    "query ($id: ID!) { node(id: $id) { ... on Message { content } } }",
                    json!({"id": id}),
                )
                .await;
        }
        target
            .graphql(
                "query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Message { content } } }",
                json!({"ids": ids}),
            )
            .await;

        let added = "subscription ($u: ID) { messageAdded(uid: $u, channel: {channelId: \"bob\", channelType: 1}, after: 0) { content } }";
        let changes = "subscription ($u: ID) { conversationChanges(uid: $u, msgCount: 100) { conversations { recents(last: 100) { content } } } }";
        for query in [added, changes] {
            let body = json!({"query": query, "variables": {"u": uid}});
            let request = target
                .http("POST", "/graphql")
                .header("content-type", "application/json");
            let mut response = request
                .header("accept", "text/event-stream")
                .body(body.to_string())
                .send()
                .await
                .unwrap();
            let mut told = Vec::new();
            while String::from_utf8_lossy(&told)
                .matches("{\"content\":")
                .count()
                < payloads.len()
            {
                let chunk =
                    tokio::time::timeout(std::time::Duration::from_secs(10), response.chunk())
                        .await;
                told.extend_from_slice(
                    &chunk.expect("it says nothing").unwrap().expect("it ended"),
                );
            }
            let mut socket = Socket::open_initialised(&target.process.url).await;
            socket
                .send_text(
                    json!({"type": "subscribe", "id": "1", "payload": body})
                        .to_string()
                        .as_bytes(),
                )
                .await;
            let mut told = 0;
            while told < payloads.len() {
                let Received::Text(text) = socket.receive().await else {
                    panic!("{query}")
                };
                told += text.matches("{\"content\":").count();
            }
        }
    }
    target.still_answers().await;
}

/// Returns a token of these parts with a valid signature.
fn signed(header: &[u8], claims: &[u8]) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let signature =
        jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
            .unwrap();
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn tokens() {
    let target = HostileTarget::start(&[
        ("RECENTS__AUTH__JWT__SECRET", SECRET),
        ("RECENTS__AUTH__MANAGER_TOKEN", MANAGER),
    ])
    .await;
    let query = json!({"query": "{ unreadSummary { total } }"}).to_string();
    let ask = async |what: &str, token: &str| {
        let request = target
            .process
            .http("POST", "/graphql")
            .header("content-type", "application/json");
        target
            .ask(
                what,
                request
                    .header("authorization", format!("Bearer {token}"))
                    .body(query.clone()),
            )
            .await
    };
    let good = json!({"sub": "ann", "exp": in_seconds(3600)}).to_string();
    let (header, claims) = (br#"{"alg":"HS256"}"#.as_slice(), good.as_bytes());
    assert_eq!(ask("a good one", &signed(header, claims)).await.0, 200);
    let open_claims = format!("{},\"x\":@}}", &good[..good.len() - 1]);
    for bytes in [10_000, 200_000] {
        for (name, text) in texts(bytes) {
            for (template, is_header) in [
                ("@", true),
                ("{\"alg\":@}", true),
                ("{\"alg\":\"HS256\",\"kid\":@}", true),
                ("{\"alg\":\"HS256\",\"jwk\":@}", true),
                ("{\"alg\":\"HS256\",\"x\":@}", true),
                ("@", false),
                ("{\"sub\":@}", false),
                (open_claims.as_str(), false),
            ] {
                let part = within(template, &text);
                let token = if is_header {
                    signed(&part, claims)
                } else {
                    signed(header, &part)
                };
                let (status, answer) = ask(name, &token).await;
                // Unknown claims belong to the issuer.
                let is_aside = ["\"x\"", "\"kid\"", "\"jwk\""]
                    .iter()
                    .any(|field| template.contains(field));
                let is_as_expected = [401, 431].contains(&status) || is_aside && status == 200;
                assert!(is_as_expected, "{name} in {template}: {status} {answer}");
            }
        }
    }
    // Five megabytes are more than headers may have: the connection may close while the client is
    // still sending.
    let address = target.process.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let part = URL_SAFE_NO_PAD.encode("[".repeat(5 << 20));
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {part}.{part}.x\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(ask("a good one", &token("ann")).await.0, 200);
    target.still_answers().await;
}

/// With the private key of a JSON library, a caller could change what the text of another field
/// means.
#[tokio::test]
async fn private_json_keys_have_no_meaning() {
    let target = HostileTarget::start(&[]).await;
    let sent = message("w1", "w3", 1, "for w3 alone").to_string();
    assert_eq!(
        target
            .post("a send", "/message/send", sent.into_bytes())
            .await
            .0,
        200
    );
    for key in [RAW_VALUE, "$serde_json::private::Number"] {
        let uid = json!({ key: "\"w3\"" });
        let (status, text) = target
            .post(
                key,
                "/conversation/sync",
                json!({"uid": uid}).to_string().into_bytes(),
            )
            .await;
        assert_eq!(
            (status, text.as_str()),
            (400, r#"{"msg":"uid must be a string","status":400}"#),
            "{key}"
        );
        let body = json!({ key: json!({"uid": "w3"}).to_string() }).to_string();
        let (status, text) = target
            .post(key, "/conversation/sync", body.into_bytes())
            .await;
        assert_eq!((status, text.as_str()), (200, "[]"), "{key}: nobody's list");
        let query = "query ($uid: ID) { conversations(uid: $uid) { conversations { channelId } } }";
        for variables in [json!({"uid": uid}), json!({"uid": [uid]})] {
            let body = json!({"query": query, "variables": variables}).to_string();
            let (_, text) = target.post(key, "/graphql", body.into_bytes()).await;
            assert!(
                text.contains("\"errors\":") && !text.contains("w1"),
                "{key}: {text}"
            );
        }
        let body = json!({"query": query, "variables": { key: json!({"uid": "w3"}).to_string() }})
            .to_string();
        let (_, text) = target.post(key, "/graphql", body.into_bytes()).await;
        assert!(
            text.contains("\"errors\":") && !text.contains("w1"),
            "{key}: {text}"
        );
    }
    // As it was reported.
    let report = format!("{{\"uid\":\"u\",\"x\":{}}}", raw_values(17 << 10));
    let (status, text) = target
        .post("the report", "/conversation/sync", report.into_bytes())
        .await;
    assert_eq!(
        (status, text.as_str()),
        (200, "[]"),
        "a field that nobody knows, with a text in it"
    );
    target.still_answers().await;
}
