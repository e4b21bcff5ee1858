//! What goes over the wire: names, order and types as recorded from `WuKongIM`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::conversation::Item;
use crate::message::Message;

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
    pub recents: Vec<MessageShape>,
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

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<Message> for MessageShape {
    fn from(message: Message) -> Self {
        Self {
            // Messages with the other two flags are never stored.
            header: HeaderShape { no_persist: 0, red_dot: u8::from(message.red_dot), sync_once: 0 },
            setting: message.content.setting,
            message_id: message.message_id,
            message_idstr: message.message_id.to_string(),
            client_msg_no: message.client_msg_no,
            stream_no: message.content.stream_no,
            stream_seq: message.content.stream_seq,
            stream_flag: message.content.stream_flag,
            message_seq: message.seq,
            from_uid: message.from_uid,
            channel_id: message.channel.channel_id,
            channel_type: message.channel.channel_type.number(),
            topic: message.content.topic,
            expire: message.content.expire,
            timestamp: message.sent_at.div_euclid(1000),
            payload: STANDARD.encode(message.content.payload),
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
            last_client_msg_no: item.last_message.map(|message| message.client_msg_no).unwrap_or_default(),
            offset_msg_seq: 0,
            readed_to_msg_seq: (conversation.last_msg_seq - conversation.unread).max(0),
            version: conversation.version,
            recents: item.recents.into_iter().map(MessageShape::from).collect(),
        }
    }
}
