//! Conversations as they are now. No versions are given: what is answered here is nobody's cursor.

use std::collections::HashMap;

use super::Item;
use super::sync::{items, order};
use super::visibility::is_listed;
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};
use crate::message::AnswerBytes;

/// All of the user's conversations that show, newest activity first, each with at most so many of
/// its newest messages.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn show_all(core: &Core, uid: &Uid, msg_count: u32) -> Result<Vec<Item>, Error> {
    core.check_conversations_on()?;
    let mut rows = core.store.list_conversations(uid).await?;
    rows.retain(is_listed);
    let mut items = items(
        core,
        uid,
        &rows.iter().collect::<Vec<_>>(),
        msg_count,
        |_| 0,
        &AnswerBytes::new(core.limits.answer_bytes),
    )
    .await?;
    items.sort_by(|a, b| order(&a.conversation).cmp(&order(&b.conversation)));
    Ok(items)
}

/// Those of these channels in which the user has a conversation that shows, by their names.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn show(
    core: &Core,
    uid: &Uid,
    channels: &[ChannelRef],
    msg_count: u32,
) -> Result<HashMap<ChannelRef, Item>, Error> {
    core.check_conversations_on()?;
    let keys: Vec<ChannelKey> = channels
        .iter()
        .map(|channel| ChannelKey::new(uid, channel))
        .collect();
    let names: Vec<(&Uid, &ChannelKey)> = keys.iter().map(|key| (uid, key)).collect();
    let mut rows: Vec<_> = core
        .store
        .find_conversations(&names)
        .await?
        .into_iter()
        .map(|(_, row)| row)
        .collect();
    rows.retain(is_listed);
    let items = items(
        core,
        uid,
        &rows.iter().collect::<Vec<_>>(),
        msg_count,
        |_| 0,
        &AnswerBytes::new(core.limits.answer_bytes),
    )
    .await?;
    Ok(items
        .into_iter()
        .map(|item| (item.conversation.channel.clone(), item))
        .collect())
}
