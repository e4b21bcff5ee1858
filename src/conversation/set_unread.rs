//! How many are unread, said by the user: in both directions, for all devices.

use super::Conversation;
use super::change::{Outcome, change};
use super::rules::{MAX_UNREAD, is_listed, unread};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};

/// Sets the number of unread messages; 0 marks the conversation as read.
///
/// # Errors
/// [`Error::BadInput`] for a number below 0 or above [`MAX_UNREAD`]; [`Error::NotFound`] when the conversation does not show.
pub async fn set_unread(core: &Core, uid: &Uid, channel: &ChannelRef, count: i64) -> Result<Conversation, Error> {
    if !(0..=MAX_UNREAD).contains(&count) {
        return Err(Error::bad_input("unread", format!("must be between 0 and {MAX_UNREAD}")));
    }
    let outcome = change(core, uid, channel, |row| {
        let changes = is_listed(row) && unread(row) != count;
        if changes {
            row.read_mark = row.red_dots - count;
        }
        changes
    })
    .await?;
    match outcome {
        Outcome::Changed(row) => Ok(Conversation::new(uid, &row)),
        Outcome::Unchanged(row) if is_listed(&row) => Ok(Conversation::new(uid, &row)),
        Outcome::Unchanged(_) | Outcome::Unknown => Err(Error::NotFound("conversation")),
    }
}
