//! The number of unread messages that another server reported.

use std::sync::Arc;

use super::change::change;
use super::unread;
use super::visibility::is_listed;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid};

/// Sets the number of messages that were unread when the channel's last message was `last_seq`;
/// messages of others above it count on top. Does nothing if the user has sent a message since,
/// which reads everything before it, or has no such conversation.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn import_unread_count(
    core: &Arc<Core>,
    uid: &Uid,
    channel: &ChannelRef,
    last_seq: Seq,
    count: i64,
) -> Result<(), Error> {
    let outcome = change(core, uid, channel, Some(last_seq), move |row, up_to| {
        is_listed(row) && unread::position(row) <= last_seq && unread::set_unread(row, count, up_to)
    });
    outcome.await.map(|_| ())
}
