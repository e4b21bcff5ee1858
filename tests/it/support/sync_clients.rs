//! Clients that keep state between syncs: at any time, each must hold the result of a full sync.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::Server;

/// A server, or any of several servers, that a client sends requests to.
pub trait GraphqlClient {
    /// Returns the data of a GraphQL request that must succeed.
    fn graphql(&self, query: &str, variables: Value) -> impl Future<Output = Value>;
}

impl GraphqlClient for Server {
    async fn graphql(&self, query: &str, variables: Value) -> Value {
        Server::graphql(self, query, variables).await
    }
}

const FIELDS: &str = "channelId channelType unread lastActivityAt lastMsgSeq lastClientMsgNo version recents { messageId messageSeq \
                      clientMsgNo fromUid channelId channelType header { noPersist redDot syncOnce } setting topic sentAt expire payload }";

/// Returns a `DateTime` as a timestamp in seconds.
fn seconds(date_time: &Value) -> Value {
    json!(
        chrono::DateTime::parse_from_rfc3339(date_time.as_str().unwrap())
            .unwrap()
            .timestamp()
    )
}

/// Converts a GraphQL conversation to REST's form.
fn as_rest(conversation: &Value) -> Value {
    let bit = |value: &Value| json!(u8::from(value.as_bool().unwrap()));
    let recents: Vec<Value> = conversation["recents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            let header = &message["header"];
            let mut shape = json!({
                "header": {"no_persist": bit(&header["noPersist"]), "red_dot": bit(&header["redDot"]), "sync_once": bit(&header["syncOnce"])},
                "setting": message["setting"],
                "message_id": message["messageId"].as_str().unwrap().parse::<i64>().unwrap(),
                "message_idstr": message["messageId"],
                "client_msg_no": message["clientMsgNo"],
                "message_seq": message["messageSeq"],
                "from_uid": message["fromUid"],
                "channel_id": message["channelId"],
                "channel_type": message["channelType"],
                "expire": message["expire"],
                "timestamp": seconds(&message["sentAt"]),
                "payload": message["payload"],
            });
            if !message["topic"].is_null() {
                shape["topic"] = message["topic"].clone();
            }
            shape
        })
        .collect();
    let (last, unread) = (
        conversation["lastMsgSeq"].as_i64().unwrap(),
        conversation["unread"].as_i64().unwrap(),
    );
    json!({
        "channel_id": conversation["channelId"],
        "channel_type": conversation["channelType"],
        "unread": unread,
        "timestamp": seconds(&conversation["lastActivityAt"]),
        "last_msg_seq": last,
        "last_client_msg_no": conversation["lastClientMsgNo"],
        "offset_msg_seq": 0,
        "readed_to_msg_seq": (last - unread).max(0),
        "version": conversation["version"],
        "recents": recents,
    })
}

/// Sends the REST request as a GraphQL query, and returns the response in REST's form.
pub async fn graphql_full(server: &Server, request: &Value) -> Vec<Value> {
    let query = format!(
        "query ($uid: ID, $version: UInt53, $last: String, $count: Int, $unread: Boolean, $exclude: [Int!]) {{
            conversations(uid: $uid, version: $version, lastMsgSeqs: $last, msgCount: $count, onlyUnread: $unread,
                excludeChannelTypes: $exclude) {{ conversations {{ {FIELDS} }} }} }}"
    );
    let variables = json!({
        "uid": request["uid"],
        "version": request["version"].as_i64().unwrap_or(0).max(0),
        "last": request["last_msg_seqs"],
        "count": request["msg_count"].as_i64().unwrap_or(0).max(0),
        "unread": request["only_unread"] == 1,
        "exclude": request["exclude_channel_types"].as_array().cloned().unwrap_or_default(),
    });
    let data = server.graphql(&query, variables).await;
    data["conversations"]["conversations"]
        .as_array()
        .unwrap()
        .iter()
        .map(as_rest)
        .collect()
}

type Key = (u64, String);

fn key(item: &Value) -> Key {
    (
        item["channel_type"].as_u64().unwrap(),
        item["channel_id"].as_str().unwrap().to_owned(),
    )
}

/// A channel with its unread count and last seq, or with its removal.
type Observation = (Key, Option<(Value, Value)>);

/// Every version that the devices of a user received, with its change. The same version must never
/// mean two changes.
#[derive(Default)]
pub struct Versions(Mutex<HashMap<i64, Observation>>);

impl Versions {
    fn record(&self, version: i64, key: Key, shown: Option<(Value, Value)>) {
        let observation = (key, shown);
        if let Some(before) = self.0.lock().unwrap().insert(version, observation.clone()) {
            assert_eq!(before, observation, "version {version} was assigned twice");
        }
    }
}

/// A client that stores its version.
pub struct Incremental {
    uid: String,
    pub version: i64,
    first: Option<i64>,
    msg_count: i64,
    held: BTreeMap<Key, Value>,
    versions: Arc<Versions>,
}

impl Incremental {
    pub fn new(uid: &str) -> Self {
        let versions = Arc::default();
        Self {
            uid: uid.to_owned(),
            version: 0,
            first: None,
            msg_count: 20,
            held: BTreeMap::new(),
            versions,
        }
    }

    /// Creates a client that holds this number of messages of each conversation, and shares the
    /// versions that it received with the user's other devices.
    pub fn holding(self, msg_count: i64, versions: Arc<Versions>) -> Self {
        Self {
            msg_count,
            versions,
            ..self
        }
    }

    /// Creates a client that reads in pages.
    pub fn in_pages(uid: &str, first: i64) -> Self {
        Self {
            first: Some(first),
            ..Self::new(uid)
        }
    }

    pub async fn sync(&mut self, server: &impl GraphqlClient) {
        let query = format!(
            "query ($uid: ID, $version: UInt53, $first: Int, $count: Int) {{
                conversations(uid: $uid, version: $version, msgCount: $count, first: $first) {{
                version reset hasMore conversations {{ {FIELDS} }} removed {{ channelId channelType version }} }} }}"
        );
        loop {
            let variables = json!({"uid": self.uid, "version": self.version, "first": self.first, "count": self.msg_count});
            let data = server.graphql(&query, variables).await;
            if !self.apply(&data["conversations"]) {
                return;
            }
        }
    }

    /// Applies a response, or an event, and returns whether there is more.
    pub fn apply(&mut self, answer: &Value) -> bool {
        let version = answer["version"].as_i64().unwrap();
        if answer["reset"] == true {
            self.held.clear();
        } else {
            assert!(
                version >= self.version,
                "the cursor went back from {} to {version}",
                self.version
            );
        }
        for conversation in answer["conversations"].as_array().unwrap() {
            let item = as_rest(conversation);
            let given = item["version"].as_i64().unwrap();
            assert!(
                given > self.version || answer["reset"] == true,
                "asked with {}, got {given}",
                self.version
            );
            assert!(given <= version, "{given} is above the cursor {version}");
            self.versions.record(
                given,
                key(&item),
                Some((item["unread"].clone(), item["last_msg_seq"].clone())),
            );
            self.held.insert(key(&item), item);
        }
        for removed in answer["removed"].as_array().unwrap() {
            let given = removed["version"].as_i64().unwrap();
            assert!(
                given > self.version,
                "{removed} is not above the cursor {}",
                self.version
            );
            let key = (
                removed["channelType"].as_u64().unwrap(),
                removed["channelId"].as_str().unwrap().to_owned(),
            );
            self.held.remove(&key);
            self.versions.record(given, key, None);
        }
        self.version = version;
        answer["hasMore"] == true
    }

    /// Returns the subscription for this device; its events apply as responses of a query do.
    pub fn subscription(&self) -> (String, Value) {
        let query = format!(
            "subscription ($uid: ID, $version: UInt53, $count: Int) {{
                conversationChanges(uid: $uid, version: $version, msgCount: $count) {{
                version reset hasMore conversations {{ {FIELDS} }} removed {{ channelId channelType version }} }} }}"
        );
        (
            query,
            json!({"uid": self.uid, "version": self.version, "count": self.msg_count}),
        )
    }

    /// Returns the device's unread count of a group.
    pub fn unread(&self, group: &str) -> Option<u64> {
        self.held
            .get(&(2, group.to_owned()))
            .and_then(|item| item["unread"].as_u64())
    }

    /// Returns whether the device holds exactly this.
    pub fn holds(&self, full: &[Value]) -> bool {
        self.held == full.iter().map(|item| (key(item), item.clone())).collect()
    }

    pub fn must_hold(&self, full: &[Value]) {
        self.must_hold_after(full, "");
    }

    pub fn must_hold_after(&self, full: &[Value], what: &str) {
        let full: BTreeMap<Key, Value> =
            full.iter().map(|item| (key(item), item.clone())).collect();
        assert_eq!(
            self.held, full,
            "{} at version {} {what}",
            self.uid, self.version
        );
    }
}

/// A client that names the messages that it holds, as WuKongIM's clients do.
pub struct LastSeqs {
    uid: String,
    version: i64,
    conversations: BTreeMap<Key, Value>,
    messages: BTreeMap<Key, BTreeMap<i64, Value>>,
}

impl LastSeqs {
    pub fn new(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            version: 0,
            conversations: BTreeMap::new(),
            messages: BTreeMap::new(),
        }
    }

    /// Syncs from 0 with everything that it holds named, and then from its version.
    pub async fn sync(&mut self, server: &Server) {
        for version in [0, self.version] {
            let named: Vec<String> = self
                .messages
                .iter()
                .filter_map(|((kind, id), held)| {
                    Some(format!("{id}:{kind}:{}", held.keys().next_back()?))
                })
                .collect();
            let request = json!({"uid": self.uid, "version": version, "last_msg_seqs": named.join("|"), "msg_count": 20});
            let answer = server.sync(request).await;
            if version == 0 {
                self.conversations.clear();
            }
            for mut item in answer {
                self.version = self.version.max(item["version"].as_i64().unwrap());
                let messages = self.messages.entry(key(&item)).or_default();
                for message in item
                    .as_object_mut()
                    .unwrap()
                    .remove("recents")
                    .unwrap()
                    .as_array()
                    .unwrap()
                {
                    messages.insert(message["message_seq"].as_i64().unwrap(), message.clone());
                }
                self.conversations.insert(key(&item), item);
            }
        }
    }

    /// Asserts the list itself. A late message below the client's last seq cannot reach it, because
    /// the client claims to hold that seq.
    pub fn must_list(&self, full: &[Value]) {
        assert_eq!(self.conversations.len(), full.len(), "{}", self.uid);
        for item in full {
            let mut known = item.clone();
            known.as_object_mut().unwrap().remove("recents");
            assert_eq!(
                self.conversations[&key(item)],
                known,
                "{}: {:?}",
                self.uid,
                key(item)
            );
        }
    }

    pub fn must_hold(&self, full: &[Value]) {
        self.must_list(full);
        for item in full {
            let recents = item["recents"].clone();
            for message in recents.as_array().unwrap() {
                let held = self.messages[&key(item)].get(&message["message_seq"].as_i64().unwrap());
                assert_eq!(
                    held,
                    Some(message),
                    "{} lacks a message of {:?}",
                    self.uid,
                    key(item)
                );
            }
        }
    }
}

/// A client that only knows v3's routes: it walks through what changed since its last complete walk.
pub struct Walker {
    uid: String,
    limit: u32,
    pub coverage: i64,
    held: BTreeMap<Key, Value>,
}

/// A walk that has not reached its last page yet.
#[derive(Default)]
pub struct Walk {
    cursor: Option<String>,
    pub is_done: bool,
}

impl Walker {
    pub fn new(uid: &str, limit: u32) -> Self {
        Self {
            uid: uid.to_owned(),
            limit,
            coverage: 0,
            held: BTreeMap::new(),
        }
    }

    /// Walks to the end. Before, it begins a walk that it does not complete.
    pub async fn walk(&mut self, server: &Server) {
        self.step(server, &mut Walk::default()).await;
        let mut walk = Walk::default();
        while !walk.is_done {
            self.step(server, &mut walk).await;
        }
    }

    /// Reads the next page of a walk.
    pub async fn step(&mut self, server: &Server, walk: &mut Walk) {
        let request = json!({"uid": self.uid, "limit": self.limit, "completed_coverage": self.coverage, "cursor": walk.cursor});
        let mut page = server.call("/conversation/list", request).await;
        if page["reset_required"] == true {
            self.held.clear();
            self.coverage = 0;
        }
        let unresolved = page["unresolved"].as_array().unwrap().clone();
        if !unresolved.is_empty() {
            let request = json!({"uid": self.uid, "channels": unresolved});
            let mut retry = server.call("/conversation/retry", request).await;
            for field in ["conversations", "deletes"] {
                let more = retry[field].as_array_mut().unwrap();
                page[field].as_array_mut().unwrap().append(more);
            }
        }
        let conversations = page["conversations"].as_array().unwrap();
        assert!(
            conversations.len() <= self.limit as usize + unresolved.len(),
            "{page}"
        );
        for item in conversations {
            self.held.insert(key(item), item.clone());
        }
        for gone in page["deletes"].as_array().unwrap() {
            self.held.remove(&key(gone));
        }
        walk.is_done = page["done"] == true;
        walk.cursor = page["next_cursor"].as_str().map(str::to_owned);
        if walk.is_done {
            let coverage = page["coverage"].as_i64().unwrap();
            assert!(
                coverage >= self.coverage,
                "the coverage went back from {} to {coverage}",
                self.coverage
            );
            self.coverage = coverage;
        } else {
            assert!(walk.cursor.is_some(), "{page}");
        }
    }

    /// Returns the channels of the conversations without messages that the user opened.
    pub fn opened(&self) -> Vec<&str> {
        let empty = self
            .held
            .values()
            .filter(|item| item["last_message"].is_null());
        empty
            .map(|item| {
                assert!(item["active_at"].as_i64().unwrap() > 0, "{item}");
                item["channel_id"].as_str().unwrap()
            })
            .collect()
    }

    /// Asserts that it holds the conversations that another walker holds.
    pub fn must_hold_as(&self, other: &Self) {
        let keys = |walker: &Self| walker.held.keys().cloned().collect::<Vec<Key>>();
        assert_eq!(keys(self), keys(other), "{}", self.uid);
    }

    /// Asserts that it holds the conversations of a full sync, and their last messages. A full sync
    /// does not list a conversation that the user only opened: its messages are from before the user
    /// joined, or there are none.
    pub fn must_hold(&self, full: &[Value]) {
        let full: BTreeMap<Key, Value> =
            full.iter().map(|item| (key(item), walked(item))).collect();
        let shown = self.held.iter().filter(|(key, item)| {
            let is_only_opened =
                item["active_at"].as_i64().unwrap_or(0) > 0 && !full.contains_key(*key);
            !item["last_message"].is_null() && !is_only_opened
        });
        let held: BTreeMap<Key, Value> = shown
            .map(|(key, item)| {
                let mut item = item.clone();
                for field in ["active_at", "deleted_to_seq"] {
                    item.as_object_mut().unwrap().remove(field);
                }
                let time = &mut item["last_message"]["server_timestamp_ms"];
                *time = json!(time.as_i64().unwrap().div_euclid(1000) * 1000);
                (key.clone(), item)
            })
            .collect();
        assert_eq!(held, full, "{} at coverage {}", self.uid, self.coverage);
    }
}

/// Converts a conversation of a sync to the form of a walk, without what a sync does not contain.
fn walked(item: &Value) -> Value {
    let last = &item["recents"][0];
    assert_eq!(last["message_seq"], item["last_msg_seq"], "{item}");
    let from = match last["from_uid"].as_str().unwrap() {
        "____system" => "",
        from => from,
    };
    json!({
        "channel_id": item["channel_id"],
        "channel_type": item["channel_type"],
        "read_seq": item["readed_to_msg_seq"],
        "unread": item["unread"],
        "last_message": {
            "message_id": last["message_id"],
            "message_idstr": last["message_idstr"],
            "message_seq": last["message_seq"],
            "from_uid": from,
            "client_msg_no": last["client_msg_no"],
            "server_timestamp_ms": last["timestamp"].as_i64().unwrap() * 1000,
            "payload": last["payload"],
        },
    })
}
