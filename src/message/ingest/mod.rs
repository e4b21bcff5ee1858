//! Ingest of messages that a `WuKongIM` stored: with its own seqs, at least once, in any order. A
//! batch is stored completely or not at all; concurrent batches share a transaction.

mod join;
mod transaction;

use std::collections::HashSet;
use std::sync::Arc;

use self::join::join_implied;
use self::transaction::IngestTransaction;
use super::MessageService;
use crate::batching::{BatchHandler, BatchReply, BatchResult, row_hash, shard_of};
use crate::channel::ChannelService;
use crate::error::Error;
use crate::model::{ChannelHead, ChannelKey, EpochMs, Message, MessageId, Seq, Uid};
use crate::store::LockPolicy;

/// The messages of one webhook call or import step.
#[derive(Clone, Debug, Default)]
pub struct MessageBatch {
    /// The messages, in the order in which they count.
    pub messages: Vec<IncomingMessage>,
    /// Recipients of a message that is stored before or with these messages.
    pub recipients: Option<Recipients>,
}

/// A validated message from outside.
#[derive(Clone, Debug)]
pub struct IncomingMessage {
    /// The channel.
    pub key: ChannelKey,
    /// The message, with its seq.
    pub message: Message,
}

/// Users who received a group's message, and are therefore members of the group.
#[derive(Clone, Debug)]
pub struct Recipients {
    /// The group.
    pub key: ChannelKey,
    /// The message's seq: the users join below it.
    pub seq: Seq,
    /// The message's global id.
    pub message_id: MessageId,
    /// When the message was sent.
    pub sent_at: EpochMs,
    /// The users.
    pub uids: Vec<Uid>,
}

/// Numbers of messages by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestReport {
    /// New messages.
    pub stored: u64,
    /// Messages that were stored before.
    pub repeated: u64,
    /// Messages that were refused because another message has the same seq, or the same id has
    /// another seq; the first one was kept.
    pub conflicts: u64,
}

/// Stores messages under their seqs and makes the recipients members, all or nothing.
///
/// A message that is already stored (same `message_id`, or same channel and seq) changes nothing,
/// except that it may complete the stored message's stream.
/// Messages count one after the other in the given order, so the division into batches does not
/// matter.
///
/// # Errors
/// [`Error::Store`]: nothing was stored, or the outcome is not known. [`Error::Timeout`]: nothing
/// was stored, or everything after the time limit.
pub async fn ingest(
    service: &MessageService,
    incoming: impl Into<Arc<MessageBatch>>,
) -> Result<IngestReport, Error> {
    let incoming: Arc<MessageBatch> = incoming.into();
    if incoming.messages.is_empty() && incoming.recipients.is_none() {
        return Ok(IngestReport::default());
    }
    // Any shard works; the message id spreads the batches evenly.
    let shard = shard_of(
        &incoming
            .messages
            .first()
            .map(|first| first.message.message_id),
        service.base.store.write_shards(),
    );
    service.ingests.submit(shard, incoming).await
}

/// Stores several batches in one transaction, one after the other.
pub(super) struct IngestHandler(pub(super) Arc<ChannelService>);

impl BatchHandler for IngestHandler {
    type Request = MessageBatch;
    type Reply = IngestReport;

    async fn run(
        &self,
        batch: Vec<Arc<MessageBatch>>,
        lock_policy: LockPolicy,
    ) -> BatchResult<IngestReport> {
        store_batches(&self.0, &batch, lock_policy).await
    }
}

async fn store_batches(
    channels: &ChannelService,
    batches: &[Arc<MessageBatch>],
    lock_policy: LockPolicy,
) -> BatchResult<IngestReport> {
    let keys: HashSet<&ChannelKey> = batches.iter().flat_map(|batch| batch.keys()).collect();
    let ids = channels
        .base
        .store
        .ensure_channels(&keys.into_iter().collect::<Vec<_>>())
        .await?;
    // Before the messages commit: after a crash in between, the feeder repeats them and the members
    // exist.
    let locked_users = join_implied(channels, batches, &ids, lock_policy).await?;
    let (store, ids, locked_users) = (&channels.base.store, &ids, &locked_users);
    let now = channels.base.clock.now_ms();
    let (reports, touched) = channels
        .base
        .store
        .transaction(|tx| async move {
            let mut stored =
                IngestTransaction::begin((store, now), &tx, ids, batches, lock_policy).await?;
            let mut reports = Vec::with_capacity(batches.len());
            for batch in batches {
                let channel = batch
                    .keys()
                    .find(|key| !stored.heads.contains_key(&ids[*key]));
                reports.push(if let Some(channel) = channel {
                    BatchReply::RowLocked(row_hash(channel))
                } else if let Some(uid) = batch
                    .implied_members()
                    .find(|uid| locked_users.contains(*uid))
                {
                    BatchReply::RowLocked(row_hash(&uid))
                } else {
                    BatchReply::Ready(Ok(stored.store(&tx, ids, batch).await?))
                });
            }
            stored.flush(&tx).await?;
            let heads: Vec<&ChannelHead> = stored
                .heads
                .values()
                .filter(|head| stored.touched.contains(&head.id))
                .collect();
            tx.write_heads(&heads).await?;
            tx.commit((reports, stored.touched)).await
        })
        .await?;
    channels.base.bus.channels_changed(
        ids.iter()
            .filter(|(_, id)| touched.contains(id))
            .map(|(key, id)| (*id, key)),
    );
    let done = || {
        reports.iter().filter_map(|report| {
            if let BatchReply::Ready(Ok(report)) = report {
                Some(report)
            } else {
                None
            }
        })
    };
    let sum = |count: fn(&IngestReport) -> u64| done().map(count).sum::<u64>();
    let (stored, repeated, conflicts) = (
        sum(|one| one.stored),
        sum(|one| one.repeated),
        sum(|one| one.conflicts),
    );
    for (result, count) in [
        ("stored", stored),
        ("repeated", repeated),
        ("conflict", conflicts),
    ] {
        metrics::counter!(crate::metrics::MESSAGES_TOTAL, "result" => result).increment(count);
    }
    Ok(reports)
}

impl MessageBatch {
    fn keys(&self) -> impl Iterator<Item = &ChannelKey> {
        self.messages
            .iter()
            .map(|incoming| &incoming.key)
            .chain(self.recipients.iter().map(|recipients| &recipients.key))
    }

    /// Uids that may become members because of this batch.
    fn implied_members(&self) -> impl Iterator<Item = &str> {
        let received = self
            .recipients
            .iter()
            .flat_map(|recipients| recipients.uids.iter().map(Uid::as_str));
        self.messages
            .iter()
            .map(|incoming| incoming.message.from_uid.as_str())
            .chain(received)
    }
}
