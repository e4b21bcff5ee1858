//! Which channels there are.

use std::collections::HashMap;

use super::{ChannelKey, Flags};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Uid};
use crate::store::ConversationRow;

/// Who is in a channel: its members, or the two of a person channel that is named by its pair
/// (`bob@ann`) or by one of them.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_members(core: &Core, channel: &ChannelRef) -> Result<Vec<String>, Error> {
    if channel.channel_type == ChannelType::PERSON {
        return Ok(channel.channel_id.split('@').map(str::to_owned).collect());
    }
    let key = ChannelKey {
        channel_type: channel.channel_type,
        key: channel.channel_id.clone(),
    };
    match core.store.find_channel(&key).await? {
        Some(channel_id) => Ok(core.store.list_members(channel_id).await?),
        None => Ok(Vec::new()),
    }
}

/// Those of `channels` that exist and that `viewer` is in (`None`: a service, which may see all of
/// them), with their flags. Nobody sees a person channel as a whole: each of the two users has a
/// conversation.
///
/// # Errors
/// [`Error::Store`].
pub async fn find_channels(
    core: &Core,
    viewer: Option<&Uid>,
    channels: &[ChannelRef],
) -> Result<HashMap<ChannelRef, Flags>, Error> {
    let groups = channels
        .iter()
        .filter(|channel| channel.channel_type != ChannelType::PERSON);
    let keys: Vec<ChannelKey> = groups
        .map(|channel| ChannelKey {
            channel_type: channel.channel_type,
            key: channel.channel_id.clone(),
        })
        .collect();
    let visible: Vec<ChannelKey> = match viewer {
        None => keys,
        Some(uid) => {
            let names: Vec<(&Uid, &ChannelKey)> = keys.iter().map(|key| (uid, key)).collect();
            let rows = core
                .store
                .find_uncounted(&names)
                .await?
                .into_iter()
                .map(|(_, row)| row);
            rows.filter(ConversationRow::is_member)
                .map(|row| row.key)
                .collect()
        }
    };
    let ids = core
        .store
        .find_channels(&visible.iter().collect::<Vec<_>>())
        .await?;
    let heads = core
        .store
        .list_heads(&ids.into_values().collect::<Vec<_>>())
        .await?;
    let named = heads.into_iter().map(|head| {
        (
            ChannelRef {
                channel_type: head.key.channel_type,
                channel_id: head.key.key,
            },
            Flags::from_bits(head.flags),
        )
    });
    Ok(named.collect())
}
