//! Which channels there are.

use std::collections::HashSet;

use super::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType};

/// Those of `channels` that there are. Person channels are nobody's to see as a whole: each of the two has a conversation.
///
/// # Errors
/// [`Error::Store`].
pub async fn find_channels(core: &Core, channels: &[ChannelRef]) -> Result<HashSet<ChannelRef>, Error> {
    let groups = channels.iter().filter(|channel| channel.channel_type != ChannelType::PERSON);
    let keys: Vec<ChannelKey> =
        groups.map(|channel| ChannelKey { channel_type: channel.channel_type, key: channel.channel_id.clone() }).collect();
    let found = core.store.find_channels(&keys.iter().collect::<Vec<_>>()).await?;
    Ok(found.into_keys().map(|key| ChannelRef { channel_type: key.channel_type, channel_id: key.key }).collect())
}
