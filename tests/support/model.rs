//! The reference: what conversations are, written from the design without a look at the server's code. It counts messages
//! one by one where the server keeps marks.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

pub type Channel = (u8, String, String);

#[derive(Clone, Debug)]
pub struct Message {
    pub shape: Value,
    pub from: String,
    pub red: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Member {
    pub in_it: bool,
    pub deleted_to: i64,
    pub joined: i64,
    pub left: i64,
    pub unread: i64,
    /// For the explanations of differences: what the user ever did here.
    pub has_sent: bool,
    pub has_set_unread: bool,
    pub has_deleted: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub messages: HashMap<Channel, BTreeMap<i64, Message>>,
    pub members: HashMap<(String, Channel), Member>,
}

/// The identity of a channel: for a person channel the pair.
pub fn channel(viewer: &str, id: &str, kind: u8) -> Channel {
    if kind != 1 {
        return (kind, id.to_owned(), String::new());
    }
    let (a, b) = if viewer < id { (viewer, id) } else { (id, viewer) };
    (1, a.to_owned(), b.to_owned())
}

fn seen_by(channel: &Channel, uid: &str) -> String {
    if channel.0 != 1 {
        channel.1.clone()
    } else if channel.1 == uid {
        channel.2.clone()
    } else {
        channel.1.clone()
    }
}

impl Model {
    pub fn last_seq(&self, channel: &Channel) -> i64 {
        self.messages.get(channel).and_then(|messages| messages.keys().next_back().copied()).unwrap_or(0)
    }

    fn red_of_others(&self, channel: &Channel, uid: &str, above: i64) -> i64 {
        let messages = self.messages.get(channel).into_iter().flatten();
        messages.filter(|(seq, message)| **seq > above && message.red && message.from != uid).count() as i64
    }

    /// A message with its seq, as it would show in `recents`.
    pub fn message(&mut self, shape: &Value) {
        let header = &shape["header"];
        let id = shape["channel_id"].as_str().unwrap();
        if header["sync_once"] == 1 || header["no_persist"] == 1 || id.ends_with("____cmd") {
            return;
        }
        let from = match shape["from_uid"].as_str().unwrap_or_default() {
            "" => "____system",
            from => from,
        };
        let kind = shape["channel_type"].as_u64().unwrap() as u8;
        let channel = channel(from, id, kind);
        let seq = shape["message_seq"].as_i64().unwrap();
        let stored = self.messages.get(&channel);
        let repeated = stored.is_some_and(|stored| stored.contains_key(&seq))
            || self.messages.values().flat_map(BTreeMap::values).any(|other| other.shape["message_id"] == shape["message_id"]);
        if repeated {
            return;
        }
        if kind == 1 && from != "____system" && id != "____system" {
            for uid in [from, id] {
                self.members.entry((uid.to_owned(), channel.clone())).or_default().in_it = true;
            }
        }
        let late = seq < self.last_seq(&channel);
        let red = header["red_dot"] == 1;
        let above = self.red_of_others(&channel, from, seq);
        let mut shape = shape.clone();
        shape["from_uid"] = json!(from);
        self.messages.entry(channel.clone()).or_default().insert(seq, Message { shape, from: from.to_owned(), red });
        for ((uid, other), member) in &mut self.members {
            if *other != channel {
                continue;
            }
            if uid == from {
                member.has_sent = true;
                member.unread = if late { member.unread.min(above) } else { 0 };
            } else if red && seq > member.deleted_to.max(member.joined) {
                member.unread += 1;
            }
        }
    }

    pub fn join(&mut self, uid: &str, channel: &Channel) {
        let joined = self.last_seq(channel);
        let member = self.members.entry((uid.to_owned(), channel.clone())).or_default();
        if !member.in_it {
            member.in_it = true;
            member.joined = joined;
            member.unread = 0;
        }
    }

    pub fn leave(&mut self, uid: &str, channel: &Channel) {
        let left = self.last_seq(channel);
        if let Some(member) = self.members.get_mut(&(uid.to_owned(), channel.clone())).filter(|member| member.in_it) {
            member.in_it = false;
            member.left = left;
        }
    }

    /// Somebody received a message of a group and must be in it.
    pub fn receive(&mut self, uid: &str, channel: &Channel, seq: i64) {
        let unread = self.red_of_others(channel, uid, seq - 1);
        let member = self.members.entry((uid.to_owned(), channel.clone())).or_default();
        let comes = !member.in_it && (member.left == 0 || member.left < seq);
        if comes {
            member.in_it = true;
            member.joined = seq - 1;
            member.unread = unread;
        }
    }

    fn is_listed(&self, channel: &Channel, member: &Member) -> bool {
        member.in_it && ![6, 9].contains(&channel.0) && self.last_seq(channel) > member.deleted_to.max(member.joined)
    }

    fn listed(&mut self, uid: &str, channel: &Channel) -> Option<&mut Member> {
        let key = (uid.to_owned(), channel.clone());
        let listed = self.members.get(&key).is_some_and(|member| self.is_listed(channel, member));
        if listed { self.members.get_mut(&key) } else { None }
    }

    pub fn set_unread(&mut self, uid: &str, channel: &Channel, unread: i64) {
        if let Some(member) = self.listed(uid, channel) {
            member.unread = unread;
            member.has_set_unread = true;
        }
    }

    pub fn delete(&mut self, uid: &str, channel: &Channel) {
        let last = self.last_seq(channel);
        if let Some(member) = self.listed(uid, channel) {
            member.deleted_to = last;
            member.unread = 0;
            member.has_deleted = true;
        }
    }

    /// What a full sync shows, without versions.
    pub fn full(&self, uid: &str, msg_count: usize, held: &HashMap<(String, u8), i64>) -> Vec<Value> {
        let mut items = Vec::new();
        for ((owner, channel), member) in &self.members {
            if owner != uid || !self.is_listed(channel, member) {
                continue;
            }
            let id = seen_by(channel, uid);
            let messages = &self.messages[channel];
            let (last_seq, last) = messages.iter().next_back().unwrap();
            let newest = messages.iter().rev().filter(|(seq, _)| **seq > member.deleted_to).take(msg_count);
            let held = held.get(&(id.clone(), channel.0)).copied().unwrap_or(0);
            let recents: Vec<Value> = newest.filter(|(seq, _)| **seq > held).map(|(_, message)| message.shape.clone()).collect();
            items.push(json!({
                "channel_id": id,
                "channel_type": channel.0,
                "unread": member.unread,
                "timestamp": last.shape["timestamp"],
                "last_msg_seq": last_seq,
                "last_client_msg_no": last.shape["client_msg_no"],
                "offset_msg_seq": 0,
                "readed_to_msg_seq": (last_seq - member.unread).max(0),
                "recents": recents,
            }));
        }
        items.sort_by_key(|item| {
            let id = item["channel_id"].as_str().unwrap().as_bytes().to_vec();
            (-item["timestamp"].as_i64().unwrap(), item["channel_type"].as_u64().unwrap(), id)
        });
        items
    }

    /// What the model knows of one conversation.
    pub fn member(&self, uid: &str, id: &str, kind: u8) -> Option<&Member> {
        self.members.get(&(uid.to_owned(), channel(uid, id, kind)))
    }
}

/// Answers without what the model does not know.
pub fn without_versions(items: &[Value]) -> Vec<Value> {
    items
        .iter()
        .map(|item| {
            let mut item = item.clone();
            item.as_object_mut().unwrap().remove("version");
            item
        })
        .collect()
}
