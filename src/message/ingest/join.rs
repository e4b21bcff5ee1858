//! Makes the senders and recipients of ingested messages members.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{IncomingMessage, MessageBatch, Recipients};
use crate::channel::{ChannelService, JoinReason, MemberHint, join_members};
use crate::error::Error;
use crate::message::send::implies_membership;
use crate::model::{ChannelKey, ChannelPk, EpochMs, MessageId, Seq, Uid};
use crate::store::{FindMessages, LockPolicy, MessagePosition};

/// Makes the senders and recipients of group messages members. A message that is refused, because
/// another one has its seq or its id, makes nobody a member.
///
/// Returns the users who could not join because another transaction holds their lock.
pub(super) async fn join_implied(
    channels: &ChannelService,
    batches: &[Arc<MessageBatch>],
    ids: &HashMap<ChannelKey, ChannelPk>,
    lock_policy: LockPolicy,
) -> Result<HashSet<String>, Error> {
    let messages = || batches.iter().flat_map(|batch| &batch.messages);
    let senders: Vec<&IncomingMessage> = messages()
        .filter(|incoming| {
            implies_membership(channels, ids, &incoming.key, &incoming.message.from_uid)
        })
        .collect();
    let received: Vec<&Recipients> = batches
        .iter()
        .filter_map(|batch| batch.recipients.as_ref())
        .collect();
    if senders.is_empty() && received.is_empty() {
        return Ok(HashSet::new());
    }
    // First the stored messages, then the messages of these batches, in their order.
    let named = messages().map(|incoming| {
        (
            ids[&incoming.key],
            incoming.message.seq,
            incoming.message.message_id,
        )
    });
    let named = named.chain(
        received
            .iter()
            .map(|one| (ids[&one.key], one.seq, one.message_id)),
    );
    let (positions, named): (Vec<MessagePosition>, Vec<(ChannelPk, MessageId)>) = named
        .map(|(channel_id, seq, message_id)| {
            (
                MessagePosition { channel_id, seq },
                (channel_id, message_id),
            )
        })
        .unzip();
    let mut by_id = channels.base.store.find_message_ids(&named).await?;
    let mut by_position = channels.base.store.find_positions(&positions).await?;
    for IncomingMessage { key, message } in messages() {
        let position = MessagePosition {
            channel_id: ids[key],
            seq: message.seq,
        };
        let id = (position.channel_id, message.message_id);
        if !by_id.contains_key(&id) && !by_position.contains_key(&position) {
            by_id.insert(id, message.seq);
            by_position.insert(position, message.message_id);
        }
    }
    let is_stored = |channel_id: ChannelPk, seq: Seq, message_id: MessageId| {
        by_id.get(&(channel_id, message_id)) == Some(&seq)
    };

    let mut hints = Vec::new();
    for IncomingMessage { key, message } in senders {
        let channel_id = ids[key];
        if is_stored(channel_id, message.seq, message.message_id)
            && let Ok(uid) = Uid::parse("from_uid", message.from_uid.as_str())
        {
            hints.push(MemberHint {
                channel_id,
                uid,
                reason: reason(message.seq, message.sent_at),
            });
        }
    }
    for recipients in received {
        let channel_id = ids[&recipients.key];
        if is_stored(channel_id, recipients.seq, recipients.message_id) {
            let reason = reason(recipients.seq, recipients.sent_at);
            let unknown = recipients
                .uids
                .iter()
                .filter(|uid| !channels.members.contains(channel_id, uid));
            hints.extend(unknown.map(|uid| MemberHint {
                channel_id,
                uid: uid.clone(),
                reason,
            }));
        }
    }
    let locked_users = join_members(channels, &hints, lock_policy).await?;
    Ok(locked_users
        .iter()
        .map(|uid| uid.as_str().to_owned())
        .collect())
}

fn reason(seq: Seq, sent_at: EpochMs) -> JoinReason {
    JoinReason::Message { seq, sent_at }
}
