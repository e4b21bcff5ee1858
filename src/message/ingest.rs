//! Ingest of messages that a `WuKongIM` stored: with its own seqs, at least once, in any order. A
//! batch is stored completely or not at all; concurrent batches share a transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::MessageService;
use super::send::implies_membership;
use crate::batching::{BatchHandler, BatchReply, BatchResult, row_hash, shard_of};
use crate::channel::{ChannelService, JoinReason, MemberHint, join_members};
use crate::error::Error;
use crate::model::{
    ChannelHead, ChannelKey, ChannelPk, EpochMs, Message, MessageId, Revision, SenderMark, Seq, Uid,
};
use crate::store::{LockPolicy, MessagePosition, OwnMessage, Store, StoreError, StoredMessage, Tx};

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
/// A message that is already stored (same `message_id`, or same channel and seq) changes nothing.
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
    let (reports, touched) = channels
        .base
        .store
        .transaction(|tx| async move {
            let mut stored =
                IngestTransaction::begin(store, &tx, ids, batches, lock_policy).await?;
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
    channels.base.bus.channels_moved(
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

/// Makes the senders and recipients of group messages members. A message that is refused, because
/// another one has its seq or its id, makes nobody a member.
///
/// Returns the users who could not join because another transaction holds their lock.
async fn join_implied(
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

/// State of an open transaction that stores batches. The channels are locked, and the stored
/// messages are known.
struct IngestTransaction {
    /// By internal id, in lock order.
    heads: BTreeMap<ChannelPk, ChannelHead>,
    /// Seqs by channel and global id.
    by_id: HashMap<(ChannelPk, MessageId), Seq>,
    by_position: HashMap<MessagePosition, MessageId>,
    /// Channels whose head changed.
    touched: HashSet<ChannelPk>,
    /// Not written yet; written before any statement that must see them.
    messages: Vec<StoredMessage>,
    /// The newest own message of each sender; not written yet.
    own: HashMap<(ChannelPk, String), SenderMark>,
    /// Results of the current batch.
    report: IngestReport,
}

impl IngestTransaction {
    async fn begin(
        store: &Store,
        tx: &Tx,
        ids: &HashMap<ChannelKey, ChannelPk>,
        batches: &[Arc<MessageBatch>],
        lock_policy: LockPolicy,
    ) -> Result<Self, StoreError> {
        let channel_ids: Vec<ChannelPk> = ids.values().copied().collect();
        let heads = tx.lock_channels(&channel_ids, lock_policy).await?;
        if lock_policy == LockPolicy::Wait && heads.len() < channel_ids.len() {
            return Err(store.forget_channels(ids.keys()));
        }
        let heads: BTreeMap<ChannelPk, ChannelHead> =
            heads.into_iter().map(|head| (head.id, head)).collect();
        let messages = || batches.iter().flat_map(|batch| &batch.messages);
        let named: Vec<(ChannelPk, MessageId)> = messages()
            .map(|incoming| (ids[&incoming.key], incoming.message.message_id))
            .collect();
        let by_id = tx.find_message_ids(&named).await?;
        // There are no messages above the head yet.
        let below: Vec<MessagePosition> = messages()
            .map(|incoming| MessagePosition {
                channel_id: ids[&incoming.key],
                seq: incoming.message.seq,
            })
            .filter(|position| {
                heads
                    .get(&position.channel_id)
                    .is_some_and(|head| position.seq <= head.last_seq)
            })
            .collect();
        let by_position = tx.find_positions(&below).await?;
        Ok(Self {
            heads,
            by_id,
            by_position,
            touched: HashSet::new(),
            messages: Vec::new(),
            own: HashMap::new(),
            report: IngestReport::default(),
        })
    }

    /// Adds a batch. It may not be written completely until [`IngestTransaction::flush`].
    async fn store(
        &mut self,
        tx: &Tx,
        ids: &HashMap<ChannelKey, ChannelPk>,
        batch: &MessageBatch,
    ) -> Result<IngestReport, StoreError> {
        // Channels in lock order; within a channel in the given order.
        let mut by_channel: BTreeMap<ChannelPk, Vec<&IncomingMessage>> = BTreeMap::new();
        for incoming in &batch.messages {
            by_channel
                .entry(ids[&incoming.key])
                .or_default()
                .push(incoming);
        }
        for (channel_id, messages) in by_channel {
            for incoming in messages {
                self.store_one(tx, channel_id, &incoming.message).await?;
            }
        }
        Ok(std::mem::take(&mut self.report))
    }

    async fn store_one(
        &mut self,
        tx: &Tx,
        channel_id: ChannelPk,
        message: &Message,
    ) -> Result<(), StoreError> {
        let position = MessagePosition {
            channel_id,
            seq: message.seq,
        };
        if let Some(stored) = self.by_id.get(&(channel_id, message.message_id)) {
            if *stored == message.seq {
                self.report.repeated += 1;
            } else {
                self.conflict(
                    message,
                    "ignoring a message: its id is stored under another seq",
                );
            }
            return Ok(());
        }
        if self.by_position.contains_key(&position) {
            self.conflict(message, "ignoring a message: another message has its seq");
            return Ok(());
        }
        self.by_id
            .insert((channel_id, message.message_id), message.seq);
        self.by_position.insert(position, message.message_id);
        self.report.stored += 1;
        self.touched.insert(channel_id);

        let Some(head) = self.heads.get_mut(&channel_id) else {
            return Ok(());
        };
        head.revision = head.revision.next();
        head.red_dots += i64::from(message.red_dot);
        let (revision, red_dots) = (head.revision, head.red_dots);
        let is_late = message.seq < head.last_seq;
        self.messages.push(message.clone().into_stored(channel_id));
        if is_late {
            if message.red_dot {
                head.late_revision = revision;
            }
            return self
                .store_late(tx, channel_id, message, revision, red_dots)
                .await;
        }
        head.last_seq = message.seq;
        head.last_message_at = message.sent_at;
        let mark = SenderMark {
            seq: message.seq,
            red_dots,
            revision,
        };
        self.own
            .insert((channel_id, message.from_uid.clone()), mark);
        Ok(())
    }

    /// Stores a message below the head. Users with a higher position must know that it arrived
    /// after their mark. If it is the sender's newest own message, it marks the messages before it
    /// as read.
    async fn store_late(
        &mut self,
        tx: &Tx,
        channel_id: ChannelPk,
        message: &Message,
        revision: Revision,
        red_dots: i64,
    ) -> Result<(), StoreError> {
        self.flush(tx).await?;
        if message.red_dot {
            tx.insert_late_message(channel_id, revision, message.seq)
                .await?;
        }
        let known = tx.find_sender_mark(channel_id, &message.from_uid).await?;
        if message.seq > known.seq {
            let above = tx
                .count_red_dots_above(channel_id, message.seq, &message.from_uid)
                .await?;
            let mark = SenderMark {
                seq: message.seq,
                red_dots: red_dots - above,
                revision,
            };
            self.own
                .insert((channel_id, message.from_uid.clone()), mark);
        }
        Ok(())
    }

    fn conflict(&mut self, message: &Message, what: &'static str) {
        self.report.conflicts += 1;
        tracing::warn!(message_id = message.message_id.0, seq = message.seq.0, channel = ?message.channel, "{what}");
    }

    async fn flush(&mut self, tx: &Tx) -> Result<(), StoreError> {
        tx.insert_messages(&std::mem::take(&mut self.messages))
            .await?;
        let own = std::mem::take(&mut self.own).into_iter();
        let own = own.map(|((channel_id, uid), mark)| OwnMessage {
            channel_id,
            uid,
            mark,
        });
        tx.write_sender_marks(own.collect()).await
    }
}
