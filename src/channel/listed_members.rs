//! Joining of users whom a business server lists as members, without a message that says so.

use super::members::ensure_channel;
use super::{ChannelService, JoinReason, MemberHint, join_members};
use crate::error::Error;
use crate::model::{ChannelKey, Seq, Uid};
use crate::store::LockPolicy;

/// Makes the users members just below the newest message of the channel, so that it shows and counts
/// as unread. The channel may be unknown: they join below its first message then. Members stay as
/// they are, and users who were removed a moment ago stay removed.
///
/// # Errors
/// [`Error::Store`].
pub(crate) async fn join_listed_members(
    service: &ChannelService,
    channel: &ChannelKey,
    uids: &[Uid],
) -> Result<(), Error> {
    let listed_at = service.base.clock.now_ms();
    let channel_id = ensure_channel(service, channel).await?;
    let heads = service.base.store.list_heads(&[channel_id]).await?;
    let newest = heads.first().map_or(Seq::ZERO, |head| head.last_seq);
    let reason = JoinReason::Message {
        seq: newest.max(Seq(1)),
        sent_at: listed_at,
    };
    let unknown = uids
        .iter()
        .filter(|uid| !service.members.contains(channel_id, uid));
    let hints: Vec<MemberHint> = unknown
        .map(|uid| MemberHint {
            channel_id,
            uid: uid.clone(),
            reason,
        })
        .collect();
    let _permit = service.base.store.acquire_lock_wait_permit().await;
    join_members(service, &hints, LockPolicy::Wait).await?;
    Ok(())
}
