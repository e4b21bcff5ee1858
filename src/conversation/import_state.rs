//! Import of the state of conversations from another server: unread counts, and deletions.

use super::update::update_conversation;
use super::visibility::is_listed;
use super::{Conversation, ConversationService};
use crate::error::Error;
use crate::model::{ChannelRef, Seq, Uid, Version, unread};

/// The state of a conversation when the channel's last message was `last_seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportedState {
    /// The last message.
    pub last_seq: Seq,
    /// Number of unread messages; later messages of others are added.
    pub unread: i64,
    /// Messages up to this seq never show.
    pub deleted_to: Seq,
}

/// Sets the state of a conversation. The unread count is left unchanged if the user has sent a
/// message since (which marks everything before it as read). Does nothing if the user has no such
/// conversation.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn import_state(
    service: &ConversationService,
    uid: &Uid,
    channel: &ChannelRef,
    state: ImportedState,
) -> Result<(), Error> {
    let last_seq = state.last_seq;
    let outcome = update_conversation(service, uid, channel, Some(last_seq), move |row, up_to| {
        if !is_listed(row) {
            return false;
        }
        if unread::read_position(row) <= last_seq {
            unread::import(row, state.unread, up_to, state.deleted_to);
        } else if state.deleted_to > row.deleted_to_seq {
            row.deleted_to_seq = state.deleted_to;
        }
        // Also without a change: the version shows that the conversation is listed there.
        true
    });
    outcome.await.map(|_| ())
}

/// Sets the number of messages that were unread when the channel's last message was `last_seq`, see
/// [`import_state`].
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn import_unread_count(
    service: &ConversationService,
    uid: &Uid,
    channel: &ChannelRef,
    last_seq: Seq,
    count: i64,
) -> Result<(), Error> {
    let state = ImportedState {
        last_seq,
        unread: count,
        deleted_to: Seq::ZERO,
    };
    import_state(service, uid, channel, state).await
}

/// Returns the listed conversations that no answer to the user has contained and the user has not
/// changed: they have no version yet.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_unseen(
    service: &ConversationService,
    uid: &Uid,
) -> Result<Vec<Conversation>, Error> {
    let rows = service.base.store.list_conversations(uid).await?;
    let unseen = rows
        .iter()
        .filter(|row| row.version == Version::ZERO && is_listed(row));
    Ok(unseen.map(|row| Conversation::new(uid, row)).collect())
}

/// Deletes a conversation up to a seq as its user did on another server. Does nothing if a newer
/// message has arrived, or if an answer to the user contained the conversation meanwhile. Returns
/// whether it was deleted.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn import_deletion(
    service: &ConversationService,
    uid: &Uid,
    channel: &ChannelRef,
    up_to: Seq,
) -> Result<bool, Error> {
    let outcome = update_conversation(service, uid, channel, Some(up_to), move |row, up_to| {
        row.version == Version::ZERO
            && is_listed(row)
            && up_to.is_some_and(|up_to| row.last_seq <= up_to)
            && unread::delete(row, up_to)
    });
    Ok(outcome.await?.is_changed())
}
