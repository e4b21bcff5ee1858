//! Recorded responses about history and channels: the same messages come by webhook, the same
//! requests are sent, and every response equals the recorded one except for an explicit list
//! (docs/COMPATIBILITY.md, "History", has the reasons).

use serde_json::{Value, json};

use crate::support::{Engine, Server, fixtures};

/// Steps whose responses differ, and the reasons.
const V1: [(&str, &str); 6] = [
    (
        "down-0-end",
        "400 there; nothing here: there is nothing between the end and no start",
    ),
    (
        "limit-0",
        "`more` 1 and nothing there; 400 here: who believes `more` asks for ever",
    ),
    ("no-login", "an anonymous user there; 400 here, as v2"),
    ("sync-by-channels", "404 there: v1 has no such route"),
    ("channels", "404 there: v1 has no such route"),
    (
        "conversations",
        "v1 counts what a user has read and deleted meanwhile, which webhooks do not tell",
    ),
];
const V2: [(&str, &str); 5] = [
    ("limit-0", "`more` 1 and nothing there; 400 here"),
    (
        "sync-messages",
        "from the seq on, ascending there; after it, newest first here, as v1",
    ),
    ("conversations", "404 there: v2 has no such route"),
    (
        "channels",
        "person channels by their pairs there; by the peer's uid here",
    ),
    (
        "sync-by-channels",
        "unread and read marks that webhooks do not tell",
    ),
];

async fn replay(engine: Engine, version: &str, different: &[(&str, &str)]) {
    let server = Server::start(engine).await;
    for line in fixtures::lines(&format!("{version}/group.jsonl")) {
        if line["path"] == "/channel" || line["path"] == "/channel/subscriber_add" {
            server
                .post(
                    line["path"].as_str().unwrap(),
                    line["request"].as_str().unwrap().to_owned(),
                )
                .await;
        }
    }
    for line in fixtures::lines(&format!("{version}/webhook.jsonl")) {
        let path = format!("/webhook{}", line["path"].as_str().unwrap());
        assert_eq!(
            server
                .post(&path, line["body"].as_str().unwrap().to_owned())
                .await
                .status,
            200,
            "{line}"
        );
    }
    let asked = [
        "/channel/messagesync",
        "/channel/max_message_seq",
        "/conversation/syncMessages",
        "/conversation/syncByChannels",
        "/conversation/channels",
        "/conversations",
    ];
    let (mut compared, mut differ) = (0, Vec::new());
    for line in fixtures::lines(&format!("{version}/history.jsonl")) {
        let path = line["path"].as_str().unwrap();
        if !asked.contains(&path.split('?').next().unwrap()) {
            continue;
        }
        let request = server
            .http(line["method"].as_str().unwrap(), path)
            .body(line["request"].as_str().unwrap_or_default().to_owned());
        let answer = server.request(request).await;
        let (actual, recorded) = (answer.text.as_str(), line["response"].as_str().unwrap());
        // As text, so that the order of fields counts.
        let normal = |text: &str| {
            let value = serde_json::from_str(text).map(|value| normal(value, version == "v2"));
            value.unwrap_or(json!(text)).to_string()
        };
        let same = line["status"] == answer.status && normal(actual) == normal(recorded);
        compared += 1;
        if !same {
            let step = line["step"].as_str().unwrap().to_owned();
            println!(
                "{step}\n actual   {} {actual}\n recorded {} {recorded}",
                answer.status, line["status"]
            );
            differ.push(step);
        }
    }
    differ.sort();
    let mut expected: Vec<&str> = different.iter().map(|(step, _)| *step).collect();
    expected.sort_unstable();
    assert_eq!(differ, expected);
    assert!(compared >= 15, "only {compared} answers were compared");
}

/// Removes what v2 forgets (red dots of messages that are no longer in its memory) or rounds (the
/// second in its webhook).
fn normal(mut value: Value, is_v2: bool) -> Value {
    match &mut value {
        Value::Array(entries) => entries
            .iter_mut()
            .for_each(|entry| *entry = normal(entry.take(), is_v2)),
        Value::Object(fields) => {
            if is_v2 {
                for name in ["red_dot", "timestamp"] {
                    if let Some(field) = fields.get_mut(name) {
                        *field = Value::Null;
                    }
                }
            }
            fields
                .values_mut()
                .for_each(|field| *field = normal(field.take(), is_v2));
        }
        _ => {}
    }
    value
}

async fn history_v1(engine: Engine) {
    replay(engine, "v1", &V1).await;
}

async fn history_v2(engine: Engine) {
    replay(engine, "v2", &V2).await;
}

on_every_database!(history_v1, history_v2);
