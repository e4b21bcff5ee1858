//! Messages, and the responses to sends and reads of messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use crate::model::{Message, SYSTEM_UID};

/// The response to a message that was sent: `{"data":…,"status":200}`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Sent)]
pub struct SendResponseDto {
    /// The data of the response.
    pub data: SentMessageDto,
    /// Always 200.
    #[schema(example = 200)]
    pub status: u16,
}

/// A message.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MessageShape)]
pub struct MessageDto {
    /// The delivery flags.
    pub header: MessageHeaderDto,
    /// Setting bits.
    pub setting: u8,
    /// The message ID: a snowflake, above 2^53.
    pub message_id: i64,
    /// The message ID as a string.
    pub message_idstr: String,
    /// The sender's deduplication key.
    pub client_msg_no: String,
    /// Omitted when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream_no: String,
    /// Omitted when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub stream_seq: u32,
    /// Omitted when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub stream_flag: u8,
    /// 1 if the stream has ended. Omitted when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub end: u8,
    /// Why the stream ended. Omitted when 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub end_reason: u8,
    /// The error that ended the stream. Omitted when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The text of the stream so far in standard base64 with padding. Omitted when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream_data: String,
    /// The events of the stream, as the WuKongIM describes them. Omitted when there are none.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Object, required = false)]
    pub event_meta: Value,
    /// From where to request more events. Omitted when there are none.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Object, required = false)]
    pub event_sync_hint: Value,
    /// The message's number in the channel.
    pub message_seq: i64,
    /// The sender's uid; empty for a message of the system.
    pub from_uid: String,
    /// The channel's ID; in a person channel the recipient's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// Omitted when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// Seconds until the message expires, 0 for never.
    pub expire: u32,
    /// Time of sending in epoch seconds.
    pub timestamp: i64,
    /// The content in standard base64 with padding.
    pub payload: String,
    /// The pieces of the stream's text (v1). Omitted when there are none.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Vec<Object>, required = false)]
    pub streams: Value,
}

/// Delivery flags, each 0 or 1.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = HeaderShape)]
pub struct MessageHeaderDto {
    /// The message was not stored.
    pub no_persist: u8,
    /// The message counts as unread.
    pub red_dot: u8,
    /// The message is a command for clients.
    pub sync_once: u8,
}

/// A page of a channel's messages.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = HistoryShape)]
pub struct HistoryDto {
    /// The start as requested.
    pub start_message_seq: i64,
    /// The end as requested.
    pub end_message_seq: i64,
    /// 1 if the page is full and the end is not reached.
    pub more: u8,
    /// The messages, oldest first.
    pub messages: Vec<MessageDto>,
}

/// Pages of several channels' messages.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = HistoryBatch)]
pub struct HistoryBatchDto {
    /// The pages in the requested order.
    pub items: Vec<HistoryItemDto>,
}

/// A page of one of several channels.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = HistoryItem)]
pub struct HistoryItemDto {
    /// The channel's ID as requested.
    pub channel_id: String,
    /// The channel's type as requested.
    pub channel_type: u8,
    /// The start as requested.
    pub start_message_seq: i64,
    /// The end as requested.
    pub end_message_seq: i64,
    /// 1 if the page is full and the end is not reached.
    pub more: u8,
    /// The messages, oldest first.
    pub messages: Vec<MessageDto>,
    /// The reason why the messages are missing; omitted if they are not.
    #[serde(skip_serializing_if = "str::is_empty")]
    #[schema(required = false)]
    pub error: &'static str,
}

/// A message, or `{"status":404}`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = FoundMessage)]
pub enum FoundMessageDto {
    /// The message.
    Message(Box<MessageDto>),
    /// There is no message.
    None {
        /// Always 404.
        #[schema(example = 404)]
        status: u16,
    },
}

impl FoundMessageDto {
    /// Creates the answer for a message that does not exist.
    #[must_use]
    pub fn none() -> Self {
        Self::None { status: 404 }
    }
}

/// The largest message seq of a channel.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MaxSeq)]
pub struct MaxSeqDto {
    /// 0 if there is no message.
    pub message_seq: i64,
}

/// The result of sending a message to many users.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = BatchShape)]
pub struct SendBatchDto {
    /// The users that the message could not be sent to.
    pub fail_uids: Vec<String>,
    /// The reasons, in the same order.
    pub reason: Vec<String>,
}

/// The result of sending a message.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SentShape)]
pub struct SentMessageDto {
    /// The client message number, as given or as generated.
    pub client_msg_no: String,
    /// The message ID: a snowflake.
    pub message_id: i64,
    /// The message's number in the channel; 0 if it was not stored.
    pub message_seq: i64,
}

/// The body of a webhook: an array of messages for `msg.notify`, and one message for `msg.offline`,
/// which also has its recipients. Webhooks are decoded by `decode_webhook`; this type describes
/// them.
#[derive(Clone, Debug, utoipa::ToSchema)]
#[serde(untagged)]
pub enum WebhookBody {
    /// The messages of `msg.notify`.
    Notify(Vec<MessageDto>),
    /// The message of `msg.offline`.
    Offline(Box<MessageDto>),
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Returns the sender's uid: empty for the system, which `WuKongIM` names in requests only.
pub(super) fn shown_sender(message: &Message) -> String {
    if message.from_uid == SYSTEM_UID {
        return String::new();
    }
    message.from_uid.clone()
}

impl From<&Message> for MessageDto {
    fn from(message: &Message) -> Self {
        let stream = &message.content.stream;
        let state = stream.state().unwrap_or_default();
        Self {
            // Messages with one of the other two flags are never stored.
            header: MessageHeaderDto {
                no_persist: 0,
                red_dot: u8::from(message.red_dot),
                sync_once: 0,
            },
            setting: message.content.setting,
            message_id: message.message_id.0,
            message_idstr: message.message_id.to_string(),
            client_msg_no: message.client_msg_no.clone(),
            stream_no: stream.no.clone(),
            stream_seq: stream.seq,
            stream_flag: stream.flag,
            end: state.end,
            end_reason: state.end_reason,
            error: state.error,
            stream_data: state.stream_data,
            event_meta: state.event_meta,
            event_sync_hint: state.event_sync_hint,
            message_seq: message.seq.0,
            from_uid: shown_sender(message),
            channel_id: message.channel.channel_id.clone(),
            channel_type: message.channel.channel_type.number(),
            topic: message.content.topic.clone(),
            expire: message.content.expire,
            timestamp: message.sent_at.seconds(),
            payload: STANDARD.encode(&message.content.payload),
            streams: state.streams,
        }
    }
}

/// Appends a message as JSON.
pub fn write_message(message: &Message, to: &mut Vec<u8>) {
    // Writing strings and numbers to memory does not fail.
    let _ = serde_json::to_writer(to, &MessageDto::from(message));
}
