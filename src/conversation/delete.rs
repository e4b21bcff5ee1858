//! Deleting a conversation: a watermark. Messages up to it never show again, the next message
//! brings the conversation back.

use std::sync::Arc;

use super::change::{Outcome, change};
use super::unread;
use super::visibility::is_listed;
use super::{Conversation, Removed};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid};

/// The result of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The conversation does not show any more.
    Removed(Removed),
    /// Messages above the seq still show.
    StillShows(Conversation),
}

/// Deletes the user's conversation up to a seq, or all of it: messages above the seq still show.
/// Deleting what is deleted changes nothing.
///
/// # Errors
/// [`Error::NotFound`] when the user never had it.
pub async fn delete_conversation(
    core: &Arc<Core>,
    uid: &Uid,
    channel: &ChannelRef,
    up_to: Option<Seq>,
) -> Result<Deleted, Error> {
    let outcome = change(core, uid, channel, up_to, move |row, up_to| {
        // A seq above the last message is kept: the messages up to it are deleted when they come.
        let acts = is_listed(row) || up_to.is_some_and(|up_to| up_to > row.last_seq);
        acts && unread::delete(row, up_to)
    })
    .await?;
    match outcome {
        Outcome::Changed(row) | Outcome::Unchanged(row) if is_listed(&row) => {
            Ok(Deleted::StillShows(Conversation::new(uid, &row)))
        }
        Outcome::Changed(row) | Outcome::Unchanged(row) => {
            Ok(Deleted::Removed(Removed::new(uid, &row)))
        }
        Outcome::Unknown => Err(Error::NotFound("conversation")),
    }
}
