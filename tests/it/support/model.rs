//! The reference model of conversations, written from the design without reading the server's code.
//! It counts messages one by one where the server stores marks.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

pub type Channel = (u8, String, String);

/// The time of the test server's clock, epoch ms.
pub const NOW: i64 = 1_795_393_000_000;

#[derive(Clone, Debug)]
pub struct Message {
    pub shape: Value,
    pub from: String,
    pub red: bool,
    /// Number of the channel's messages that arrived before it.
    pub arrived: usize,
}

/// The unread count that the user set, the number of messages that had arrived, and the position at
/// that time.
#[derive(Clone, Copy, Debug)]
pub struct SetByHand {
    pub unread: i64,
    pub arrived: usize,
    pub position: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Member {
    pub in_it: bool,
    pub deleted_to: i64,
    pub joined: i64,
    pub left: i64,
    /// Time of the removal, epoch ms.
    pub left_at: Option<i64>,
    /// The largest seq that was read, deleted or joined at; own messages are counted separately.
    pub read_seq: i64,
    pub by_hand: Option<SetByHand>,
    /// For explaining differences: what the user has ever done here.
    pub has_sent: bool,
    pub has_set_unread: bool,
    pub has_deleted: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub messages: HashMap<Channel, BTreeMap<i64, Message>>,
    pub members: HashMap<(String, Channel), Member>,
}

/// The identity of a channel; for a person channel the pair.
pub fn channel(viewer: &str, id: &str, kind: u8) -> Channel {
    if kind != 1 {
        return (kind, id.to_owned(), String::new());
    }
    let (a, b) = if viewer < id {
        (viewer, id)
    } else {
        (id, viewer)
    };
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
        self.messages
            .get(channel)
            .and_then(|messages| messages.keys().next_back().copied())
            .unwrap_or(0)
    }

    /// Returns the number of red-dot messages of others above a seq, among the messages that
    /// arrived after the first `arrived` ones.
    fn red_of_others(&self, channel: &Channel, uid: &str, above: i64, arrived: usize) -> i64 {
        let messages = self.messages.get(channel).into_iter().flatten();
        let counts = |seq: i64, message: &Message| {
            seq > above && message.red && message.from != uid && message.arrived >= arrived
        };
        messages
            .filter(|(seq, message)| counts(**seq, message))
            .count() as i64
    }

    fn arrived(&self, channel: &Channel) -> usize {
        self.messages.get(channel).map_or(0, BTreeMap::len)
    }

    fn position(&self, channel: &Channel, uid: &str, member: &Member) -> i64 {
        let own = self
            .messages
            .get(channel)
            .into_iter()
            .flatten()
            .filter(|(_, message)| message.from == uid);
        own.map(|(seq, _)| *seq)
            .max()
            .unwrap_or(0)
            .max(member.read_seq)
    }

    fn unread_above(&self, channel: &Channel, uid: &str, member: &Member, position: i64) -> i64 {
        let all = self.red_of_others(channel, uid, position, 0);
        let Some(set) = member.by_hand else {
            return all;
        };
        let unread = set.unread + self.red_of_others(channel, uid, position, set.arrived);
        // The position moved: unread is at most the number of messages above it.
        if position == set.position {
            unread
        } else {
            unread.min(all)
        }
    }

    pub fn unread(&self, channel: &Channel, uid: &str, member: &Member) -> i64 {
        self.unread_above(channel, uid, member, self.position(channel, uid, member))
    }

    /// Adds a message with its seq, in the form of `recents`.
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
        let id = if kind == 1 && id == format!("{from}@{from}") {
            from
        } else {
            id
        };
        let channel = channel(from, id, kind);
        let seq = shape["message_seq"].as_i64().unwrap();
        let stored = self.messages.entry(channel.clone()).or_default();
        let is_same = stored
            .get(&seq)
            .is_some_and(|other| other.shape["message_id"] == shape["message_id"]);
        if !is_same
            && (stored.contains_key(&seq)
                || stored
                    .values()
                    .any(|other| other.shape["message_id"] == shape["message_id"]))
        {
            return;
        }
        if kind == 1 && from != "____system" && id != "____system" {
            for uid in [from, id] {
                self.members
                    .entry((uid.to_owned(), channel.clone()))
                    .or_default()
                    .in_it = true;
            }
        }
        // The sender of a group message becomes a member.
        if kind != 1 && from != "____system" {
            self.receive(
                from,
                &channel,
                seq,
                shape["timestamp"]
                    .as_i64()
                    .map_or(NOW, |seconds| seconds * 1000),
            );
        }
        if is_same {
            return;
        }
        let mut shape = shape.clone();
        // Answers do not name the system.
        shape["from_uid"] = json!(if from == "____system" { "" } else { from });
        let message = Message {
            shape,
            from: from.to_owned(),
            red: header["red_dot"] == 1,
            arrived: self.arrived(&channel),
        };
        self.messages
            .entry(channel.clone())
            .or_default()
            .insert(seq, message);
        if let Some(member) = self.members.get_mut(&(from.to_owned(), channel)) {
            member.has_sent = true;
        }
    }

    /// Begins a membership. The position is the larger of its start and the deletion.
    fn begin(&mut self, uid: &str, channel: &Channel, joined: i64) {
        let member = self
            .members
            .entry((uid.to_owned(), channel.clone()))
            .or_default();
        member.in_it = true;
        member.joined = joined;
        member.read_seq = joined.max(member.deleted_to);
        member.by_hand = None;
    }

    pub fn join(&mut self, uid: &str, channel: &Channel) {
        if !self
            .members
            .get(&(uid.to_owned(), channel.clone()))
            .is_some_and(|member| member.in_it)
        {
            self.begin(uid, channel, self.last_seq(channel));
        }
    }

    pub fn leave(&mut self, uid: &str, channel: &Channel) {
        let left = self.last_seq(channel);
        let member = self
            .members
            .entry((uid.to_owned(), channel.clone()))
            .or_default();
        if member.in_it || member.left_at.is_none() {
            member.in_it = false;
            member.left = left;
        }
        member.left_at = Some(NOW);
    }

    /// A message shows that the user was a member when it was sent, epoch ms.
    pub fn receive(&mut self, uid: &str, channel: &Channel, seq: i64, sent_at: i64) {
        let member = self
            .members
            .get(&(uid.to_owned(), channel.clone()))
            .cloned()
            .unwrap_or_default();
        let stands = member
            .left_at
            .is_none_or(|left_at| seq > member.left && sent_at > left_at + 10_000);
        if !member.in_it && stands {
            self.begin(uid, channel, seq - 1);
        }
    }

    fn is_listed(&self, channel: &Channel, member: &Member) -> bool {
        member.in_it
            && ![6, 9].contains(&channel.0)
            && self.last_seq(channel) > member.deleted_to.max(member.joined)
    }

    /// Reads up to a seq, or everything. With `forced`, a deletion, it acts also below the
    /// position.
    fn read(&mut self, uid: &str, channel: &Channel, up_to: Option<i64>, forced: bool) {
        let key = (uid.to_owned(), channel.clone());
        let Some(mut member) = self
            .members
            .get(&key)
            .filter(|member| member.in_it)
            .cloned()
        else {
            return;
        };
        let position = self.position(channel, uid, &member);
        if !forced && up_to.is_some_and(|up_to| up_to < position) {
            return;
        }
        let new = position.max(up_to.unwrap_or_else(|| self.last_seq(channel)));
        if member.by_hand.is_some() {
            let all = self.red_of_others(channel, uid, new, 0);
            let unread = self.unread_above(channel, uid, &member, new).min(all);
            let set = SetByHand {
                unread,
                arrived: self.arrived(channel),
                position: new,
            };
            member.by_hand = (unread != all).then_some(set);
        }
        member.read_seq = new;
        self.members.insert(key, member);
    }

    pub fn set_unread(&mut self, uid: &str, channel: &Channel, unread: i64, up_to: Option<i64>) {
        let key = (uid.to_owned(), channel.clone());
        let Some(mut member) = self.members.get(&key).cloned() else {
            return;
        };
        let listed = self.is_listed(channel, &member);
        if unread == 0 {
            if listed || up_to.is_some_and(|up_to| up_to > self.last_seq(channel)) {
                self.read(uid, channel, up_to, false);
            }
        } else if listed {
            let position = self.position(channel, uid, &member);
            let above = up_to.map_or(0, |up_to| {
                self.red_of_others(channel, uid, up_to.max(position), 0)
            });
            member.by_hand = Some(SetByHand {
                unread: unread + above,
                arrived: self.arrived(channel),
                position,
            });
            self.members.insert(key.clone(), member);
        }
        if listed && let Some(member) = self.members.get_mut(&key) {
            member.has_set_unread = true;
        }
    }

    /// The user has synced: later messages are counted into the number set by hand, so that later
    /// reads of the list need not count them. A message that arrived late below the head then stays
    /// in that number when the position moves past it.
    pub fn look(&mut self, uid: &str) {
        let keys: Vec<(String, Channel)> = self
            .members
            .keys()
            .filter(|(owner, _)| owner == uid)
            .cloned()
            .collect();
        for key in keys {
            self.open(uid, &key.1);
        }
    }

    /// The same for one conversation, which the user opens.
    pub fn open(&mut self, uid: &str, channel: &Channel) {
        let key = (uid.to_owned(), channel.clone());
        let Some(mut member) = self.members.get(&key).cloned() else {
            return;
        };
        if member.by_hand.is_some() && member.in_it {
            let position = self.position(channel, uid, &member);
            let unread = self.unread(channel, uid, &member);
            member.by_hand = Some(SetByHand {
                unread,
                arrived: self.arrived(channel),
                position,
            });
            self.members.insert(key, member);
        }
    }

    pub fn delete(&mut self, uid: &str, channel: &Channel, up_to: Option<i64>) {
        let key = (uid.to_owned(), channel.clone());
        let Some(member) = self
            .members
            .get(&key)
            .filter(|member| member.in_it)
            .cloned()
        else {
            return;
        };
        let last = self.last_seq(channel);
        let up_to = up_to.unwrap_or(last);
        if !self.is_listed(channel, &member) && up_to <= last {
            return;
        }
        self.read(uid, channel, Some(up_to), true);
        if let Some(member) = self.members.get_mut(&key) {
            member.deleted_to = member.deleted_to.max(up_to);
            member.has_deleted = true;
        }
    }

    /// Returns the result of a full sync, without versions.
    pub fn full(
        &self,
        uid: &str,
        msg_count: usize,
        held: &HashMap<(String, u8), i64>,
    ) -> Vec<Value> {
        let mut items = Vec::new();
        for ((owner, channel), member) in &self.members {
            if owner != uid || !self.is_listed(channel, member) {
                continue;
            }
            let id = seen_by(channel, uid);
            let messages = &self.messages[channel];
            let (last_seq, last) = messages.iter().next_back().unwrap();
            let newest = messages
                .iter()
                .rev()
                .filter(|(seq, _)| **seq > member.deleted_to)
                .take(msg_count);
            let unread = self.unread(channel, uid, member);
            let held = held.get(&(id.clone(), channel.0)).copied().unwrap_or(0);
            let recents: Vec<Value> = newest
                .filter(|(seq, _)| **seq > held)
                .map(|(_, message)| message.shape.clone())
                .collect();
            items.push(json!({
                "channel_id": id,
                "channel_type": channel.0,
                "unread": unread,
                "timestamp": last.shape["timestamp"],
                "last_msg_seq": last_seq,
                "last_client_msg_no": last.shape["client_msg_no"],
                "offset_msg_seq": 0,
                "readed_to_msg_seq": (last_seq - unread).max(0),
                "recents": recents,
            }));
        }
        items.sort_by_key(|item| {
            let id = item["channel_id"].as_str().unwrap().as_bytes().to_vec();
            (
                -item["timestamp"].as_i64().unwrap(),
                item["channel_type"].as_u64().unwrap(),
                id,
            )
        });
        items
    }

    /// Returns the model's state of one conversation.
    pub fn member(&self, uid: &str, id: &str, kind: u8) -> Option<&Member> {
        self.members.get(&(uid.to_owned(), channel(uid, id, kind)))
    }
}

/// Returns items without the fields that the model does not compute.
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
