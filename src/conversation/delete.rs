//! Deletion of a conversation: sets a watermark. Messages up to it never show again; the next
//! message brings the conversation back.

use super::update::{UpdateOutcome, update_conversation};
use super::visibility::is_listed;
use super::{Conversation, ConversationRemoval, ConversationService};
use crate::error::Error;
use crate::model::{ChannelRef, EpochMs, Seq, Uid, unread};

/// Result of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The conversation is no longer listed.
    Removed(ConversationRemoval),
    /// Messages above the seq still show.
    StillListed(Conversation),
}

/// Deletes the user's conversation up to a seq, or all of it. Messages above the seq still show.
/// Repeating a deletion changes nothing.
///
/// # Errors
/// [`Error::NotFound`] if the user never had the conversation.
pub async fn delete_conversation(
    service: &ConversationService,
    uid: &Uid,
    channel: &ChannelRef,
    up_to: Option<Seq>,
) -> Result<DeleteOutcome, Error> {
    let outcome = update_conversation(service, uid, channel, up_to, move |row, up_to| {
        // A seq above the last message is stored: the messages up to it are deleted when they
        // arrive.
        let acts = is_listed(row) || up_to.is_some_and(|up_to| up_to > row.last_seq);
        let was_activated = std::mem::take(&mut row.activated_at) > EpochMs::ZERO;
        (acts && unread::delete(row, up_to)) || was_activated
    })
    .await?;
    match outcome {
        UpdateOutcome::Changed(row) | UpdateOutcome::Unchanged(row) if is_listed(&row) => {
            Ok(DeleteOutcome::StillListed(Conversation::new(uid, &row)))
        }
        UpdateOutcome::Changed(row) | UpdateOutcome::Unchanged(row) => {
            Ok(DeleteOutcome::Removed(ConversationRemoval::new(uid, &row)))
        }
        UpdateOutcome::Unknown => Err(Error::NotFound("conversation")),
    }
}
