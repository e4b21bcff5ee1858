//! A stand-in for a running WuKongIM. It keeps channels and messages in memory, answers the routes
//! that recents requests, and sends webhooks as v1, v2 and v3 were recorded to: one address, five
//! tries, then dropped; `msg.notify` in batches, `msg.offline` from a pool in any order; dense seqs.

mod routes;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use recents::config::WukongimVersion;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::server::payload;

/// The second of the first message, which is the time of the test servers' clocks.
const FIRST_SECOND: i64 = 1_795_393_000;

/// A request that the stand-in received.
#[derive(Clone, Debug)]
pub struct Call {
    /// The path, with the query.
    pub path: String,
    pub body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Channel {
    members: BTreeSet<String>,
    messages: Vec<Value>,
    /// Deleted messages leave holes in the history.
    large: bool,
}

/// A user's conversation, as v1 keeps it.
#[derive(Clone, Debug, Default)]
struct Conversation {
    unread: i64,
    version: i64,
    /// v2 and v3: the conversation is deleted up to here.
    deleted_to: i64,
}

/// The key of a channel: its type, and its id or both users of a person channel, in order.
type Key = (u8, String);

#[derive(Debug, Default)]
struct Data {
    channels: BTreeMap<Key, Channel>,
    conversations: BTreeMap<(String, Key), Conversation>,
    calls: Vec<Call>,
    webhook_url: Option<String>,
    next_id: i64,
    now: i64,
}

struct Shared {
    version: WukongimVersion,
    data: Mutex<Data>,
    webhooks: webhooks::Queue,
    /// Answers nothing but 503.
    is_away: AtomicBool,
}

impl Shared {
    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap()
    }
}

/// A running stand-in.
pub struct StandIn {
    pub url: String,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl StandIn {
    pub async fn start(version: WukongimVersion) -> Self {
        let (webhooks, receiver) = webhooks::Queue::new();
        let shared = Arc::new(Shared {
            version,
            data: Mutex::new(Data {
                next_id: 2_124_658_974_018_932_736,
                ..Data::default()
            }),
            webhooks,
            is_away: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = routes::router(Arc::clone(&shared));
        let tasks = vec![
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }),
            tokio::spawn(webhooks::send_queued(Arc::clone(&shared), receiver)),
        ];
        Self { url, shared, tasks }
    }

    /// Sets the only address of webhooks; the event is added as `?event=`.
    pub fn send_webhooks_to(&self, url: impl Into<String>) {
        self.shared.data().webhook_url = Some(url.into());
    }

    /// Drops webhooks, those that are being retried included, until this is switched off.
    pub fn drop_webhooks(&self, drop: bool) {
        self.shared.webhooks.dropping.store(drop, Ordering::SeqCst);
    }

    /// Answers every request with 503, as a proxy in front of a stopped server does.
    pub fn set_away(&self, is_away: bool) {
        self.shared.is_away.store(is_away, Ordering::SeqCst);
    }

    /// Waits until no webhook is queued or being sent.
    pub async fn webhooks_settled(&self) {
        while self.shared.webhooks.pending.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the number of webhook bodies that were dropped after the last try.
    pub fn dropped_webhooks(&self) -> u64 {
        self.shared.webhooks.dropped.load(Ordering::SeqCst)
    }

    /// Returns all requests received so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.data().calls.clone()
    }

    /// Returns the bodies of the requests to this path.
    pub fn bodies(&self, path: &str) -> Vec<Value> {
        let calls = self.calls();
        let matching = calls
            .iter()
            .filter(|call| call.path.split('?').next() == Some(path));
        matching
            .map(|call| serde_json::from_slice(&call.body).unwrap_or(Value::Null))
            .collect()
    }

    /// Makes users members of a group.
    pub fn add_members(&self, channel_id: &str, members: &[&str]) {
        let mut data = self.shared.data();
        let channel = data.channels.entry((2, channel_id.to_owned())).or_default();
        channel
            .members
            .extend(members.iter().map(|uid| (*uid).to_owned()));
    }

    /// Stores a red-dot message and queues its webhooks; returns its seq.
    pub fn send(&self, from: &str, channel_id: &str, channel_type: u8, text: &str) -> i64 {
        self.send_message(&json!({
            "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
            "client_msg_no": text,
            "from_uid": from,
            "channel_id": channel_id,
            "channel_type": channel_type,
            "payload": payload(text),
        }))
    }

    /// Stores a message in the form of `/message/send` and queues its webhooks; returns its seq.
    pub fn send_message(&self, request: &Value) -> i64 {
        let message = self.shared.store(request);
        message["message_seq"].as_i64().unwrap()
    }

    /// Removes a message, as retention does: its seq stays unused.
    pub fn remove_message(&self, channel_id: &str, seq: i64) {
        let mut data = self.shared.data();
        let channel = data.channels.get_mut(&(2, channel_id.to_owned())).unwrap();
        channel
            .messages
            .retain(|message| message["message_seq"] != seq);
    }

    /// Returns the newest seq of each channel.
    pub fn newest_seqs(&self) -> BTreeMap<(u8, String), i64> {
        let data = self.shared.data();
        let channels = data.channels.iter();
        channels
            .map(|(key, channel)| (key.clone(), channel.newest_seq()))
            .collect()
    }
}

impl Channel {
    fn newest_seq(&self) -> i64 {
        self.messages
            .last()
            .map_or(0, |message| message["message_seq"].as_i64().unwrap())
    }
}

/// Returns the key of the channel that this user calls by this name.
fn key(uid: &str, channel_id: &str, channel_type: u8) -> Key {
    if channel_type != 1 {
        return (channel_type, channel_id.to_owned());
    }
    let (low, high) = if uid <= channel_id {
        (uid, channel_id)
    } else {
        (channel_id, uid)
    };
    (1, format!("{low}\n{high}"))
}

/// Returns the name of the channel for this user.
fn name_for(uid: &str, key: &Key) -> String {
    match key.1.split_once('\n') {
        Some((low, high)) => if low == uid { high } else { low }.to_owned(),
        None => key.1.clone(),
    }
}

impl Shared {
    /// Stores a message, counts it, and queues its webhooks.
    fn store(&self, request: &Value) -> Value {
        let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
        let channel_type = u8::try_from(request["channel_type"].as_u64().unwrap_or(0)).unwrap();
        let (from, channel_id) = (text("from_uid"), text("channel_id"));
        let key = key(&from, &channel_id, channel_type);
        let red_dot = request["header"]["red_dot"].as_i64().unwrap_or(0);
        let mut data = self.data();
        data.next_id += 1;
        data.now += 1;
        let (message_id, version) = (data.next_id, data.now);
        let channel = data.channels.entry(key.clone()).or_default();
        if channel_type == 1 {
            let (low, high) = key.1.split_once('\n').unwrap();
            channel.members.extend([low.to_owned(), high.to_owned()]);
        }
        let message = json!({
            "header": {"no_persist": 0, "red_dot": red_dot, "sync_once": 0},
            "setting": 0,
            "message_id": message_id,
            "message_idstr": message_id.to_string(),
            "client_msg_no": text("client_msg_no"),
            "message_seq": channel.newest_seq() + 1,
            "from_uid": from,
            "channel_id": channel_id,
            "channel_type": channel_type,
            "expire": 0,
            // Ten messages a second.
            "timestamp": FIRST_SECOND + version / 10,
            "payload": text("payload"),
        });
        channel.messages.push(message.clone());
        let members: Vec<String> = channel.members.iter().cloned().collect();
        for uid in &members {
            let entry = data.conversations.entry((uid.clone(), key.clone()));
            let conversation = entry.or_default();
            conversation.version = version;
            if *uid != from && red_dot == 1 {
                conversation.unread += 1;
            }
        }
        let receivers: Vec<String> = members.into_iter().filter(|uid| *uid != from).collect();
        drop(data);
        self.webhooks.enqueue(self.version, &message, receivers);
        message
    }
}
