//! Setting the number of unread messages, up or down, for all devices of the user.

use super::update::{update_all, update_conversation};
use super::visibility::{is_listed, is_stale};
use super::{Conversation, ConversationService};
use crate::error::Error;
use crate::model::unread::{self, MAX_UNREAD};
use crate::model::{ChannelRef, ChannelType, Seq, Uid, Version};

/// Sets the number of unread messages. With `up_to`, it is the number up to that seq, and later
/// messages of others are added. 0 marks messages up to `up_to`, or all messages, as read.
///
/// # Errors
/// [`Error::BadInput`] for a number below 0 or above [`MAX_UNREAD`]; [`Error::NotFound`] if the
/// conversation is not listed.
pub async fn set_unread(
    service: &ConversationService,
    uid: &Uid,
    channel: &ChannelRef,
    count: i64,
    up_to: Option<Seq>,
) -> Result<Conversation, Error> {
    if !(0..=MAX_UNREAD).contains(&count) {
        return Err(Error::bad_input(
            "unread",
            format!("must be between 0 and {MAX_UNREAD}"),
        ));
    }
    let outcome = update_conversation(service, uid, channel, up_to, move |row, up_to| {
        // A seq above the last message is stored for members even if the conversation is not
        // listed.
        let acts =
            is_listed(row) || (count == 0 && up_to.is_some_and(|up_to| up_to > row.last_seq));
        acts && unread::set_unread(row, count, up_to)
    });
    outcome.await?.listed(uid)
}

/// Marks all of the user's conversations as read, or those of some channel types, including muted
/// ones. Returns the changed conversations, newest activity first. With `up_to_version`,
/// conversations that changed after that version are left unchanged, because the user has not seen
/// their current state. Conversations are marked in transactions of 500: a message that arrives
/// meanwhile counts as sent just before or just after.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn mark_all_read(
    service: &ConversationService,
    uid: &Uid,
    only: Option<&[ChannelType]>,
    up_to_version: Option<Version>,
) -> Result<Vec<Conversation>, Error> {
    let changed = update_all(service, uid, |row| {
        let is_wanted = only.is_none_or(|types| types.contains(&row.key.channel_type));
        let is_seen = up_to_version.is_none_or(|version| row.version <= version && !is_stale(row));
        // A conversation without unread messages needs no new version.
        is_wanted
            && is_seen
            && is_listed(row)
            && unread::unread(row) > 0
            && unread::mark_read(row, None)
    })
    .await?;
    Ok(changed
        .iter()
        .rev()
        .map(|row| Conversation::new(uid, row))
        .collect())
}
