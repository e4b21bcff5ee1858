//! The transaction that stores batches of messages.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{IncomingMessage, IngestReport, MessageBatch};
use crate::model::{
    ChannelHead, ChannelKey, ChannelPk, EpochMs, Message, MessageId, Revision, SenderMark, Seq,
};
use crate::store::{
    FindMessages, LockPolicy, MessagePosition, MessageRow, OwnMessage, Store, StoreError, Tx,
};

/// State of an open transaction that stores batches. The channels are locked, and the stored
/// messages are known.
pub(super) struct IngestTransaction {
    /// By internal id, in lock order.
    pub(super) heads: BTreeMap<ChannelPk, ChannelHead>,
    /// Seqs by channel and global id.
    by_id: HashMap<(ChannelPk, MessageId), Seq>,
    by_position: HashMap<MessagePosition, MessageId>,
    /// When the messages arrive.
    now: EpochMs,
    /// Channels whose head changed.
    pub(super) touched: HashSet<ChannelPk>,
    /// Not written yet; written before any statement that must see them.
    messages: Vec<MessageRow>,
    /// The newest own message of each sender; not written yet.
    own: HashMap<(ChannelPk, String), SenderMark>,
    /// Results of the current batch.
    report: IngestReport,
}

impl IngestTransaction {
    pub(super) async fn begin(
        (store, now): (&Store, EpochMs),
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
            now,
            by_id,
            by_position,
            touched: HashSet::new(),
            messages: Vec::new(),
            own: HashMap::new(),
            report: IngestReport::default(),
        })
    }

    /// Adds a batch. It may not be written completely until [`IngestTransaction::flush`].
    pub(super) async fn store(
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
                return self.complete_stream(tx, position, message).await;
            }
            self.conflict(
                message,
                "ignoring a message: its id is stored under another seq",
            );
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
        if is_late {
            head.gaps.insert(message.seq);
        } else {
            head.gaps.append(head.last_seq, message.seq, self.now);
        }
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

    /// Adds what a repeat of a message knows of its stream in addition. v1 sends a stream's number
    /// only with the second of two webhooks, and an import may know more of its text.
    ///
    /// The channel gets a new revision, because the members see the change, and because every
    /// server's cached messages belong to a revision.
    async fn complete_stream(
        &mut self,
        tx: &Tx,
        position: MessagePosition,
        repeat: &Message,
    ) -> Result<(), StoreError> {
        if repeat.content.stream.is_empty() {
            return Ok(());
        }
        self.flush(tx).await?;
        let Some(mut stream) = tx.find_stream(position).await? else {
            return Ok(());
        };
        if let Some(head) = self.heads.get_mut(&position.channel_id)
            && stream.complete(&repeat.content.stream)
        {
            tx.write_stream(position, &stream).await?;
            head.revision = head.revision.next();
            self.touched.insert(position.channel_id);
        }
        Ok(())
    }

    fn conflict(&mut self, message: &Message, what: &'static str) {
        self.report.conflicts += 1;
        tracing::warn!(message_id = message.message_id.0, seq = message.seq.0, channel = ?message.channel, "{what}");
    }

    pub(super) async fn flush(&mut self, tx: &Tx) -> Result<(), StoreError> {
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
