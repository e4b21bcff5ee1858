//! Pinning and muting. The user's other devices see these changes.

use super::Conversation;
use super::update::update_conversation;
use super::visibility::is_listed;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};
use crate::services::Services;

/// Pins a conversation above the others, or unpins it. Repeating it changes nothing.
///
/// # Errors
/// [`Error::NotFound`] if the conversation is not listed.
pub async fn set_pinned(
    services: &Services,
    uid: &Uid,
    channel: &ChannelRef,
    pinned: bool,
) -> Result<Conversation, Error> {
    let now_ms = services.clock.now_ms();
    let outcome = update_conversation(services, uid, channel, None, move |row, _| {
        let changes = is_listed(row) && pinned != (row.pinned_at > 0);
        if changes {
            row.pinned_at = if pinned { now_ms } else { 0 };
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
    services: &Services,
    uid: &Uid,
    channel: &ChannelRef,
    muted: bool,
) -> Result<Conversation, Error> {
    let outcome = update_conversation(services, uid, channel, None, move |row, _| {
        let changes = is_listed(row) && muted != row.muted;
        if changes {
            row.muted = muted;
        }
        changes
    });
    outcome.await?.listed(uid)
}
