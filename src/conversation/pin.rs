//! Pinning and muting: changes that the user's other devices see.

use std::sync::Arc;

use super::Conversation;
use super::change::change;
use super::visibility::is_listed;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};

/// Pins a conversation above the others, or unpins it. Pinning a pinned one changes nothing.
///
/// # Errors
/// [`Error::NotFound`] when the conversation does not show.
pub async fn set_pinned(
    core: &Arc<Core>,
    uid: &Uid,
    channel: &ChannelRef,
    pinned: bool,
) -> Result<Conversation, Error> {
    let now_ms = core.clock.now_ms();
    let outcome = change(core, uid, channel, None, move |row, _| {
        let changes = is_listed(row) && pinned != (row.pinned_at > 0);
        if changes {
            row.pinned_at = if pinned { now_ms } else { 0 };
        }
        changes
    });
    outcome.await?.listed(uid)
}

/// Mutes a conversation, or unmutes it: its unread messages are counted apart. Muting a muted one
/// changes nothing.
///
/// # Errors
/// [`Error::NotFound`] when the conversation does not show.
pub async fn set_muted(
    core: &Arc<Core>,
    uid: &Uid,
    channel: &ChannelRef,
    muted: bool,
) -> Result<Conversation, Error> {
    let outcome = change(core, uid, channel, None, move |row, _| {
        let changes = is_listed(row) && muted != row.muted;
        if changes {
            row.muted = muted;
        }
        changes
    });
    outcome.await?.listed(uid)
}
