use std::sync::Arc;

use async_graphql::{ID, InputObject, Object, SimpleObject};
use bytes::Bytes;

use super::node_id::NodeId;
use crate::graphql::json::as_json;
use crate::graphql::scalars::{Base64, DateTime, Json, UInt53};
use crate::model;

/// Delivery flags of a message to send.
#[derive(Clone, Copy, Debug, InputObject)]
pub struct MessageHeaderInput {
    /// True if the message is delivered without being stored.
    #[graphql(default_with = "Some(false)")]
    no_persist: Option<bool>,
    /// True if the message counts as unread.
    #[graphql(default_with = "Some(true)")]
    red_dot: Option<bool>,
    /// True if the message is a command for clients, which is delivered without being stored.
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

    /// Returns whether the message is delivered without being stored.
    pub(in crate::graphql) fn transient(self) -> bool {
        self.no_persist.unwrap_or_default() || self.sync_once.unwrap_or_default()
    }
}

/// Delivery flags of a message.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct MessageHeader {
    /// True if the message was not stored.
    no_persist: bool,
    /// True if the message counts as unread.
    red_dot: bool,
    /// True if the message was a command for clients.
    sync_once: bool,
}

/// A message. Stored messages never change, except that fields of a stream may be completed.
#[derive(Clone, Debug)]
pub struct Message(pub Arc<model::Message>);

impl From<model::Message> for Message {
    fn from(message: model::Message) -> Self {
        Self(Arc::new(message))
    }
}

/// A message. Stored messages never change, except that fields of a stream may be completed.
#[Object]
impl Message {
    /// The global ID.
    pub(super) async fn id(&self) -> ID {
        NodeId::Message(self.0.channel_key(), self.0.message_id).encode()
    }

    /// The message's ID in the messaging system: a number, above 2^53, as a string.
    async fn message_id(&self) -> ID {
        ID(self.0.message_id.to_string())
    }

    /// The message's number in its channel: 1, 2, 3 …; 0 if it was not stored.
    async fn message_seq(&self) -> UInt53 {
        self.0.seq.into()
    }

    /// The sender's deduplication key.
    async fn client_msg_no(&self) -> &str {
        &self.0.client_msg_no
    }

    /// The sender's uid.
    async fn from_uid(&self) -> ID {
        ID(self.0.from_uid.clone())
    }

    /// The channel's ID; in a person channel the recipient's uid.
    async fn channel_id(&self) -> ID {
        ID(self.0.channel.channel_id.clone())
    }

    /// 1 person, 2 group, 3 customer service, … up to 255.
    async fn channel_type(&self) -> i32 {
        i32::from(self.0.channel.channel_type.number())
    }

    /// The delivery flags.
    async fn header(&self) -> MessageHeader {
        let stored = self.0.seq > model::Seq::ZERO;
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

    /// A topic within the channel.
    async fn topic(&self) -> Option<&str> {
        Some(self.0.content.topic.as_str()).filter(|topic| !topic.is_empty())
    }

    /// The number of the stream that the message begins.
    async fn stream_no(&self) -> Option<&str> {
        Some(self.0.content.stream.no.as_str()).filter(|no| !no.is_empty())
    }

    /// The text of the stream so far.
    async fn stream_data(&self) -> Option<Base64> {
        self.0.content.stream.data().map(Base64)
    }

    /// True if the stream has ended; null for a message without a stream.
    async fn stream_ended(&self) -> Option<bool> {
        self.0.content.stream.has_ended()
    }

    /// When the message was sent.
    async fn sent_at(&self) -> DateTime {
        DateTime(self.0.sent_at)
    }

    /// Seconds until the message expires, 0 for never.
    async fn expire(&self) -> UInt53 {
        i64::from(self.0.content.expire).into()
    }

    /// The content as sent.
    async fn payload(&self) -> Base64 {
        Base64(self.0.content.payload.clone())
    }

    /// The payload as a JSON value, if it is JSON (RFC 8259) that nests at most 500 levels deep;
    /// otherwise null.
    async fn content(&self) -> Option<Json> {
        as_json(&self.0.content.payload).map(|json| Json(Bytes::copy_from_slice(json)))
    }
}
