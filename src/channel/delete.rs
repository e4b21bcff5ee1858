//! Deleting a channel: its messages go for everybody at once, then its members.

use super::members::{group_key, remove_others};
use crate::core::Core;
use crate::error::Error;
use crate::ids::ChannelRef;

/// Deletes a channel: its conversations go, all devices are told, and what was said never shows
/// again. Nothing is removed from the database, and who makes the channel again begins with an
/// empty one. Deleting an unknown or deleted one changes nothing; one that failed on the way can be
/// repeated.
///
/// # Errors
/// [`Error::BadInput`] for a person channel, [`Error::Store`].
pub async fn delete_channel(core: &Core, channel: &ChannelRef) -> Result<(), Error> {
    let key = group_key(channel)?;
    let Some(channel_id) = core.store.find_channel(&key).await? else {
        return Ok(());
    };
    core.store
        .waiting_transaction(|tx| async move {
            let Some(mut head) = tx.lock_channel(channel_id).await? else {
                return Ok(());
            };
            if head.cleared_to_seq < head.last_seq {
                head.cleared_to_seq = head.last_seq;
                // Every member's conversation is stale, and tells at the next look that it is gone.
                head.revision += 1;
                tx.write_heads(&[&head]).await?;
            }
            tx.commit(()).await
        })
        .await?;
    core.bus.channels_moved([(channel_id, &key)]);
    remove_others(core, &key, &[]).await
}
