//! Response bodies: names, order and types as recorded from `WuKongIM`. The names of their schemas
//! in the `OpenAPI` document (`schema(as = …)`) are published and stay.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::conversation::{ConversationRemoval, ConversationWithMessages};
use crate::message::MessageSlice;
use crate::model::{Message, Seq};

/// The body of a success without data.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Done)]
pub struct StatusOk {
    /// Always 200.
    #[schema(example = 200)]
    pub status: u16,
}

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

/// The body of every error.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Envelope {
    /// The problem, naming the field.
    #[schema(example = "uid must be a string")]
    pub msg: String,
    /// The HTTP status.
    #[schema(example = 400)]
    pub status: u16,
}

/// A conversation of a sync.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SyncItem)]
pub struct ConversationDto {
    /// The channel's ID; for a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// Number of red-dot messages of others above the user's read position.
    pub unread: i64,
    /// Time of the last message in epoch seconds.
    pub timestamp: i64,
    /// Seq of the last message.
    pub last_msg_seq: i64,
    /// Client message number of the last message.
    pub last_client_msg_no: String,
    /// Always 0.
    pub offset_msg_seq: i64,
    /// `last_msg_seq` − `unread`, at least 0.
    pub readed_to_msg_seq: i64,
    /// The user's version of the last change; 0 in a paged answer, whose versions must not be used
    /// as a cursor.
    pub version: i64,
    /// The newest messages, newest first; never null.
    // `ConversationDto::write` serialises this field separately, because the JSON of messages is
    // cached.
    #[serde(
        skip_serializing_if = "is_written_separately",
        serialize_with = "write_messages"
    )]
    #[schema(value_type = Vec<MessageDto>, required = true)]
    pub recents: MessageSlice,
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
    /// The message's number in the channel.
    pub message_seq: i64,
    /// The sender's uid.
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

/// An entry of a sync: a conversation, or, with `include_removed`, a conversation that is not
/// listed any more.
#[derive(Clone, Debug, utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = SyncEntry)]
pub enum SyncEntryDto {
    /// A conversation.
    Item(ConversationDto),
    /// A conversation that is not listed any more.
    Removed(RemovedConversationDto),
}

/// A conversation that was deleted or left since `version`, or that does not match the filters any
/// more.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RemovedItem)]
pub struct RemovedConversationDto {
    /// The channel's ID; for a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// The user's version of this change.
    pub version: i64,
    /// Always 1.
    #[schema(example = 1)]
    pub removed: u8,
    /// Always empty.
    pub recents: Vec<MessageDto>,
}

/// A conversation of `GET /conversations`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ListedItem)]
pub struct ListedConversationDto {
    /// The channel's ID; for a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// Number of red-dot messages of others above the user's read position.
    pub unread: i64,
    /// Time of the last message in epoch seconds.
    pub timestamp: i64,
    /// The last message.
    pub last_message: Option<MessageDto>,
}

/// The name of a channel.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ChannelShape)]
pub struct ChannelDto {
    /// The channel's ID; for a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
}

/// The newest messages of a channel.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ChannelMessages)]
pub struct ChannelMessagesDto {
    /// The channel's ID as requested.
    pub channel_id: String,
    /// The channel's type as requested.
    pub channel_type: u8,
    /// The messages, newest first.
    pub messages: Vec<MessageDto>,
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
    Offline(MessageDto),
}

/// The response of `GET /health`.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub struct HealthDto {
    /// Always `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
}

fn is_written_separately(_: &MessageSlice) -> bool {
    true
}

fn write_messages<S: Serializer>(recents: &MessageSlice, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(recents.iter().map(|message| MessageDto::from(&**message)))
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<&Message> for MessageDto {
    fn from(message: &Message) -> Self {
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
            stream_no: message.content.stream_no.clone(),
            stream_seq: message.content.stream_seq,
            stream_flag: message.content.stream_flag,
            message_seq: message.seq.0,
            from_uid: message.from_uid.clone(),
            channel_id: message.channel.channel_id.clone(),
            channel_type: message.channel.channel_type.number(),
            topic: message.content.topic.clone(),
            expire: message.content.expire,
            timestamp: message.sent_at.seconds(),
            payload: STANDARD.encode(&message.content.payload),
        }
    }
}

/// Appends a message as JSON.
pub fn write_message(message: &Message, to: &mut Vec<u8>) {
    // Writing strings and numbers to memory does not fail.
    let _ = serde_json::to_writer(to, &MessageDto::from(message));
}

impl ConversationDto {
    /// Appends the conversation as JSON.
    ///
    /// # Errors
    /// Does not happen: every field has a JSON form.
    pub fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(&mut *to, self)?;
        to.pop();
        to.extend_from_slice(b",\"recents\":[");
        self.recents.write_json(to);
        to.extend_from_slice(b"]}");
        Ok(())
    }

    /// Creates the entry of a channel in which the user has no conversation.
    #[must_use]
    pub fn absent(channel_id: String, channel_type: u8) -> Self {
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
            recents: MessageSlice::default(),
        }
    }
}

/// Serialises entries as a JSON array.
///
/// # Errors
/// Does not happen: every field has a JSON form.
pub fn write_entries(entries: &[SyncEntryDto]) -> serde_json::Result<Vec<u8>> {
    let bytes = entries.iter().map(|entry| match entry {
        SyncEntryDto::Item(item) => 512 + item.recents.json_bytes(),
        SyncEntryDto::Removed(_) => 512,
    });
    let mut to = Vec::with_capacity(bytes.sum::<usize>() + 2);
    to.push(b'[');
    for entry in entries {
        match entry {
            SyncEntryDto::Item(item) => item.write(&mut to)?,
            SyncEntryDto::Removed(removed) => serde_json::to_writer(&mut to, removed)?,
        }
        to.push(b',');
    }
    if !entries.is_empty() {
        to.pop();
    }
    to.push(b']');
    Ok(to)
}

impl From<ConversationRemoval> for RemovedConversationDto {
    fn from(removed: ConversationRemoval) -> Self {
        Self {
            channel_id: removed.channel_ref.channel_id,
            channel_type: removed.channel_ref.channel_type.number(),
            version: removed.version.0,
            removed: 1,
            recents: Vec::new(),
        }
    }
}

impl From<ConversationWithMessages> for ConversationDto {
    fn from(item: ConversationWithMessages) -> Self {
        let conversation = item.conversation;
        Self {
            channel_id: conversation.channel_ref.channel_id,
            channel_type: conversation.channel_ref.channel_type.number(),
            unread: conversation.unread,
            timestamp: conversation.last_activity_at.seconds(),
            last_msg_seq: conversation.last_msg_seq.0,
            last_client_msg_no: item
                .last_message
                .map(|message| message.client_msg_no.clone())
                .unwrap_or_default(),
            offset_msg_seq: 0,
            readed_to_msg_seq: conversation
                .last_msg_seq
                .minus(conversation.unread)
                .max(Seq::ZERO)
                .0,
            version: conversation.version.0,
            recents: item.recents,
        }
    }
}
