//! The answer of a sync: changed conversations with their messages, and removed conversations.

use std::cmp::Reverse;
use std::sync::Arc;

use super::plan::matches_filter;
use super::{CONVERSATION_BYTES, SyncDetail, SyncRequest};
use crate::conversation::recent_messages::{RecentMessagesKey, list_recent_messages};
use crate::conversation::{Conversation, ConversationRemoval, ConversationService};
use crate::error::Error;
use crate::message::{AnswerSizeLimit, MessageSlice};
use crate::model::{ConversationRow, Message, Seq, Uid, Version};

/// A conversation with its newest messages.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationWithMessages {
    /// The conversation.
    pub conversation: Conversation,
    /// The message with `last_msg_seq`.
    pub last_message: Option<Arc<Message>>,
    /// The newest messages, newest first.
    pub recents: MessageSlice,
}

impl ConversationWithMessages {
    fn without_messages(uid: &Uid, row: &ConversationRow) -> Self {
        Self {
            conversation: Conversation::new(uid, row),
            last_message: None,
            recents: MessageSlice::default(),
        }
    }
}

impl ConversationWithMessages {
    /// Returns whether the last message is missing because it did not fit into the answer.
    #[must_use]
    pub fn lacks_last_message(&self) -> bool {
        let has_messages = self.conversation.last_msg_seq > self.conversation.deleted_to_seq;
        has_messages && self.last_message.is_none()
    }
}

/// The changes since a version.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncAnswer {
    /// The version for the next request.
    pub version: Version,
    /// True if the requested version is unknown: the answer contains everything, and the client
    /// must discard its state.
    pub reset: bool,
    /// True if there are more changes: the client should request again with `version` at once.
    pub has_more: bool,
    /// Without `first`: newest activity first. With `first`: by version.
    pub conversations: Vec<ConversationWithMessages>,
    /// Conversations that are no longer listed; empty if the answer contains everything.
    pub removed: Vec<ConversationRemoval>,
}

impl SyncAnswer {
    /// Sorts by activity, newest first.
    pub(crate) fn sort_by_activity(&mut self) {
        self.conversations
            .sort_by(|a, b| activity_order(&a.conversation).cmp(&activity_order(&b.conversation)));
    }

    /// Returns the approximate size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let messages: usize = self
            .conversations
            .iter()
            .map(|item| item.recents.json_bytes())
            .sum();
        messages + (self.conversations.len() + self.removed.len()) * CONVERSATION_BYTES
    }

    /// Returns the part of the answer that is new to a client at `version`, with at most
    /// `msg_count` messages for each conversation.
    pub(crate) fn since(&self, version: Version, msg_count: u32) -> Self {
        let mut answer = self.clone();
        if !answer.reset {
            answer
                .conversations
                .retain(|item| item.conversation.version > version);
            answer.removed.retain(|removed| removed.version > version);
        }
        for item in &mut answer.conversations {
            item.recents = std::mem::take(&mut item.recents).above(Seq::ZERO, msg_count as usize);
        }
        answer
    }
}

/// Input of [`build_answer`].
pub(in crate::conversation) struct SyncChanges<'a, Unchanged> {
    /// Changed conversations.
    pub(in crate::conversation) rows: Vec<&'a ConversationRow>,
    /// Unchanged conversations, of which the client may lack messages.
    pub(in crate::conversation) unchanged: Unchanged,
    pub(in crate::conversation) version: Version,
    pub(in crate::conversation) has_more: bool,
    /// The version that the client has; 0 for none.
    pub(in crate::conversation) client_version: Version,
    pub(in crate::conversation) reset: bool,
}

pub(in crate::conversation) async fn build_answer<'a>(
    service: &ConversationService,
    request: &SyncRequest,
    changes: SyncChanges<'a, impl IntoIterator<Item = &'a ConversationRow>>,
    bytes: &AnswerSizeLimit,
) -> Result<SyncAnswer, Error> {
    let SyncChanges {
        mut rows,
        unchanged,
        version,
        has_more,
        client_version,
        reset,
    } = changes;
    let uid = &request.uid;
    let name = |row: &ConversationRow| row.key.seen_by(uid.as_str());
    let mut removed = Vec::new();
    let shows = |row: &ConversationRow| matches_filter(row, &request.filter);
    rows.retain(|row| {
        let stays = shows(row);
        if !stays && client_version > Version::ZERO {
            removed.push(ConversationRemoval::new(uid, row));
        }
        stays
    });
    if !has_more && request.names_channels() {
        // Unchanged conversations of which the client lacks messages.
        rows.extend(unchanged.into_iter().filter(|row| {
            let named = name(row);
            shows(row)
                && (request.force_include.contains(&named)
                    || request
                        .last_msg_seqs
                        .get(&named)
                        .is_some_and(|seq| *seq < row.last_seq))
        }));
    }

    let client_last_seq = |row: &ConversationRow| {
        if request.last_msg_seqs.is_empty() {
            Seq::ZERO
        } else {
            request
                .last_msg_seqs
                .get(&name(row))
                .copied()
                .unwrap_or_default()
        }
    };
    let conversations = match request.detail {
        SyncDetail::Version => Vec::new(),
        SyncDetail::Conversations => rows
            .iter()
            .map(|row| ConversationWithMessages::without_messages(uid, row))
            .collect(),
        SyncDetail::Messages => {
            with_messages(
                service,
                uid,
                &rows,
                request.msg_count,
                client_last_seq,
                bytes,
            )
            .await?
        }
    };
    let mut answer = SyncAnswer {
        version,
        reset,
        has_more,
        conversations,
        removed,
    };
    if request.first.is_none() {
        answer.sort_by_activity();
    }
    Ok(answer)
}

/// Returns rows with their newest `msg_count` messages, without the messages up to the seq that the
/// client has.
pub(in crate::conversation) async fn with_messages(
    service: &ConversationService,
    uid: &Uid,
    rows: &[&ConversationRow],
    msg_count: u32,
    client_last_seq: impl Fn(&ConversationRow) -> Seq,
    bytes: &AnswerSizeLimit,
) -> Result<Vec<ConversationWithMessages>, Error> {
    // The last message is always needed for its number, even if no messages are requested.
    let keys: Vec<RecentMessagesKey> = rows
        .iter()
        .map(|row| RecentMessagesKey::new(row, msg_count.max(1)))
        .collect();
    let recents = list_recent_messages(service, &keys, bytes).await?;
    let item = |(row, newest): (&&ConversationRow, MessageSlice)| {
        let last_message = newest.first().cloned();
        let recents = newest.above(client_last_seq(row), msg_count as usize);
        ConversationWithMessages {
            conversation: Conversation::new(uid, row),
            last_message,
            recents,
        }
    };
    Ok(rows.iter().zip(recents).map(item).collect())
}

/// Sort key: newest second first, then by channel type and id.
pub(in crate::conversation) fn activity_order(
    conversation: &Conversation,
) -> (Reverse<i64>, u8, &str) {
    (
        Reverse(conversation.last_activity_at.seconds()),
        conversation.channel_ref.channel_type.number(),
        &conversation.channel_ref.channel_id,
    )
}
