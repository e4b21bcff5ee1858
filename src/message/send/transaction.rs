//! The transaction that stores sends.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{PendingSend, SendReceipt, idempotency_keys};
use crate::base::Base;
use crate::model::{ChannelHead, ChannelKey, ChannelPk, ChannelSnapshotId, Message, SenderMark};
use crate::store::{FindMessages, LockPolicy, OwnMessage, Store, StoreError, Tx};

/// Messages that are appended to a locked channel.
pub(super) struct ChannelAppend {
    /// State of the channel before the append.
    pub(super) before: ChannelSnapshotId,
    pub(super) head: ChannelHead,
    /// New messages, oldest first.
    pub(super) messages: Vec<Arc<Message>>,
}

/// State of an open transaction that stores sends. The channels are locked, and the stored messages
/// are known.
pub(super) struct SendBatch<'a> {
    ids: &'a HashMap<ChannelKey, ChannelPk>,
    /// By internal id.
    pub(super) channels: BTreeMap<ChannelPk, ChannelAppend>,
    /// By channel, sender and `client_msg_no`.
    stored: HashMap<(ChannelPk, String, String), Message>,
    /// The newest own message of each sender.
    own: BTreeMap<(ChannelPk, String), SenderMark>,
}

impl<'a> SendBatch<'a> {
    pub(super) async fn begin(
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
    pub(super) fn add(
        &mut self,
        base: &Base,
        pending: &PendingSend,
    ) -> Result<SendReceipt, StoreError> {
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

    pub(super) async fn write(&self, tx: &Tx) -> Result<(), StoreError> {
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
