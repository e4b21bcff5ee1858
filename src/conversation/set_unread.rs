//! How many are unread, said by the user: in both directions, for all devices.

use std::sync::Arc;

use super::Conversation;
use super::change::{change, change_all};
use super::rules::{MAX_UNREAD, is_listed, unread};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Uid};
use crate::store::ConversationRow;

/// Sets the number of unread messages; 0 marks the conversation as read.
///
/// # Errors
/// [`Error::BadInput`] for a number below 0 or above [`MAX_UNREAD`]; [`Error::NotFound`] when the conversation does not show.
pub async fn set_unread(core: &Arc<Core>, uid: &Uid, channel: &ChannelRef, count: i64) -> Result<Conversation, Error> {
    if !(0..=MAX_UNREAD).contains(&count) {
        return Err(Error::bad_input("unread", format!("must be between 0 and {MAX_UNREAD}")));
    }
    change(core, uid, channel, move |row| set(row, count)).await?.listed(uid)
}

/// Marks all of the user's conversations as read, or those of some channel types; what changed, newest activity first. Muted ones
/// are marked, too. Conversations are marked 500 at a time: one that gets a message meanwhile is as if it was marked just before or
/// just after.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn mark_all_read(core: &Core, uid: &Uid, only: Option<&[ChannelType]>) -> Result<Vec<Conversation>, Error> {
    let changed = change_all(core, uid, |row| {
        let wanted = only.is_none_or(|types| types.contains(&row.key.channel_type));
        wanted && set(row, 0)
    })
    .await?;
    Ok(changed.iter().rev().map(|row| Conversation::new(uid, row)).collect())
}

fn set(row: &mut ConversationRow, count: i64) -> bool {
    let changes = is_listed(row) && unread(row) != count;
    if changes {
        row.read_mark = row.red_dots - count;
    }
    changes
}
