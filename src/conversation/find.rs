//! Look-up of conversations by user and channel.

use std::collections::HashMap;

use super::visibility::is_listed;
use super::{Conversation, ConversationService};
use crate::error::Error;
use crate::model::{ChannelKey, ChannelRef, Uid};

/// Returns the listed conversations with these names. Runs two statements for up to 1024 names.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn find_conversations(
    service: &ConversationService,
    names: &[(Uid, ChannelRef)],
) -> Result<HashMap<(Uid, ChannelRef), Conversation>, Error> {
    service.base.check_conversations_on()?;
    let keys: Vec<(&Uid, ChannelKey)> = names
        .iter()
        .map(|(uid, channel)| (uid, ChannelKey::new(uid, channel)))
        .collect();
    let rows = service
        .base
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
            ((uid, conversation.channel_ref.clone()), conversation)
        })
        .collect())
}
