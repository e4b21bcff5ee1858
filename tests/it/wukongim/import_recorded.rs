//! Imports from what real servers answered during a recorded day.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use recents::config::WukongimVersion::{self, V1, V2};
use recents::import::{ImportOptions, compare, import_server};
use recents::model::Uid;
use recents::upstream::WukongimClient;
use serde_json::{Value, json};

use crate::support::model::channel;
use crate::support::{Engine, Server, fixtures};

/// The answers of a recorded server.
struct Recorded {
    /// The last full list of each user with enough messages.
    lists: BTreeMap<String, Vec<Value>>,
    /// The messages by channel.
    messages: HashMap<String, BTreeMap<i64, Value>>,
}

fn place(uid: &str, message: &Value) -> String {
    let id = message["channel_id"].as_str().unwrap();
    let kind = message["channel_type"].as_u64().unwrap() as u8;
    format!("{:?}", channel(uid, id, kind))
}

impl Recorded {
    fn read(name: &str) -> Self {
        let lines = fixtures::lines(name);
        let is_webhook = |line: &Value| line["path"].as_str().unwrap().starts_with('?');
        let end = lines.iter().rposition(is_webhook).unwrap();
        let (mut lists, mut messages) = (BTreeMap::new(), HashMap::new());
        for (number, line) in lines.iter().enumerate() {
            if is_webhook(line) {
                let body: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
                let several = body.as_array().cloned().unwrap_or_else(|| vec![body]);
                for mut message in several {
                    let fields = message.as_object_mut().unwrap();
                    fields.remove("to_uids");
                    let place = place(message["from_uid"].as_str().unwrap(), &message);
                    let seq = message["message_seq"].as_i64().unwrap();
                    let channel: &mut BTreeMap<i64, Value> = messages.entry(place).or_default();
                    channel.insert(seq, message);
                }
            }
            let request = line["request"].as_str().unwrap_or_default();
            let request: Value = serde_json::from_str(request).unwrap_or_default();
            let is_full = line["path"] == "/conversation/sync"
                && request["version"] == 0
                && request["last_msg_seqs"].as_str().is_none_or(str::is_empty)
                && request["msg_count"].as_i64() >= Some(20);
            if number > end && is_full {
                let answer = serde_json::from_str(line["response"].as_str().unwrap()).unwrap();
                lists.insert(request["uid"].as_str().unwrap().to_owned(), answer);
            }
            // A conversation that is deleted later is not listed any more.
            if line["path"] == "/conversations/delete"
                && let Some(list) = lists.get_mut(request["uid"].as_str().unwrap())
            {
                let list: &mut Vec<Value> = list;
                list.retain(|item| {
                    item["channel_id"] != request["channel_id"]
                        || item["channel_type"] != request["channel_type"]
                });
            }
        }
        Self { lists, messages }
    }

    fn list(&self, request: &Value) -> Value {
        let count = request["msg_count"].as_u64().unwrap() as usize;
        let mut list = self.lists[request["uid"].as_str().unwrap()].clone();
        for item in &mut list {
            item["recents"].as_array_mut().unwrap().truncate(count);
        }
        json!(list)
    }

    fn history(&self, request: &Value) -> Value {
        let number = |field: &str| request[field].as_i64().unwrap();
        let (start, end) = (number("start_message_seq"), number("end_message_seq"));
        let end = if end == 0 { i64::MAX } else { end };
        let place = place(request["login_uid"].as_str().unwrap(), request);
        let found: Vec<&Value> = match self.messages.get(&place) {
            Some(messages) => messages
                .range(start..end)
                .map(|(_, message)| message)
                .collect(),
            None => Vec::new(),
        };
        let limit = number("limit") as usize;
        json!({
            "more": i32::from(found.len() > limit),
            "messages": found[..found.len().min(limit)],
        })
    }
}

async fn answer(State(recorded): State<Arc<Recorded>>, uri: Uri, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    match uri.path() {
        "/conversation/sync" => recorded.list(&request).to_string().into_response(),
        "/channel/messagesync" => recorded.history(&request).to_string().into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn serve(recorded: Arc<Recorded>) -> String {
    let router = axum::Router::new().fallback(answer).with_state(recorded);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

/// The list of each user is the recorded one: what was deleted there stays deleted, and a comparison
/// finds no difference that has no rule.
async fn import_recorded(engine: Engine, name: &str, version: WukongimVersion) {
    let recorded = Arc::new(Recorded::read(name));
    let url = serve(Arc::clone(&recorded)).await;
    let here = Server::start(engine).await;
    let uids: Vec<Uid> = recorded
        .lists
        .keys()
        .map(|uid| Uid::parse("uid", uid.as_str()).unwrap())
        .collect();
    assert!(uids.len() > 10, "{}", uids.len());
    let client = Arc::new(WukongimClient::new(&url, "", 10_000).unwrap());
    let options = ImportOptions {
        wukongim: version,
        ..ImportOptions::default()
    };
    let summary = import_server(&here.app.core, &client, &uids, &options)
        .await
        .unwrap();
    assert_eq!(
        (summary.failed, summary.refused, summary.conflicts),
        (0, 0, 0),
        "{summary}"
    );
    assert!(summary.deleted > 0, "{summary}");
    for (uid, list) in &recorded.lists {
        let names = |items: &[Value]| {
            let mut names: Vec<String> = items
                .iter()
                .map(|item| {
                    format!(
                        "{}:{} {}",
                        item["channel_id"], item["channel_type"], item["unread"]
                    )
                })
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&here.full(uid).await), names(list), "{uid}");
    }
    let comparison = compare(&here.app.core, &client, &uids, &options)
        .await
        .unwrap();
    assert!(comparison.differences.is_empty(), "{comparison}");
}

async fn recorded_day_v1(engine: Engine) {
    import_recorded(engine, "day-v1.jsonl.gz", V1).await;
}

async fn recorded_day_v2(engine: Engine) {
    import_recorded(engine, "day-v2.jsonl.gz", V2).await;
}

on_every_database!(recorded_day_v1, recorded_day_v2);
