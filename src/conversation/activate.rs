//! Opening a conversation: a walk lists it before others, and also if it has no messages.

use super::ConversationService;
use super::update::{UpdateOutcome, update_conversation};
use crate::error::Error;
use crate::model::{ChannelRef, Uid};

/// Stores that the user opened a conversation. A deletion undoes it.
///
/// # Errors
/// [`Error::NotFound`] if the user is not a member of the channel.
pub async fn activate_conversation(
    service: &ConversationService,
    uid: &Uid,
    channel: &ChannelRef,
) -> Result<(), Error> {
    let now_ms = service.base.clock.now_ms();
    let outcome = update_conversation(service, uid, channel, None, move |row, _| {
        let changes = row.key.channel_type.is_listed() && row.activated_at < now_ms;
        if changes {
            row.activated_at = now_ms;
        }
        changes
    });
    match outcome.await? {
        UpdateOutcome::Changed(_) | UpdateOutcome::Unchanged(_) => Ok(()),
        UpdateOutcome::Unknown => Err(Error::NotFound("conversation")),
    }
}
