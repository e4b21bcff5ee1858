//! The current conversations with their messages. No versions are assigned, because the result is
//! not used as a cursor.

use std::collections::HashMap;

use super::sync::{activity_order, with_messages};
use super::visibility::is_listed;
use super::{ConversationService, ConversationWithMessages};
use crate::error::Error;
use crate::message::AnswerSizeLimit;
use crate::model::{ChannelKey, ChannelRef, ConversationRow, Seq, Uid};

/// Returns all listed conversations of the user, newest activity first, each with up to `msg_count`
/// newest messages.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn list_conversations_with_messages(
    service: &ConversationService,
    uid: &Uid,
    msg_count: u32,
) -> Result<Vec<ConversationWithMessages>, Error> {
    service.base.check_conversations_on()?;
    let mut rows = service.base.store.list_conversations(uid).await?;
    rows.retain(is_listed);
    let mut items = with_messages(
        service,
        uid,
        &rows.iter().collect::<Vec<_>>(),
        msg_count,
        |_| Seq::ZERO,
        &AnswerSizeLimit::new(service.base.limits.answer_bytes),
    )
    .await?;
    items.sort_by(|a, b| activity_order(&a.conversation).cmp(&activity_order(&b.conversation)));
    Ok(items)
}

/// Returns the user's listed conversations in these channels.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn get_conversations_with_messages(
    service: &ConversationService,
    uid: &Uid,
    channels: &[ChannelRef],
    msg_count: u32,
) -> Result<HashMap<ChannelRef, ConversationWithMessages>, Error> {
    get_shown(service, uid, channels, msg_count, is_listed).await
}

/// Returns the user's conversations in these channels that `is_shown` selects.
pub(super) async fn get_shown(
    service: &ConversationService,
    uid: &Uid,
    channels: &[ChannelRef],
    msg_count: u32,
    is_shown: fn(&ConversationRow) -> bool,
) -> Result<HashMap<ChannelRef, ConversationWithMessages>, Error> {
    service.base.check_conversations_on()?;
    let keys: Vec<ChannelKey> = channels
        .iter()
        .map(|channel| ChannelKey::new(uid, channel))
        .collect();
    let names: Vec<(&Uid, &ChannelKey)> = keys.iter().map(|key| (uid, key)).collect();
    let mut rows: Vec<_> = service
        .base
        .store
        .find_conversations(&names)
        .await?
        .into_iter()
        .map(|(_, row)| row)
        .collect();
    rows.retain(is_shown);
    let items = with_messages(
        service,
        uid,
        &rows.iter().collect::<Vec<_>>(),
        msg_count,
        |_| Seq::ZERO,
        &AnswerSizeLimit::new(service.base.limits.answer_bytes),
    )
    .await?;
    Ok(items
        .into_iter()
        .map(|item| (item.conversation.channel_ref.clone(), item))
        .collect())
}
