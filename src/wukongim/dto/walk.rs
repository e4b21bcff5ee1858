//! Walks through a user's conversations, as v3 returns them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::ChannelDto;
use super::message::shown_sender;
use crate::conversation::ConversationWithMessages;
use crate::model::{Message, Seq};

/// A page of a walk.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = WalkShape)]
pub struct WalkDto {
    /// The conversations, newest activity first.
    pub conversations: Vec<WalkedConversationDto>,
    /// Conversations that are not listed any more.
    pub deletes: Vec<ChannelDto>,
    /// Conversations whose last message did not fit into the answer: to be requested from
    /// `/conversation/retry`.
    pub unresolved: Vec<ChannelDto>,
    /// The cursor for the next page; omitted after an empty page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// True for the last page.
    pub done: bool,
    /// To be stored when `done` is true, and sent as `completed_coverage` to begin the next walk.
    pub coverage: i64,
    /// Always 0: removals are kept for ever.
    #[schema(example = 0)]
    pub tombstones_retained_since: i64,
    /// Whether `completed_coverage` is unknown: this is the first page of all conversations, and
    /// the client discards its own.
    pub reset_required: bool,
}

/// A conversation of a walk.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = WalkedConversation)]
pub struct WalkedConversationDto {
    /// The channel's ID; for a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// When the user opened it (`/conversations/activate`), epoch nanoseconds; 0 if never.
    pub active_at: i64,
    /// The last message's seq − `unread`, at least 0.
    pub read_seq: i64,
    /// Messages up to this seq are deleted.
    pub deleted_to_seq: i64,
    /// Number of red-dot messages of others above the user's read position.
    pub unread: i64,
    /// The last message; null if there is none that is not deleted.
    pub last_message: Option<LastMessageDto>,
}

/// The last message of a conversation.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LastMessage)]
pub struct LastMessageDto {
    /// The message ID: a snowflake, above 2^53.
    pub message_id: i64,
    /// The message ID as a string.
    pub message_idstr: String,
    /// The message's number in the channel.
    pub message_seq: i64,
    /// The sender's uid; empty for the system.
    pub from_uid: String,
    /// The sender's deduplication key.
    pub client_msg_no: String,
    /// Time of sending in epoch milliseconds.
    pub server_timestamp_ms: i64,
    /// The content in standard base64 with padding.
    pub payload: String,
}

impl From<&Message> for LastMessageDto {
    fn from(message: &Message) -> Self {
        Self {
            message_id: message.message_id.0,
            message_idstr: message.message_id.to_string(),
            message_seq: message.seq.0,
            from_uid: shown_sender(message),
            client_msg_no: message.client_msg_no.clone(),
            server_timestamp_ms: message.sent_at.0,
            payload: STANDARD.encode(&message.content.payload),
        }
    }
}

impl From<ConversationWithMessages> for WalkedConversationDto {
    fn from(item: ConversationWithMessages) -> Self {
        let conversation = item.conversation;
        Self {
            channel_id: conversation.channel_ref.channel_id,
            channel_type: conversation.channel_ref.channel_type.number(),
            active_at: conversation.activated_at.0.saturating_mul(1_000_000),
            read_seq: conversation
                .last_msg_seq
                .minus(conversation.unread)
                .max(Seq::ZERO)
                .0,
            deleted_to_seq: conversation.deleted_to_seq.0,
            unread: conversation.unread,
            last_message: item.last_message.as_deref().map(LastMessageDto::from),
        }
    }
}
