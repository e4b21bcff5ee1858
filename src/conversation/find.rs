//! One conversation.

use super::Conversation;
use super::rules::is_listed;
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};

/// The user's conversation, if it shows.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn find_conversation(core: &Core, uid: &Uid, channel: &ChannelRef) -> Result<Option<Conversation>, Error> {
    core.check_conversations_on()?;
    let row = core.store.find_conversation(uid, &ChannelKey::new(uid, channel)).await?;
    Ok(row.filter(is_listed).map(|row| Conversation::new(uid, &row)))
}
