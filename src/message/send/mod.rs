//! Sending a message. The cost does not depend on the size of the group. Concurrent sends share a
//! transaction, which writes only to the tables of channels.

mod join;
mod transaction;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(super) use self::join::implies_membership;
use self::join::join_senders;
use self::transaction::{ChannelAppend, SendBatch};
use super::{MessageService, RecentMessageCache};
use crate::batching::{BatchHandler, BatchReply, BatchResult, row_hash, shard_of};
use crate::channel::ChannelService;
use crate::error::Error;
use crate::model::{
    ChannelKey, ChannelPk, ChannelRef, ChannelType, Content, Message, Seq, Uid, check_key,
};
use crate::store::LockPolicy;

/// A message to send.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// The sender.
    pub from: Uid,
    /// The channel as the sender names it.
    pub channel: ChannelRef,
    /// The sender's deduplication key. Without a key, two equal sends are two messages.
    pub client_msg_no: Option<String>,
    /// True if it counts as unread.
    pub red_dot: bool,
    /// True if the message is only forwarded and not stored (`no_persist` or `sync_once`).
    pub transient: bool,
    /// True if the sender must be a member: true for users, false for services. Anyone may write to
    /// a person channel.
    pub as_member: bool,
    /// Payload and other content.
    pub content: Content,
}

/// Result of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendReceipt {
    /// The message as stored; if it is transient, as it would have been stored, with seq 0.
    pub message: Message,
    /// True if an earlier request stored it with the same `client_msg_no`.
    pub repeated: bool,
}

/// Stores a message and returns after the commit. A repeated (sender, channel, `client_msg_no`)
/// returns the first message.
///
/// # Errors
/// [`Error::BadInput`] for a payload, number or topic that is too long; [`Error::NotFound`] for a
/// channel of which the sender must be a member and is not; [`Error::Store`].
pub async fn send(service: &MessageService, request: SendRequest) -> Result<SendReceipt, Error> {
    let given = request.client_msg_no.as_deref().filter(|no| !no.is_empty());
    if let Some(no) = given {
        check_key("client_msg_no", no)?;
    }
    request.content.check(service.base.limits.payload_bytes)?;
    let now_ms = service.base.clock.now_ms();
    let key = ChannelKey::new(&request.from, &request.channel);
    if request.as_member && request.channel.channel_type != ChannelType::PERSON {
        let conversation = service
            .base
            .store
            .find_without_counts(&[(&request.from, &key)])
            .await?
            .pop();
        if conversation.is_none_or(|(_, row)| !row.is_member()) {
            return Err(Error::NotFound("channel"));
        }
    }
    let pending = Message {
        channel: request.channel,
        message_id: service.base.ids.message_id(now_ms),
        seq: Seq::ZERO,
        client_msg_no: given.map_or_else(|| service.base.ids.client_msg_no(), str::to_owned),
        from_uid: request.from.as_str().to_owned(),
        sent_at: now_ms,
        red_dot: request.red_dot,
        content: request.content,
    };
    if request.transient {
        return Ok(SendReceipt {
            message: pending,
            repeated: false,
        });
    }
    let pending = PendingSend {
        key,
        may_repeat: given.is_some(),
        message: pending,
    };
    let shard = shard_of(&pending.key, service.base.store.write_shards());
    service.sends.submit(shard, pending).await
}

/// A message that waits to be stored.
#[derive(Debug)]
pub(crate) struct PendingSend {
    key: ChannelKey,
    /// True if the sender set a `client_msg_no`.
    may_repeat: bool,
    message: Message,
}

impl PendingSend {
    fn idempotency_key(&self, ids: &HashMap<ChannelKey, ChannelPk>) -> (ChannelPk, &str, &str) {
        (
            ids[&self.key],
            &self.message.from_uid,
            &self.message.client_msg_no,
        )
    }
}

/// Stores messages of several senders in one transaction, in the order of arrival.
pub(super) struct SendHandler {
    pub(super) channels: Arc<ChannelService>,
    pub(super) recent_messages: Arc<RecentMessageCache>,
}

impl BatchHandler for SendHandler {
    type Request = PendingSend;
    type Reply = SendReceipt;

    async fn run(
        &self,
        batch: Vec<Arc<PendingSend>>,
        lock_policy: LockPolicy,
    ) -> BatchResult<SendReceipt> {
        store_batch(self, &batch, lock_policy).await
    }
}

async fn store_batch(
    handler: &SendHandler,
    sends: &[Arc<PendingSend>],
    lock_policy: LockPolicy,
) -> BatchResult<SendReceipt> {
    let channels = &*handler.channels;
    let keys: HashSet<&ChannelKey> = sends.iter().map(|pending| &pending.key).collect();
    let ids = channels
        .base
        .store
        .ensure_channels(&keys.into_iter().collect::<Vec<_>>())
        .await?;
    let locked_senders = join_senders(channels, sends, &ids, lock_policy).await?;
    let (ids, locked_senders) = (&ids, &locked_senders);
    let (sent, appended) = channels
        .base
        .store
        .transaction(|tx| async move {
            let mut batch =
                SendBatch::begin(&channels.base.store, &tx, sends, ids, lock_policy).await?;
            let mut sent = Vec::with_capacity(sends.len());
            for pending in sends {
                let from = pending.message.from_uid.as_str();
                sent.push(
                    if lock_policy == LockPolicy::SkipLocked
                        && !batch.channels.contains_key(&ids[&pending.key])
                    {
                        BatchReply::RowLocked(row_hash(&pending.key))
                    } else if locked_senders.iter().any(|uid| uid.as_str() == from) {
                        BatchReply::RowLocked(row_hash(&from))
                    } else {
                        BatchReply::Ready(Ok(batch.add(&channels.base, pending)?))
                    },
                );
            }
            batch.write(&tx).await?;
            tx.commit((sent, batch.channels)).await
        })
        .await?;
    let appended: Vec<&ChannelAppend> = appended
        .values()
        .filter(|channel| !channel.messages.is_empty())
        .collect();
    for channel in &appended {
        handler.recent_messages.append(
            channel.head.id,
            channel.before,
            channel.head.snapshot_id(),
            &channel.messages,
        );
    }
    channels.base.bus.channels_changed(
        appended
            .iter()
            .map(|channel| (channel.head.id, &channel.head.key)),
    );
    let count = |repeated| {
        sent.iter()
            .filter(|sent| matches!(sent, BatchReply::Ready(Ok(sent)) if sent.repeated == repeated))
            .count()
    };
    metrics::counter!(crate::metrics::MESSAGES_TOTAL, "result" => "repeated")
        .increment(count(true) as u64);
    metrics::counter!(crate::metrics::MESSAGES_TOTAL, "result" => "stored")
        .increment(count(false) as u64);
    Ok(sent)
}

/// Returns the keys that identify repeated sends: channel, sender and `client_msg_no`.
fn idempotency_keys<'a>(
    sends: impl Iterator<Item = &'a PendingSend>,
    ids: &HashMap<ChannelKey, ChannelPk>,
) -> Vec<(ChannelPk, &'a str, &'a str)> {
    sends
        .filter(|pending| pending.may_repeat)
        .map(|pending| pending.idempotency_key(ids))
        .collect()
}
