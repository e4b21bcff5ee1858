//! Look-up of channels and their members.

use std::collections::HashMap;

use super::{ChannelService, Flags};
use crate::error::Error;
use crate::model::{ChannelKey, ChannelRef, ChannelType, ConversationRow, Uid};

/// Returns the members of a channel. A person channel is named by both uids (`bob@ann`) or by one
/// of them.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_members(
    service: &ChannelService,
    channel: &ChannelRef,
) -> Result<Vec<String>, Error> {
    if channel.channel_type == ChannelType::PERSON {
        return Ok(channel.channel_id.split('@').map(str::to_owned).collect());
    }
    let key = ChannelKey {
        channel_type: channel.channel_type,
        key: channel.channel_id.clone(),
    };
    match service.base.store.find_channel(&key).await? {
        Some(channel_id) => Ok(service.base.store.list_members(channel_id).await?),
        None => Ok(Vec::new()),
    }
}

/// Returns the existing channels of which `viewer` is a member (`None`: a service, which may see
/// all), with their flags. Person channels are never returned: each of the two users has a
/// conversation instead.
///
/// # Errors
/// [`Error::Store`].
pub async fn find_channels(
    service: &ChannelService,
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
            let rows = service
                .base
                .store
                .find_without_counts(&names)
                .await?
                .into_iter()
                .map(|(_, row)| row);
            rows.filter(ConversationRow::is_member)
                .map(|row| row.key)
                .collect()
        }
    };
    let ids = service
        .base
        .store
        .find_channels(&visible.iter().collect::<Vec<_>>())
        .await?;
    let heads = service
        .base
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
