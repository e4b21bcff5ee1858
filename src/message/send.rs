//! Sending a message. The cost does not depend on the size of the group. Concurrent sends share a
//! transaction, which writes only to the tables of channels.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{MessageService, RecentMessageCache};
use crate::base::Base;
use crate::batching::{BatchHandler, BatchReply, BatchResult, row_hash, shard_of};
use crate::channel::{ChannelService, JoinReason, MemberHint, join_members};
use crate::error::Error;
use crate::model::{
    ChannelHead, ChannelKey, ChannelPk, ChannelRef, ChannelSnapshotId, ChannelType, Content,
    Message, SenderMark, Seq, Uid, check_key,
};
use crate::store::{LockPolicy, OwnMessage, Store, StoreError, Tx};

/// A message to send.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// The sender.
    pub from: Uid,
    /// The channel as the sender names it.
    pub channel: ChannelRef,
    /// The sender's deduplication key. Without a key, two equal sends are two messages.
    pub client_msg_no: Option<String>,
    /// Whether it counts as unread.
    pub red_dot: bool,
    /// Whether the message is only forwarded and not stored (`no_persist` or `sync_once`).
    pub transient: bool,
    /// Whether the sender must be a member: true for users, false for services. Anyone may write to
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
    /// Whether an earlier request stored it with the same `client_msg_no`.
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
    /// Whether the sender set a `client_msg_no`.
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
    channels.base.bus.channels_moved(
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

/// Makes the senders of group messages members. The conversation must exist before the message
/// commits: after a crash in between, the message does not exist, and the next attempt finds the
/// conversation.
///
/// Returns the senders who could not join because another transaction holds their lock.
async fn join_senders(
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

/// Returns whether a message may make its sender a member. Person channels have fixed members, and
/// channels that are never listed need none.
pub(super) fn implies_membership(
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

/// Messages that are appended to a locked channel.
struct ChannelAppend {
    /// State of the channel before the append.
    before: ChannelSnapshotId,
    head: ChannelHead,
    /// New messages, oldest first.
    messages: Vec<Arc<Message>>,
}

/// State of an open transaction that stores sends. The channels are locked, and the stored messages
/// are known.
struct SendBatch<'a> {
    ids: &'a HashMap<ChannelKey, ChannelPk>,
    /// By internal id.
    channels: BTreeMap<ChannelPk, ChannelAppend>,
    /// By channel, sender and `client_msg_no`.
    stored: HashMap<(ChannelPk, String, String), Message>,
    /// The newest own message of each sender.
    own: BTreeMap<(ChannelPk, String), SenderMark>,
}

impl<'a> SendBatch<'a> {
    async fn begin(
        store: &Store,
        tx: &Tx,
        sends: &[Arc<PendingSend>],
        ids: &'a HashMap<ChannelKey, ChannelPk>,
        lock_policy: LockPolicy,
    ) -> Result<Self, StoreError> {
        let heads = tx
            .lock_channels(&ids.values().copied().collect::<Vec<_>>(), lock_policy)
            .await?;
        if lock_policy == LockPolicy::Wait && heads.len() < ids.len() {
            return Err(store.forget_channels(ids.keys()));
        }
        let moving = |head: ChannelHead| {
            (
                head.id,
                ChannelAppend {
                    before: head.snapshot_id(),
                    head,
                    messages: Vec::new(),
                },
            )
        };
        let mut batch = Self {
            ids,
            channels: heads.into_iter().map(moving).collect(),
            stored: HashMap::new(),
            own: BTreeMap::new(),
        };
        let idempotency_keys = idempotency_keys(sends.iter().map(Arc::as_ref), ids);
        for stored in tx.find_by_client_msg_nos(&idempotency_keys).await? {
            if let Some(channel) = batch.channels.get(&ChannelPk(stored.channel_id)) {
                let message = Message::from_stored(stored, &channel.head.key);
                batch.record_idempotency_key(channel.head.id, message);
            }
        }
        Ok(batch)
    }

    /// Records a message for repeated sends; the first message with a key wins.
    fn record_idempotency_key(&mut self, channel_id: ChannelPk, message: Message) {
        self.stored
            .entry((
                channel_id,
                message.from_uid.clone(),
                message.client_msg_no.clone(),
            ))
            .or_insert(message);
    }

    /// Appends a message to its channel. The sender has thereby read everything before it.
    fn add(&mut self, base: &Base, pending: &PendingSend) -> Result<SendReceipt, StoreError> {
        let channel_id = self.ids[&pending.key];
        let PendingSend { message, .. } = pending;
        if pending.may_repeat
            && let Some(stored) = self.stored.get(&(
                channel_id,
                message.from_uid.clone(),
                message.client_msg_no.clone(),
            ))
        {
            return Ok(SendReceipt {
                message: stored.clone(),
                repeated: true,
            });
        }
        let Some(ChannelAppend { head, messages, .. }) = self.channels.get_mut(&channel_id) else {
            return Err(StoreError::Internal(
                "cannot lock a channel that was found".into(),
            ));
        };
        head.last_seq = head.last_seq.next();
        head.revision = head.revision.next();
        head.red_dots += i64::from(message.red_dot);
        // The clock of another server may be ahead: a new message never moves a conversation down.
        head.last_message_at = head.last_message_at.max(message.sent_at);
        // Every attempt uses a new id: another server that drew the same random bits may have given
        // this one.
        let message = Message {
            seq: head.last_seq,
            message_id: base.ids.message_id(message.sent_at),
            ..message.clone()
        };
        let mark = SenderMark {
            seq: head.last_seq,
            red_dots: head.red_dots,
            revision: head.revision,
        };
        messages.push(Arc::new(message.clone()));
        self.own
            .insert((channel_id, message.from_uid.clone()), mark);
        if pending.may_repeat {
            self.record_idempotency_key(channel_id, message.clone());
        }
        Ok(SendReceipt {
            message,
            repeated: false,
        })
    }

    async fn write(&self, tx: &Tx) -> Result<(), StoreError> {
        let appended: Vec<&ChannelAppend> = self
            .channels
            .values()
            .filter(|channel| !channel.messages.is_empty())
            .collect();
        if appended.is_empty() {
            return Ok(());
        }
        let messages = appended.iter().flat_map(|channel| {
            channel
                .messages
                .iter()
                .map(|message| Message::clone(message).into_stored(channel.head.id))
        });
        tx.insert_messages(&messages.collect::<Vec<_>>()).await?;
        tx.write_heads(
            &appended
                .iter()
                .map(|channel| &channel.head)
                .collect::<Vec<_>>(),
        )
        .await?;
        let own = self.own.iter().map(|((channel_id, uid), mark)| OwnMessage {
            channel_id: *channel_id,
            uid: uid.clone(),
            mark: *mark,
        });
        tx.write_sender_marks(own.collect()).await
    }
}
