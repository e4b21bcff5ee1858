//! Deletion of a channel: hides its messages from everyone at once, then removes its members.

use super::ChannelService;
use super::members::{group_key, remove_others};
use crate::error::Error;
use crate::model::{ChannelGaps, ChannelRef};

/// Deletes a channel: its conversations are no longer listed, all devices are notified, and its
/// messages never show again. Nothing is deleted from the database; creating the channel again
/// yields an empty one. Deleting an unknown or deleted channel changes nothing. A deletion that
/// failed half-way can be repeated.
///
/// # Errors
/// [`Error::BadInput`] for a person channel, [`Error::Store`].
pub async fn delete_channel(service: &ChannelService, channel: &ChannelRef) -> Result<(), Error> {
    let key = group_key(channel)?;
    let Some(channel_id) = service.base.store.find_channel(&key).await? else {
        return Ok(());
    };
    service
        .base
        .store
        .lock_waiting_transaction(|tx| async move {
            let Some(mut head) = tx.lock_channel(channel_id).await? else {
                return Ok(());
            };
            if head.cleared_to_seq < head.last_seq {
                head.cleared_to_seq = head.last_seq;
                // Nobody will see the messages that have not arrived.
                head.gaps = ChannelGaps::default();
                head.gaps.complete_to = head.last_seq;
                // Makes the conversation of every member stale, so that the next sync reports its
                // removal.
                head.revision = head.revision.next();
                tx.write_heads(&[&head]).await?;
            }
            tx.commit(()).await
        })
        .await?;
    service.base.bus.channels_changed([(channel_id, &key)]);
    remove_others(service, &key, &[]).await
}
