//! Import of unread counts from another server.

use super::ConversationService;
use super::update::update_conversation;
use super::visibility::is_listed;
use crate::error::Error;
use crate::model::{ChannelRef, Seq, Uid, unread};

/// Sets the number of messages that were unread when the channel's last message was `last_seq`;
/// later messages of others are added. Does nothing if the user has sent a message since `last_seq`
/// (which marks everything before it as read), or has no such conversation.
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
    let outcome = update_conversation(service, uid, channel, Some(last_seq), move |row, up_to| {
        is_listed(row)
            && unread::read_position(row) <= last_seq
            && unread::set_unread(row, count, up_to)
    });
    outcome.await.map(|_| ())
}
