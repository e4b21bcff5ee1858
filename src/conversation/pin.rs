//! Pinning and muting. The user's other devices see these changes.

use super::update::update_conversation;
use super::visibility::is_listed;
use super::{Conversation, ConversationService};
use crate::error::Error;
use crate::model::{ChannelRef, EpochMs, Uid};

/// Pins a conversation above the others, or unpins it. Repeating it changes nothing.
///
/// # Errors
/// [`Error::NotFound`] if the conversation is not listed.
pub async fn set_pinned(
    service: &ConversationService,
    uid: &Uid,
    channel: &ChannelRef,
    pinned: bool,
) -> Result<Conversation, Error> {
    let now_ms = service.base.clock.now_ms();
    let outcome = update_conversation(service, uid, channel, None, move |row, _| {
        let changes = is_listed(row) && pinned != (row.pinned_at > EpochMs::ZERO);
        if changes {
            row.pinned_at = if pinned { now_ms } else { EpochMs::ZERO };
        }
        changes
    });
    outcome.await?.listed(uid)
}

/// Mutes or unmutes a conversation. Unread messages of muted conversations are counted separately.
/// Repeating it changes nothing.
///
/// # Errors
/// [`Error::NotFound`] if the conversation is not listed.
pub async fn set_muted(
    service: &ConversationService,
    uid: &Uid,
    channel: &ChannelRef,
    muted: bool,
) -> Result<Conversation, Error> {
    let outcome = update_conversation(service, uid, channel, None, move |row, _| {
        let changes = is_listed(row) && muted != row.muted;
        if changes {
            row.muted = muted;
        }
        changes
    });
    outcome.await?.listed(uid)
}
