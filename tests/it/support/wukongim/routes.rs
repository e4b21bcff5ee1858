//! The routes of the stand-in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use recents::config::WukongimVersion;
use serde_json::{Value, json};

use super::{Call, Channel, Key, Shared, key, name_for};

const MAX_BODY_BYTES: usize = 256 << 20;

pub(super) fn router(shared: Arc<Shared>) -> axum::Router {
    axum::Router::new().fallback(answer).with_state(shared)
}

/// Records the request, and answers it.
async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = to_bytes(body, MAX_BODY_BYTES).await.unwrap_or_default();
    let uri = parts.uri;
    shared.data().calls.push(Call {
        path: uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        body: body.to_vec(),
    });
    if shared.is_away.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let request = if parts.method == "GET" {
        let query: Vec<(String, String)> =
            serde_urlencoded::from_str(uri.query().unwrap_or_default()).unwrap_or_default();
        Value::Object(
            query
                .into_iter()
                .map(|(name, value)| (name, json!(value)))
                .collect(),
        )
    } else {
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    };
    match shared.respond(uri.path(), &request) {
        Some(answer) => (
            [("content-type", "application/json; charset=utf-8")],
            answer.to_string(),
        )
            .into_response(),
        None => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
    }
}

fn text<'a>(request: &'a Value, field: &str) -> &'a str {
    request[field].as_str().unwrap_or_default()
}

fn channel_type(request: &Value) -> u8 {
    let value = &request["channel_type"];
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    u8::try_from(number.unwrap_or(0)).unwrap()
}

/// Returns the channel that `user` names in the request.
fn named(request: &Value, user: &str) -> Key {
    key(
        text(request, user),
        text(request, "channel_id"),
        channel_type(request),
    )
}

impl Shared {
    fn respond(&self, path: &str, request: &Value) -> Option<Value> {
        let done = json!({"status": 200});
        let is_v3 = self.version == WukongimVersion::V3;
        Some(match path {
            "/message/send" => {
                let message = self.store(request);
                let (id, seq) = (&message["message_id"], &message["message_seq"]);
                match self.version {
                    WukongimVersion::V1 => {
                        json!({"data": {"client_msg_no": message["client_msg_no"], "message_id": id, "message_seq": seq}, "status": 200})
                    }
                    WukongimVersion::V2 => {
                        json!({"data": {"client_msg_no": message["client_msg_no"], "message_id": id}, "status": 200})
                    }
                    WukongimVersion::V3 => {
                        json!({"message_id": id, "message_seq": seq, "reason": 1})
                    }
                }
            }
            "/channel" | "/channel/subscriber_add" => {
                let mut data = self.data();
                let channel = data.channels.entry(named(request, "")).or_default();
                channel.large = request["large"] == 1;
                if path == "/channel" || request["reset"] == 1 {
                    channel.members.clear();
                }
                channel.members.extend(subscribers(request));
                done
            }
            "/channel/subscriber_remove" => {
                let mut data = self.data();
                let channel = data.channels.entry(named(request, "")).or_default();
                for uid in subscribers(request) {
                    channel.members.remove(&uid);
                }
                done
            }
            "/channel/delete" => {
                self.data().channels.remove(&named(request, ""));
                done
            }
            "/channel/max_message_seq" if !is_v3 => {
                let key = named(request, "login_uid");
                json!({"message_seq": self.data().channels.get(&key).map_or(0, Channel::newest_seq)})
            }
            "/channel/messagesync" => self.messages(request),
            "/conversation/sync" if !is_v3 => self.conversations(request),
            "/conversations/setUnread" => {
                let unread = request["unread"].as_i64().unwrap_or(0);
                self.change(request, |conversation| conversation.unread = unread);
                done
            }
            "/conversations/clearUnread" => {
                self.change(request, |conversation| conversation.unread = 0);
                done
            }
            "/conversations/delete" => {
                let key = named(request, "uid");
                let mut data = self.data();
                let newest = data.channels.get(&key).map_or(0, Channel::newest_seq);
                let id = (text(request, "uid").to_owned(), key);
                if self.version == WukongimVersion::V1 {
                    data.conversations.remove(&id);
                } else if let Some(conversation) = data.conversations.get_mut(&id) {
                    conversation.deleted_to = newest;
                    conversation.unread = 0;
                }
                done
            }
            "/conversation/list" if is_v3 => self.list(request),
            "/health" => json!({"status": "ok"}),
            "/channel/info"
            | "/user/token"
            | "/user/device_quit"
            | "/user/systemuids_add"
            | "/user/systemuids_remove"
            | "/message/syncack"
            | "/channel/blacklist_add"
            | "/channel/blacklist_set"
            | "/channel/blacklist_remove"
            | "/channel/whitelist_add"
            | "/channel/whitelist_set"
            | "/channel/whitelist_remove"
            | "/streammessage/end" => done,
            "/message/sync" | "/user/onlinestatus" | "/channel/whitelist" | "/user/systemuids" => {
                json!([])
            }
            "/message/sendbatch" => {
                for uid in subscribers(request) {
                    let mut single = request.clone();
                    single["channel_id"] = json!(uid);
                    single["channel_type"] = json!(1);
                    self.store(&single);
                }
                json!({"fail_uids": [], "reason": []})
            }
            "/route" => {
                json!({"tcp_addr": "127.0.0.1:5100", "ws_addr": "ws://127.0.0.1:5200", "wss_addr": ""})
            }
            _ => return None,
        })
    }

    fn change(&self, request: &Value, change: impl FnOnce(&mut super::Conversation)) {
        let id = (text(request, "uid").to_owned(), named(request, "uid"));
        let mut data = self.data();
        data.now += 1;
        let version = data.now;
        if let Some(conversation) = data.conversations.get_mut(&id) {
            change(conversation);
            conversation.version = version;
        }
    }

    /// `/channel/messagesync`
    fn messages(&self, request: &Value) -> Value {
        let number = |field: &str| request[field].as_i64().unwrap_or(0);
        let (start, end) = (number("start_message_seq"), number("end_message_seq"));
        let limit = usize::try_from(number("limit")).unwrap();
        let newer = number("pull_mode") == 1;
        let data = self.data();
        let all = data
            .channels
            .get(&named(request, "login_uid"))
            .map(|channel| channel.messages.as_slice())
            .unwrap_or_default();
        let seq = |message: &Value| message["message_seq"].as_i64().unwrap();
        let mut found: Vec<&Value> = all
            .iter()
            .filter(|message| match (start, end) {
                (0, 0) => true,
                (start, end) if newer => seq(message) >= start && (end == 0 || seq(message) < end),
                (start, end) => seq(message) <= start && seq(message) > end,
            })
            .collect();
        let more = found.len() > limit;
        if newer && start > 0 {
            found.truncate(limit);
        } else {
            found.drain(..found.len().saturating_sub(limit));
        }
        let found: Vec<Value> = found
            .into_iter()
            .map(|message| {
                let mut message = message.clone();
                // v2 keeps them in memory for some seconds only.
                if self.version != WukongimVersion::V1 {
                    message["header"]["red_dot"] = json!(0);
                }
                message
            })
            .collect();
        json!({
            "start_message_seq": start,
            "end_message_seq": end,
            "more": i32::from(more),
            "messages": found,
        })
    }

    /// `/conversation/sync`: v1 leaves out large groups that are not in `larges`.
    fn conversations(&self, request: &Value) -> Value {
        let uid = text(request, "uid");
        let count = usize::try_from(request["msg_count"].as_i64().unwrap_or(0)).unwrap_or(0);
        let is_v2 = self.version == WukongimVersion::V2;
        let named_large = |key: &Key| {
            request["larges"].as_array().is_some_and(|larges| {
                larges
                    .iter()
                    .any(|one| one["channel_id"] == key.1 && one["channel_type"] == key.0)
            })
        };
        let data = self.data();
        let mut items = Vec::new();
        for ((owner, key), conversation) in &data.conversations {
            let Some(channel) = data.channels.get(key) else {
                continue;
            };
            if owner != uid || (channel.large && !is_v2 && !named_large(key)) {
                continue;
            }
            let newest = channel.newest_seq();
            if conversation.deleted_to >= newest {
                continue;
            }
            let Some(last) = channel.messages.last() else {
                continue;
            };
            let recents: Vec<Value> = channel
                .messages
                .iter()
                .rev()
                .filter(|message| message["message_seq"].as_i64() > Some(conversation.deleted_to))
                .take(count)
                .cloned()
                .collect();
            let mut item = json!({
                "channel_id": name_for(uid, key),
                "channel_type": key.0,
                "unread": conversation.unread,
                "timestamp": last["timestamp"],
                "last_msg_seq": newest,
                "last_client_msg_no": last["client_msg_no"],
                "offset_msg_seq": 0,
                "version": conversation.version,
                "recents": recents,
            });
            if is_v2 {
                item["readed_to_msg_seq"] = json!(newest - conversation.unread);
            }
            items.push(item);
        }
        items.sort_by_key(|item| std::cmp::Reverse(item["timestamp"].as_i64()));
        json!(items)
    }

    /// v3's `/conversation/list`, in one page.
    fn list(&self, request: &Value) -> Value {
        let uid = text(request, "uid");
        let data = self.data();
        let (mut conversations, mut deletes) = (Vec::new(), Vec::new());
        for ((owner, key), conversation) in &data.conversations {
            let Some(channel) = data.channels.get(key) else {
                continue;
            };
            let Some(last) = channel.messages.last() else {
                continue;
            };
            if owner != uid {
                continue;
            }
            let newest = channel.newest_seq();
            let name = name_for(uid, key);
            if conversation.deleted_to >= newest {
                deletes.push(json!({"channel_id": name, "channel_type": key.0}));
                continue;
            }
            conversations.push(json!({
                "channel_id": name,
                "channel_type": key.0,
                "active_at": 0,
                "read_seq": newest - conversation.unread,
                "deleted_to_seq": conversation.deleted_to,
                "unread": conversation.unread,
                "last_message": {
                    "message_id": last["message_id"],
                    "message_idstr": last["message_idstr"],
                    "message_seq": newest,
                    "from_uid": last["from_uid"],
                    "client_msg_no": last["client_msg_no"],
                    "server_timestamp_ms": last["timestamp"].as_i64().unwrap() * 1000,
                    "payload": last["payload"],
                },
            }));
        }
        json!({
            "conversations": conversations,
            "deletes": deletes,
            "unresolved": [],
            "next_cursor": "",
            "done": true,
            "coverage": data.now,
            "tombstones_retained_since": 0,
            "reset_required": false,
        })
    }
}

fn subscribers(request: &Value) -> Vec<String> {
    let uids = request["subscribers"].as_array().cloned();
    let uids = uids.unwrap_or_default().into_iter();
    uids.filter_map(|uid| uid.as_str().map(str::to_owned))
        .collect()
}
