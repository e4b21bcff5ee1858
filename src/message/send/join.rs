//! Makes the senders of group messages members.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{PendingSend, idempotency_keys};
use crate::channel::{ChannelService, JoinReason, MemberHint, join_members};
use crate::error::Error;
use crate::model::{ChannelKey, ChannelPk, ChannelType, Seq, Uid};
use crate::store::{FindMessages, LockPolicy};

/// Makes the senders of group messages members. The conversation must exist before the message
/// commits: after a crash in between, the message does not exist, and the next attempt finds the
/// conversation.
///
/// Returns the senders who could not join because another transaction holds their lock.
pub(super) async fn join_senders(
    channels: &ChannelService,
    sends: &[Arc<PendingSend>],
    ids: &HashMap<ChannelKey, ChannelPk>,
    lock_policy: LockPolicy,
) -> Result<HashSet<Uid>, Error> {
    let mut open: Vec<&PendingSend> = sends
        .iter()
        .map(Arc::as_ref)
        .filter(|pending| {
            implies_membership(channels, ids, &pending.key, &pending.message.from_uid)
        })
        .collect();
    if open.is_empty() {
        return Ok(HashSet::new());
    }
    // A repeated send stores nothing, so it makes nobody a member.
    let stored = channels
        .base
        .store
        .find_by_client_msg_nos(&idempotency_keys(open.iter().copied(), ids))
        .await?;
    let stored: HashSet<(ChannelPk, &str, &str)> = stored
        .iter()
        .map(|message| {
            (
                ChannelPk(message.channel_id),
                &*message.from_uid,
                &*message.client_msg_no,
            )
        })
        .collect();
    open.retain(|pending| !stored.contains(&pending.idempotency_key(ids)));
    let channel_ids: Vec<ChannelPk> = open.iter().map(|pending| ids[&pending.key]).collect();
    let heads = channels.base.store.list_heads(&channel_ids).await?;
    let next: HashMap<ChannelPk, Seq> = heads
        .into_iter()
        .map(|head| (head.id, head.last_seq.next()))
        .collect();
    let hints = open.into_iter().filter_map(|pending| {
        let channel_id = ids[&pending.key];
        let reason = JoinReason::Message {
            seq: *next.get(&channel_id)?,
            sent_at: pending.message.sent_at,
        };
        Some(MemberHint {
            channel_id,
            uid: Uid::parse("from_uid", pending.message.from_uid.as_str()).ok()?,
            reason,
        })
    });
    join_members(channels, &hints.collect::<Vec<_>>(), lock_policy).await
}

/// Returns whether a message may make its sender a member. Person channels have fixed members, and
/// channels that are never listed need none.
pub(in crate::message) fn implies_membership(
    channels: &ChannelService,
    ids: &HashMap<ChannelKey, ChannelPk>,
    key: &ChannelKey,
    from: &str,
) -> bool {
    let Ok(uid) = Uid::parse("from_uid", from) else {
        return false;
    };
    key.channel_type != ChannelType::PERSON
        && key.channel_type.is_listed()
        && !uid.is_system()
        && !channels.members.contains(ids[key], &uid)
}
