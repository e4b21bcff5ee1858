//! Conversations, and the entries of a sync.

use serde::{Serialize, Serializer};

use super::MessageDto;
use crate::conversation::{ConversationRemoval, ConversationWithMessages};
use crate::message::MessageSlice;
use crate::model::{ChannelRef, Seq};

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

impl From<ChannelRef> for ChannelDto {
    fn from(channel: ChannelRef) -> Self {
        Self {
            channel_type: channel.channel_type.number(),
            channel_id: channel.channel_id,
        }
    }
}

fn is_written_separately(_: &MessageSlice) -> bool {
    true
}

fn write_messages<S: Serializer>(recents: &MessageSlice, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(recents.iter().map(|message| MessageDto::from(&**message)))
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
