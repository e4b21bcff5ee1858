use std::sync::Arc;

use async_graphql::{ID, InputObject, Object, SimpleObject};
use bytes::Bytes;

use super::super::json::as_json;
use super::super::scalars::{Base64, DateTime, Json, UInt53};
use super::id::NodeId;
use crate::message;

/// How a message to send is to be treated.
#[derive(Clone, Copy, Debug, InputObject)]
pub struct MessageHeaderInput {
    /// Only hand it on, do not store it.
    #[graphql(default_with = "Some(false)")]
    no_persist: Option<bool>,
    /// It counts as unread.
    #[graphql(default_with = "Some(true)")]
    red_dot: Option<bool>,
    /// A command for clients: handed on, not stored.
    #[graphql(default_with = "Some(false)")]
    sync_once: Option<bool>,
}

impl Default for MessageHeaderInput {
    fn default() -> Self {
        Self {
            no_persist: Some(false),
            red_dot: Some(true),
            sync_once: Some(false),
        }
    }
}

impl MessageHeaderInput {
    pub(in crate::graphql) fn red_dot(self) -> bool {
        self.red_dot.unwrap_or(true)
    }

    /// Whether it is handed on and not stored.
    pub(in crate::graphql) fn transient(self) -> bool {
        self.no_persist.unwrap_or_default() || self.sync_once.unwrap_or_default()
    }
}

/// How a message was to be treated.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct MessageHeader {
    /// It was not stored.
    no_persist: bool,
    /// It counts as unread.
    red_dot: bool,
    /// It was a command for clients.
    sync_once: bool,
}

/// A message. Once stored it never changes.
#[derive(Clone, Debug)]
pub struct Message(pub Arc<message::Message>);

impl From<message::Message> for Message {
    fn from(message: message::Message) -> Self {
        Self(Arc::new(message))
    }
}

/// A message. Once stored it never changes.
#[Object]
impl Message {
    /// The global id.
    pub(super) async fn id(&self) -> ID {
        NodeId::Message(self.0.channel_key(), self.0.message_id).encode()
    }

    /// The message's id in the messaging system, a number above 2^53 in a string.
    async fn message_id(&self) -> ID {
        ID(self.0.message_id.to_string())
    }

    /// The message's number in its channel: 1, 2, 3 …; 0 when it was not stored.
    async fn message_seq(&self) -> UInt53 {
        self.0.seq.into()
    }

    /// The sender's deduplication key.
    async fn client_msg_no(&self) -> &str {
        &self.0.client_msg_no
    }

    /// Who sent it.
    async fn from_uid(&self) -> ID {
        ID(self.0.from_uid.clone())
    }

    /// The channel's id; in a person channel the recipient's uid.
    async fn channel_id(&self) -> ID {
        ID(self.0.channel.channel_id.clone())
    }

    /// 1 person, 2 group, 3 customer service, … up to 255.
    async fn channel_type(&self) -> i32 {
        i32::from(self.0.channel.channel_type.number())
    }

    /// How it was to be treated.
    async fn header(&self) -> MessageHeader {
        let stored = self.0.seq > 0;
        MessageHeader {
            no_persist: !stored,
            red_dot: self.0.red_dot,
            sync_once: false,
        }
    }

    /// The messaging system's setting bits.
    async fn setting(&self) -> i32 {
        i32::from(self.0.content.setting)
    }

    /// A topic inside the channel.
    async fn topic(&self) -> Option<&str> {
        Some(self.0.content.topic.as_str()).filter(|topic| !topic.is_empty())
    }

    /// When it was sent.
    async fn sent_at(&self) -> DateTime {
        DateTime(self.0.sent_at)
    }

    /// Seconds until it expires, 0 for never.
    async fn expire(&self) -> UInt53 {
        i64::from(self.0.content.expire).into()
    }

    /// The bytes as sent.
    async fn payload(&self) -> Base64 {
        Base64(self.0.content.payload.clone())
    }

    /// The payload as it was sent, where it is JSON (RFC 8259) that nests at most 500 levels deep;
    /// otherwise null.
    async fn content(&self) -> Option<Json> {
        as_json(&self.0.content.payload).map(|json| Json(Bytes::copy_from_slice(json)))
    }
}
