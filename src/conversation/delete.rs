//! Deleting a conversation: a watermark. What is below never shows again, the next message brings it back with unread 1.

use std::sync::Arc;

use super::Removed;
use super::change::{Outcome, change};
use super::rules::is_listed;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};
use crate::store::State;

/// Deletes the user's conversation; deleting a deleted one changes nothing.
///
/// # Errors
/// [`Error::NotFound`] when the user never had it.
pub async fn delete_conversation(core: &Arc<Core>, uid: &Uid, channel: &ChannelRef) -> Result<Removed, Error> {
    let outcome = change(core, uid, channel, move |row| {
        let changes = is_listed(row);
        if changes {
            row.deleted_to_seq = row.last_seq;
            row.read_mark = row.red_dots;
            row.state = State::Deleted;
        }
        changes
    })
    .await?;
    match outcome {
        Outcome::Changed(row) | Outcome::Unchanged(row) => Ok(Removed::new(uid, &row)),
        Outcome::Unknown => Err(Error::NotFound("conversation")),
    }
}
