//! Hostile texts in what GraphQL parses: bodies, documents, variables, ids and cursors, and what is
//! said on WebSockets. Each time the server is a process of its own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::hostile::{documents, texts, within};
use crate::support::site::{MANAGER, Site};
use crate::support::socket::{Heard, Socket};

#[tokio::test]
async fn bodies_of_graphql() {
    let site = Site::start(&[("RECENTS__LIMITS__BATCH_OPERATIONS", "10")]).await;
    let uid = json!("query ($a: ID) { conversations(uid: $a) { version } }");
    let types = json!(
        "query ($a: [Int!]) { conversations(uid: \"ann\", excludeChannelTypes: $a) { version } }"
    );
    let channel =
        json!("query ($a: ChannelInput!) { conversation(uid: \"ann\", channel: $a) { id } }");
    let input =
        json!("mutation ($a: SendMessageInput!) { sendMessage(input: $a) { message { id } } }");
    for (name, text) in texts(200_000) {
        // What must be a text, an object or a list, and is none of ours.
        site.refuses(name, "/graphql", within("{\"query\":@}", &text))
            .await;
        // An array is a batch, each with an answer of its own.
        for template in ["@", "[@]"] {
            let (_, answer) = site.post(name, "/graphql", within(template, &text)).await;
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
            site.post(name, "/graphql", within(template, &text)).await;
        }
        for query in [&uid, &types, &channel, &input] {
            for value in ["@", "[@]", "{\"channelId\":@,\"channelType\":1}"] {
                let template = format!("{{\"query\":{query},\"variables\":{{\"a\":{value}}}}}");
                let (_, answer) = site.post(name, "/graphql", within(&template, &text)).await;
                assert!(
                    answer.contains("\"errors\":"),
                    "{name} in {template}: {answer}"
                );
            }
        }
    }
    site.still_answers().await;
}

/// Whether an answer names a mistake, where the document has one. async-graphql takes anything for
/// the `if` of a directive.
fn is_refused(depth: usize, name: &str, answer: &str) -> bool {
    depth == 15
        || ["braces in a string", "a list in a directive"].contains(&name)
        || answer.contains("\"errors\":")
}

#[tokio::test]
async fn documents_of_graphql() {
    let site = Site::start(&[]).await;
    // Up to what the parser is let see, and beyond.
    for depth in [15, 100, 180, 195, 199, 200, 201, 1000, 15_000] {
        for (name, document) in documents(depth) {
            let what = format!("{depth} {name}");
            let body = json!({"query": document}).to_string().into_bytes();
            let (status, text) = site.post(&what, "/graphql", body).await;
            assert!(
                [200, 400].contains(&status) && is_refused(depth, name, &text),
                "{what}: {status} {text}"
            );
            let by_url = site
                .http("GET", "/graphql")
                .query(&[("query", &document[..document.len().min(8000)])]);
            let (status, text) = site.ask(&what, by_url).await;
            assert!(
                [200, 400, 405].contains(&status) && is_refused(depth, name, &text),
                "{what}: {status} {text}"
            );
        }
    }
    for (name, text) in texts(60_000) {
        let document = json!({"query": String::from_utf8_lossy(&text)}).to_string();
        site.refuses(name, "/graphql", document.into_bytes()).await;
    }
    site.still_answers().await;
}

#[tokio::test]
async fn messages_of_websockets() {
    // Nobody has said who they are when connection_init is read.
    for environment in [&[][..], &[("RECENTS__AUTH__MANAGER_TOKEN", MANAGER)]] {
        let site = Site::start(environment).await;
        let url = &site.process.url;
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
                socket.say(&within(template, &text)).await;
                let heard = socket.hear().await;
                let closed = [1009, 4400, 4403].map(Heard::Closed).contains(&heard);
                // The connection may break while the client still says what is too long.
                let broke = text.len() > 200_000 && heard == Heard::Gone;
                assert!(
                    closed || broke || matches!(heard, Heard::Text(_)),
                    "{name} in {template}: {heard:?}"
                );
            }
        }
        site.still_answers().await;
    }
}

#[tokio::test]
async fn operations_of_websockets() {
    let site = Site::start(&[]).await;
    let url = &site.process.url;
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
            let mut socket = Socket::begun(url).await;
            socket.say(&within(template, &text)).await;
            // A complete of what is not there says nothing.
            socket.say(b"{\"type\":\"ping\"}").await;
            let heard = socket.hear().await;
            let closed = [1009, 4400].map(Heard::Closed).contains(&heard);
            assert!(
                closed || matches!(heard, Heard::Text(_)),
                "{name} in {template}: {heard:?}"
            );
        }
    }
    // A document is as deep there as elsewhere.
    for (name, document) in documents(199).into_iter().chain(documents(3000)) {
        let mut socket = Socket::begun(url).await;
        socket
            .say(
                json!({"type": "subscribe", "id": "1", "payload": {"query": document}})
                    .to_string()
                    .as_bytes(),
            )
            .await;
        let Heard::Text(answer) = socket.hear().await else {
            panic!("{name}")
        };
        let is_error = answer.contains("\"type\":\"error\"");
        assert!(
            is_error || is_refused(199, name, &answer),
            "{name}: {answer}"
        );
    }
    site.still_answers().await;
}

#[tokio::test]
async fn cursors_ids_and_last_seqs() {
    let site = Site::start(&[]).await;
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
                let (_, answer) = site.post(name, "/graphql", body.into_bytes()).await;
                assert_eq!(
                    answer.contains("\"errors\":"),
                    query != last,
                    "{name} in {query}: {answer}"
                );
            }
            let body = json!({"uid": "ann", "last_msg_seqs": given}).to_string();
            let (status, answer) = site
                .post(name, "/conversation/sync", body.into_bytes())
                .await;
            assert_eq!(status, 200, "{name}: {answer}");
        }
    }
    site.still_answers().await;
}
