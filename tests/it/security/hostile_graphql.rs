//! Hostile texts in everything that GraphQL parses: bodies, documents, variables, IDs, cursors, and
//! WebSocket messages. The server is a separate process.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::hostile_target::{HostileTarget, MANAGER};
use crate::support::hostile_texts::{documents, texts, within};
use crate::support::websocket::{Received, Socket};

#[tokio::test]
async fn request_bodies() {
    let target = HostileTarget::start(&[("RECENTS__LIMITS__BATCH_OPERATIONS", "10")]).await;
    let uid = json!("query ($a: ID) { conversations(uid: $a) { version } }");
    let types = json!(
        "query ($a: [Int!]) { conversations(uid: \"ann\", excludeChannelTypes: $a) { version } }"
    );
    let channel =
        json!("query ($a: ChannelInput!) { conversation(uid: \"ann\", channel: $a) { id } }");
    let input =
        json!("mutation ($a: SendMessageInput!) { sendMessage(input: $a) { message { id } } }");
    for (name, text) in texts(200_000) {
        // Values that must be a string, an object or a list, but are not.
        target
            .refuses(name, "/graphql", within("{\"query\":@}", &text))
            .await;
        // An array is a batch with a response for each operation.
        for template in ["@", "[@]"] {
            let (_, answer) = target.post(name, "/graphql", within(template, &text)).await;
            assert!(answer.contains("\"errors\":"), "{name}: {answer}");
        }
        for template in [
            "{\"query\":\"{__typename}\",\"x\":@}",
            "{\"query\":\"{__typename}\",\"variables\":@}",
            "{\"query\":\"{__typename}\",\"variables\":{\"x\":@}}",
            "{\"query\":\"{__typename}\",\"extensions\":@}",
            "{\"query\":\"{__typename}\",\"extensions\":{\"persistedQuery\":@}}",
            "{\"query\":\"{__typename}\",\"extensions\":{\"persistedQuery\":{\"version\":1,\"sha256Hash\":@}}}",
            "{\"query\":\"{__typename}\",\"operationName\":@}",
            "[{\"query\":\"{__typename}\"},{\"query\":\"{__typename}\",\"variables\":{\"x\":@}}]",
        ] {
            target.post(name, "/graphql", within(template, &text)).await;
        }
        for query in [&uid, &types, &channel, &input] {
            for value in ["@", "[@]", "{\"channelId\":@,\"channelType\":1}"] {
                let template = format!("{{\"query\":{query},\"variables\":{{\"a\":{value}}}}}");
                let (_, answer) = target
                    .post(name, "/graphql", within(&template, &text))
                    .await;
                assert!(
                    answer.contains("\"errors\":"),
                    "{name} in {template}: {answer}"
                );
            }
        }
    }
    target.still_answers().await;
}

/// Returns whether a response reports a mistake, where the document has one. async-graphql accepts
/// any value for the `if` of a directive.
fn is_refused(depth: usize, name: &str, answer: &str) -> bool {
    depth == 15
        || ["braces in a string", "a list in a directive"].contains(&name)
        || answer.contains("\"errors\":")
}

#[tokio::test]
async fn graphql_documents() {
    let target = HostileTarget::start(&[]).await;
    // Up to the depth that the parser accepts, and beyond.
    for depth in [15, 100, 180, 195, 199, 200, 201, 1000, 15_000] {
        for (name, document) in documents(depth) {
            let what = format!("{depth} {name}");
            let body = json!({"query": document}).to_string().into_bytes();
            let (status, text) = target.post(&what, "/graphql", body).await;
            assert!(
                [200, 400].contains(&status) && is_refused(depth, name, &text),
                "{what}: {status} {text}"
            );
            let by_url = target
                .http("GET", "/graphql")
                .query(&[("query", &document[..document.len().min(8000)])]);
            let (status, text) = target.ask(&what, by_url).await;
            assert!(
                [200, 400, 405].contains(&status) && is_refused(depth, name, &text),
                "{what}: {status} {text}"
            );
        }
    }
    for (name, text) in texts(60_000) {
        let document = json!({"query": String::from_utf8_lossy(&text)}).to_string();
        target
            .refuses(name, "/graphql", document.into_bytes())
            .await;
    }
    target.still_answers().await;
}

#[tokio::test]
async fn websocket_messages() {
    // The client is not authenticated yet when `connection_init` is read.
    for environment in [&[][..], &[("RECENTS__AUTH__MANAGER_TOKEN", MANAGER)]] {
        let target = HostileTarget::start(environment).await;
        let url = &target.process.url;
        let longest = if environment.is_empty() {
            1 << 20
        } else {
            200_000
        };
        for (name, text) in texts(longest).into_iter().chain(texts(10_000)) {
            for template in [
                "@",
                "{\"type\":@}",
                "{\"type\":\"ping\",\"payload\":@}",
                "{\"type\":\"connection_init\",\"payload\":@}",
                "{\"type\":\"connection_init\",\"payload\":{\"x\":@}}",
                "{\"type\":\"connection_init\",\"payload\":{\"token\":@}}",
                "{\"type\":\"connection_init\",\"payload\":{\"Authorization\":@}}",
                "{\"type\":\"connection_init\",\"x\":@}",
            ] {
                let mut socket = Socket::open(url).await;
                socket.send_text(&within(template, &text)).await;
                let received = socket.receive().await;
                let closed = [1009, 4400, 4403].map(Received::Closed).contains(&received);
                // The connection may close while the client is still sending a message that is too
                // long.
                let broke = text.len() > 200_000 && received == Received::Gone;
                assert!(
                    closed || broke || matches!(received, Received::Text(_)),
                    "{name} in {template}: {received:?}"
                );
            }
        }
        target.still_answers().await;
    }
}

#[tokio::test]
async fn websocket_operations() {
    let target = HostileTarget::start(&[]).await;
    let url = &target.process.url;
    for (name, text) in texts(100_000) {
        for template in [
            "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":@}",
            "{\"type\":\"subscribe\",\"id\":@,\"payload\":{\"query\":\"{__typename}\"}}",
            "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":@}}",
            "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":\"{__typename}\",\"variables\":@}}",
            "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":\"{__typename}\",\"extensions\":@}}",
            "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":\"subscription($a:ID){conversationChanges(uid:$a){version}}\",\
             \"variables\":{\"a\":@}}}",
            "{\"type\":\"complete\",\"id\":@}",
        ] {
            let mut socket = Socket::open_initialised(url).await;
            socket.send_text(&within(template, &text)).await;
            // A `complete` for an unknown operation has no effect.
            socket.send_text(b"{\"type\":\"ping\"}").await;
            let received = socket.receive().await;
            let closed = [1009, 4400].map(Received::Closed).contains(&received);
            assert!(
                closed || matches!(received, Received::Text(_)),
                "{name} in {template}: {received:?}"
            );
        }
    }
    // The depth limit of documents is the same as over HTTP.
    for (name, document) in documents(199).into_iter().chain(documents(3000)) {
        let mut socket = Socket::open_initialised(url).await;
        socket
            .send_text(
                json!({"type": "subscribe", "id": "1", "payload": {"query": document}})
                    .to_string()
                    .as_bytes(),
            )
            .await;
        let Received::Text(answer) = socket.receive().await else {
            panic!("{name}")
        };
        let is_error = answer.contains("\"type\":\"error\"");
        assert!(
            is_error || is_refused(199, name, &answer),
            "{name}: {answer}"
        );
    }
    target.still_answers().await;
}

#[tokio::test]
async fn cursors_ids_and_last_seqs() {
    let target = HostileTarget::start(&[]).await;
    let list =
        "query ($a: String) { conversationList(uid: \"ann\", first: 1, after: $a) { totalCount } }";
    let history = "query ($a: String) { messages(uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}, first: 1, before: $a) { nodes { id } } }";
    let node = "query ($a: ID!) { node(id: $a) { id } }";
    let nodes = "query ($a: ID!) { nodes(ids: [$a, $a]) { id } }";
    let last = "query ($a: String) { conversations(uid: \"ann\", lastMsgSeqs: $a) { version } }";
    for (name, text) in texts(200_000) {
        let plain = String::from_utf8_lossy(&text);
        for given in [
            URL_SAFE_NO_PAD.encode(&text),
            URL_SAFE_NO_PAD.encode(within("[\"l1\",@,0,false,0,1,\"x\"]", &text)),
            plain.to_string(),
        ] {
            for query in [list, history, node, nodes, last] {
                let body = json!({"query": query, "variables": {"a": given}}).to_string();
                let (_, answer) = target.post(name, "/graphql", body.into_bytes()).await;
                assert_eq!(
                    answer.contains("\"errors\":"),
                    query != last,
                    "{name} in {query}: {answer}"
                );
            }
            let body = json!({"uid": "ann", "last_msg_seqs": given}).to_string();
            let (status, answer) = target
                .post(name, "/conversation/sync", body.into_bytes())
                .await;
            assert_eq!(status, 200, "{name}: {answer}");
        }
    }
    target.still_answers().await;
}
