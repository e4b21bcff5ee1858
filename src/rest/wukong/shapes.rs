//! What goes over the wire: names, order and types as recorded from `WuKongIM`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::conversation::{Item, Removed};
use crate::message::{Message, Recents};

/// One conversation of a sync.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SyncItem {
    /// For a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// Red-dot messages of others since the user's read mark.
    pub unread: i64,
    /// Second of the last message.
    pub timestamp: i64,
    /// Seq of the last message.
    pub last_msg_seq: i64,
    /// Its client message number.
    pub last_client_msg_no: String,
    /// Always 0.
    pub offset_msg_seq: i64,
    /// `last_msg_seq` − `unread`, at least 0.
    pub readed_to_msg_seq: i64,
    /// The user's version of the last change; 0 in a paged answer, which is no cursor.
    pub version: i64,
    /// Newest first, never null.
    // Written apart, by `SyncItem::write`: their JSON is kept.
    #[serde(
        skip_serializing_if = "is_written_apart",
        serialize_with = "write_shapes"
    )]
    #[schema(value_type = Vec<MessageShape>, required = true)]
    pub recents: Recents,
}

/// One message.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct MessageShape {
    /// How it was to be treated.
    pub header: HeaderShape,
    /// Setting bits.
    pub setting: u8,
    /// Snowflake, above 2^53.
    pub message_id: i64,
    /// The same as a string.
    pub message_idstr: String,
    /// The sender's deduplication key.
    pub client_msg_no: String,
    /// Left out when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream_no: String,
    /// Left out when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub stream_seq: u32,
    /// Left out when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub stream_flag: u8,
    /// The number in the channel.
    pub message_seq: i64,
    /// The sender.
    pub from_uid: String,
    /// In a person channel the recipient's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// Left out when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// Seconds until it expires, 0 for never.
    pub expire: u32,
    /// Second it was sent.
    pub timestamp: i64,
    /// Standard padded base64.
    pub payload: String,
}

/// A message's header; each 0 or 1.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub struct HeaderShape {
    /// Not stored.
    pub no_persist: u8,
    /// Counts as unread.
    pub red_dot: u8,
    /// For commands.
    pub sync_once: u8,
}

/// An entry of a sync: a conversation, or, for who asks with `include_removed`, one that is gone.
#[derive(Clone, Debug, utoipa::ToSchema)]
#[serde(untagged)]
pub enum SyncEntry {
    /// A conversation.
    Item(SyncItem),
    /// One that is gone.
    Removed(RemovedItem),
}

/// A conversation that was deleted or left since `version`, or that the filters leave out now.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct RemovedItem {
    /// For a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// The user's version of that change.
    pub version: i64,
    /// 1
    #[schema(example = 1)]
    pub removed: u8,
    /// Always empty.
    pub recents: Vec<MessageShape>,
}

/// A conversation of `GET /conversations`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ListedItem {
    /// For a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// Red-dot messages of others since the user's read mark.
    pub unread: i64,
    /// Second of the last message.
    pub timestamp: i64,
    /// The last message.
    pub last_message: Option<MessageShape>,
}

/// A channel by its name.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ChannelShape {
    /// For a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
}

/// A channel's newest messages.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ChannelMessages {
    /// As it was asked for.
    pub channel_id: String,
    /// As it was asked for.
    pub channel_type: u8,
    /// Newest first.
    pub messages: Vec<MessageShape>,
}

/// A page of a channel's messages.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct HistoryShape {
    /// As it was asked for.
    pub start_message_seq: i64,
    /// As it was asked for.
    pub end_message_seq: i64,
    /// 1 when the page is full and the end not reached.
    pub more: u8,
    /// Oldest first.
    pub messages: Vec<MessageShape>,
}

/// A channel's largest message seq.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub struct MaxSeq {
    /// 0 when there is none.
    pub message_seq: i64,
}

/// What became of a message to many.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct BatchShape {
    /// Who did not get it.
    pub fail_uids: Vec<String>,
    /// Why, in the same order.
    pub reason: Vec<String>,
}

/// What a sender is told.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SentShape {
    /// As given, or as made.
    pub client_msg_no: String,
    /// Snowflake.
    pub message_id: i64,
    /// The number in the channel; 0 when it was not stored.
    pub message_seq: i64,
}

fn is_written_apart(_: &Recents) -> bool {
    true
}

fn write_shapes<S: Serializer>(recents: &Recents, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(recents.iter().map(|message| MessageShape::from(&**message)))
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<&Message> for MessageShape {
    fn from(message: &Message) -> Self {
        Self {
            // Messages with the other two flags are never stored.
            header: HeaderShape {
                no_persist: 0,
                red_dot: u8::from(message.red_dot),
                sync_once: 0,
            },
            setting: message.content.setting,
            message_id: message.message_id,
            message_idstr: message.message_id.to_string(),
            client_msg_no: message.client_msg_no.clone(),
            stream_no: message.content.stream_no.clone(),
            stream_seq: message.content.stream_seq,
            stream_flag: message.content.stream_flag,
            message_seq: message.seq,
            from_uid: message.from_uid.clone(),
            channel_id: message.channel.channel_id.clone(),
            channel_type: message.channel.channel_type.number(),
            topic: message.content.topic.clone(),
            expire: message.content.expire,
            timestamp: message.sent_at.div_euclid(1000),
            payload: STANDARD.encode(&message.content.payload),
        }
    }
}

impl SyncItem {
    /// Appends it as JSON.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(&mut *to, self)?;
        to.pop();
        to.extend_from_slice(b",\"recents\":[");
        self.recents.write_json(to, |message, to| {
            // A map of texts and numbers into memory.
            let _ = serde_json::to_writer(to, &MessageShape::from(message));
        });
        to.extend_from_slice(b"]}");
        Ok(())
    }

    /// What is answered for a channel in which the user has no conversation.
    #[must_use]
    pub fn none(channel_id: String, channel_type: u8) -> Self {
        Self {
            channel_id,
            channel_type,
            unread: 0,
            timestamp: 0,
            last_msg_seq: 0,
            last_client_msg_no: String::new(),
            offset_msg_seq: 0,
            readed_to_msg_seq: 0,
            version: 0,
            recents: Recents::default(),
        }
    }
}

/// Entries as a JSON array.
///
/// # Errors
/// Never in practice.
pub fn write_entries(entries: &[SyncEntry]) -> serde_json::Result<Vec<u8>> {
    let bytes = entries.iter().map(|entry| match entry {
        SyncEntry::Item(item) => 512 + item.recents.json_bytes(),
        SyncEntry::Removed(_) => 512,
    });
    let mut to = Vec::with_capacity(bytes.sum::<usize>() + 2);
    to.push(b'[');
    for entry in entries {
        match entry {
            SyncEntry::Item(item) => item.write(&mut to)?,
            SyncEntry::Removed(removed) => serde_json::to_writer(&mut to, removed)?,
        }
        to.push(b',');
    }
    if !entries.is_empty() {
        to.pop();
    }
    to.push(b']');
    Ok(to)
}

impl From<Removed> for RemovedItem {
    fn from(removed: Removed) -> Self {
        Self {
            channel_id: removed.channel.channel_id,
            channel_type: removed.channel.channel_type.number(),
            version: removed.version,
            removed: 1,
            recents: Vec::new(),
        }
    }
}

impl From<Item> for SyncItem {
    fn from(item: Item) -> Self {
        let conversation = item.conversation;
        Self {
            channel_id: conversation.channel.channel_id,
            channel_type: conversation.channel.channel_type.number(),
            unread: conversation.unread,
            timestamp: conversation.last_activity_at.div_euclid(1000),
            last_msg_seq: conversation.last_msg_seq,
            last_client_msg_no: item
                .last_message
                .map(|message| message.client_msg_no.clone())
                .unwrap_or_default(),
            offset_msg_seq: 0,
            readed_to_msg_seq: (conversation.last_msg_seq - conversation.unread).max(0),
            version: conversation.version,
            recents: item.recents,
        }
    }
}
