//! The number of unread messages, set by the user in both directions, for all devices.

use std::sync::Arc;

use super::Conversation;
use super::change::{change, change_all};
use super::unread::{self, MAX_UNREAD};
use super::visibility::{is_listed, is_stale};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Seq, Uid, Version};

/// Sets the number of unread messages; with `up_to`, of those up to that seq: messages of others
/// above it count on top. 0 reads up to `up_to`, or everything.
///
/// # Errors
/// [`Error::BadInput`] for a number below 0 or above [`MAX_UNREAD`]; [`Error::NotFound`] when the
/// conversation does not show.
pub async fn set_unread(
    core: &Arc<Core>,
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
    let outcome = change(core, uid, channel, up_to, move |row, up_to| {
        // A seq above the last message is kept for members whose list does not show the
        // conversation.
        let acts =
            is_listed(row) || (count == 0 && up_to.is_some_and(|up_to| up_to > row.last_seq));
        acts && unread::set_unread(row, count, up_to)
    });
    outcome.await?.listed(uid)
}

/// Marks all of the user's conversations as read, or those of some channel types; what changed,
/// newest activity first. Muted ones are marked, too. With `up_to_version`, conversations that
/// changed after that version are left alone: the user has not seen them as they are. Conversations
/// are marked 500 at a time: one that gets a message meanwhile is as if it was marked just before
/// or just after.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn mark_all_read(
    core: &Core,
    uid: &Uid,
    only: Option<&[ChannelType]>,
    up_to_version: Option<Version>,
) -> Result<Vec<Conversation>, Error> {
    let changed = change_all(core, uid, |row| {
        let is_wanted = only.is_none_or(|types| types.contains(&row.key.channel_type));
        let is_seen = up_to_version.is_none_or(|version| row.version <= version && !is_stale(row));
        // One that shows nothing unread needs no version.
        is_wanted && is_seen && is_listed(row) && unread::unread(row) > 0 && unread::read(row, None)
    })
    .await?;
    Ok(changed
        .iter()
        .rev()
        .map(|row| Conversation::new(uid, row))
        .collect())
}
