//! Conversations by their names.

use std::collections::HashMap;

use super::Conversation;
use super::visibility::is_listed;
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};

/// Those of these users' conversations that show; two statements for any number of them, up to
/// 1024.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn find_conversations(
    core: &Core,
    names: &[(Uid, ChannelRef)],
) -> Result<HashMap<(Uid, ChannelRef), Conversation>, Error> {
    core.check_conversations_on()?;
    let keys: Vec<(&Uid, ChannelKey)> = names
        .iter()
        .map(|(uid, channel)| (uid, ChannelKey::new(uid, channel)))
        .collect();
    let rows = core
        .store
        .find_conversations(
            &keys
                .iter()
                .map(|(uid, key)| (*uid, key))
                .collect::<Vec<_>>(),
        )
        .await?;
    let shown = rows.into_iter().filter(|(_, row)| is_listed(row));
    Ok(shown
        .map(|(uid, row)| {
            let conversation = Conversation::new(&uid, &row);
            ((uid, conversation.channel.clone()), conversation)
        })
        .collect())
}
