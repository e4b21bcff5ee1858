//! Sending: one message, one channel. The size of the group does not matter. Messages that are sent
//! at the same time share a transaction, which writes nothing but the channels' side.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Content, HeadState, Message};
use crate::channel::{ChannelKey, MemberHint, Reason, join_members};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Seq, Uid, check_key};
use crate::store::{Head, Locks, OwnMessage, SenderMark, StoreError, Tx};
use crate::together::{Answers, Done, lane, row};

/// A message to send.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// Who sends it.
    pub from: Uid,
    /// Where to, as the sender names it.
    pub channel: ChannelRef,
    /// The sender's deduplication key; without one, two equal sends are two messages.
    pub client_msg_no: Option<String>,
    /// Whether it counts as unread.
    pub red_dot: bool,
    /// Whether it is only handed on, not stored (`no_persist` or `sync_once`).
    pub transient: bool,
    /// Whether only a member may send: a user who asks, in contrast to a service. Anybody may write
    /// to a person.
    pub as_member: bool,
    /// The rest.
    pub content: Content,
}

/// What a sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message as stored, or as it would have been (seq 0) when it is transient.
    pub message: Message,
    /// Whether it was stored by an earlier request under the same `client_msg_no`.
    pub repeated: bool,
}

/// Stores a message; returns after the commit. A repeated (sender, channel, `client_msg_no`)
/// answers with the first message.
///
/// # Errors
/// [`Error::BadInput`] for a payload, number or topic that is too long, [`Error::NotFound`] for a
/// channel that the sender is not in where that matters, [`Error::Store`].
pub async fn send(core: &Arc<Core>, request: SendRequest) -> Result<Sent, Error> {
    let given = request.client_msg_no.as_deref().filter(|no| !no.is_empty());
    if let Some(no) = given {
        check_key("client_msg_no", no)?;
    }
    request.content.check(core.limits.payload_bytes)?;
    let now_ms = core.clock.now_ms();
    let key = ChannelKey::new(&request.from, &request.channel);
    if request.as_member && request.channel.channel_type != ChannelType::PERSON {
        let conversation = core
            .store
            .find_uncounted(&[(&request.from, &key)])
            .await?
            .pop();
        if conversation.is_none_or(|(_, row)| !row.is_member()) {
            return Err(Error::NotFound("channel"));
        }
    }
    let draft = Message {
        channel: request.channel,
        message_id: core.ids.message_id(now_ms),
        seq: 0,
        client_msg_no: given.map_or_else(|| core.ids.client_msg_no(), str::to_owned),
        from_uid: request.from.as_str().to_owned(),
        sent_at: now_ms,
        red_dot: request.red_dot,
        content: request.content,
    };
    if request.transient {
        return Ok(Sent {
            message: draft,
            repeated: false,
        });
    }
    let draft = Draft {
        key,
        may_repeat: given.is_some(),
        message: draft,
    };
    let shared = Arc::clone(core);
    let lane = lane(&draft.key, core.store.writers());
    core.sends
        .run(lane, draft, move |drafts, locks| {
            store(Arc::clone(&shared), drafts, locks)
        })
        .await
}

/// A message that waits to be stored.
#[derive(Debug)]
pub(crate) struct Draft {
    key: ChannelKey,
    /// Whether its sender gave it a `client_msg_no`.
    may_repeat: bool,
    message: Message,
}

impl Draft {
    fn number(&self, ids: &HashMap<ChannelKey, i64>) -> (i64, &str, &str) {
        (
            ids[&self.key],
            &self.message.from_uid,
            &self.message.client_msg_no,
        )
    }
}

/// Stores messages of several senders in one transaction, in the order in which they came.
async fn store(core: Arc<Core>, drafts: Vec<Arc<Draft>>, locks: Locks) -> Answers<Sent> {
    let keys: HashSet<&ChannelKey> = drafts.iter().map(|draft| &draft.key).collect();
    let ids = core
        .store
        .ensure_channels(&keys.into_iter().collect::<Vec<_>>())
        .await?;
    let held = join_senders(&core, &drafts, &ids, locks).await?;
    let (core, drafts, ids, held) = (&*core, &drafts, &ids, &held);
    let (sent, moved) = core
        .store
        .transaction(|tx| async move {
            let mut batch = Batch::begin(core, &tx, drafts, ids, locks).await?;
            let mut sent = Vec::with_capacity(drafts.len());
            for draft in drafts {
                let from = draft.message.from_uid.as_str();
                sent.push(
                    if locks == Locks::Skip && !batch.channels.contains_key(&ids[&draft.key]) {
                        Done::Held(row(&draft.key))
                    } else if held.iter().any(|uid| uid.as_str() == from) {
                        Done::Held(row(&from))
                    } else {
                        Done::Answer(Ok(batch.add(core, draft)?))
                    },
                );
            }
            batch.write(&tx).await?;
            tx.commit((sent, batch.channels)).await
        })
        .await?;
    let moved: Vec<&Moving> = moved
        .values()
        .filter(|channel| !channel.messages.is_empty())
        .collect();
    for channel in &moved {
        core.newest.append(
            channel.head.id,
            channel.before,
            channel.head.state(),
            &channel.messages,
        );
    }
    core.bus.channels_moved(
        moved
            .iter()
            .map(|channel| (channel.head.id, &channel.head.key)),
    );
    let count = |repeated| {
        sent.iter()
            .filter(|sent| matches!(sent, Done::Answer(Ok(sent)) if sent.repeated == repeated))
            .count()
    };
    metrics::counter!("recents_messages_total", "result" => "repeated")
        .increment(count(true) as u64);
    metrics::counter!("recents_messages_total", "result" => "stored")
        .increment(count(false) as u64);
    Ok(sent)
}

/// The sender of a group's message is a member. The conversation must be there before the message
/// commits: after a crash in between the message is not there, and the next attempt finds the
/// conversation.
///
/// Returns the senders who are to become members and whose locks somebody else holds.
async fn join_senders(
    core: &Core,
    drafts: &[Arc<Draft>],
    ids: &HashMap<ChannelKey, i64>,
    locks: Locks,
) -> Result<HashSet<Uid>, Error> {
    let mut open: Vec<&Draft> = drafts
        .iter()
        .map(Arc::as_ref)
        .filter(|draft| implies_membership(core, ids, &draft.key, &draft.message.from_uid))
        .collect();
    if open.is_empty() {
        return Ok(HashSet::new());
    }
    // A repeated send stores nothing, so it implies nothing.
    let stored = core
        .store
        .find_by_client_msg_nos(&numbers(open.iter().copied(), ids))
        .await?;
    let stored: HashSet<(i64, &str, &str)> = stored
        .iter()
        .map(|message| {
            (
                message.channel_id,
                &*message.from_uid,
                &*message.client_msg_no,
            )
        })
        .collect();
    open.retain(|draft| !stored.contains(&draft.number(ids)));
    let channel_ids: Vec<i64> = open.iter().map(|draft| ids[&draft.key]).collect();
    let heads = core.store.list_heads(&channel_ids).await?;
    let next: HashMap<i64, Seq> = heads
        .into_iter()
        .map(|head| (head.id, head.last_seq + 1))
        .collect();
    let hints = open.into_iter().filter_map(|draft| {
        let channel_id = ids[&draft.key];
        let reason = Reason::Message {
            seq: *next.get(&channel_id)?,
            sent_at: draft.message.sent_at,
        };
        Some(MemberHint {
            channel_id,
            uid: Uid::parse("from_uid", draft.message.from_uid.as_str()).ok()?,
            reason,
        })
    });
    join_members(core, &hints.collect::<Vec<_>>(), locks).await
}

/// What names messages that may be repeats: channel, sender and the sender's number.
fn numbers<'a>(
    drafts: impl Iterator<Item = &'a Draft>,
    ids: &HashMap<ChannelKey, i64>,
) -> Vec<(i64, &'a str, &'a str)> {
    drafts
        .filter(|draft| draft.may_repeat)
        .map(|draft| draft.number(ids))
        .collect()
}

/// Whether a message makes its sender a member who may not be one yet: not in a person channel,
/// which has its two members by itself, and not in a channel that never shows.
pub(super) fn implies_membership(
    core: &Core,
    ids: &HashMap<ChannelKey, i64>,
    key: &ChannelKey,
    from: &str,
) -> bool {
    let Ok(uid) = Uid::parse("from_uid", from) else {
        return false;
    };
    key.channel_type != ChannelType::PERSON
        && key.channel_type.is_listed()
        && !uid.is_system()
        && !core.members.contains(ids[key], &uid)
}

/// A locked channel that messages are appended to.
struct Moving {
    /// As it was found.
    before: HeadState,
    head: Head,
    /// What is new, oldest first.
    messages: Vec<Arc<Message>>,
}

/// Messages on their way into the database: their channels are locked, what is stored already is
/// known.
struct Batch<'a> {
    ids: &'a HashMap<ChannelKey, i64>,
    /// By internal id.
    channels: BTreeMap<i64, Moving>,
    /// By channel, sender and the sender's number.
    stored: HashMap<(i64, String, String), Message>,
    /// The newest own message of each sender.
    own: BTreeMap<(i64, String), SenderMark>,
}

impl<'a> Batch<'a> {
    async fn begin(
        core: &Core,
        tx: &Tx,
        drafts: &[Arc<Draft>],
        ids: &'a HashMap<ChannelKey, i64>,
        locks: Locks,
    ) -> Result<Self, StoreError> {
        let heads = tx
            .lock_channels(&ids.values().copied().collect::<Vec<_>>(), locks)
            .await?;
        if locks == Locks::Wait && heads.len() < ids.len() {
            return Err(core.store.forget_channels(ids.keys()));
        }
        let moving = |head: Head| {
            (
                head.id,
                Moving {
                    before: head.state(),
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
        let numbers = numbers(drafts.iter().map(Arc::as_ref), ids);
        for stored in tx.find_by_client_msg_nos(&numbers).await? {
            if let Some(channel) = batch.channels.get(&stored.channel_id) {
                let message = Message::new(stored, &channel.head.key);
                batch.remember(channel.head.id, message);
            }
        }
        Ok(batch)
    }

    /// The first one stays.
    fn remember(&mut self, channel_id: i64, message: Message) {
        self.stored
            .entry((
                channel_id,
                message.from_uid.clone(),
                message.client_msg_no.clone(),
            ))
            .or_insert(message);
    }

    /// Puts a message at the end of its channel; its sender has read everything before it.
    fn add(&mut self, core: &Core, draft: &Draft) -> Result<Sent, StoreError> {
        let channel_id = self.ids[&draft.key];
        let Draft { message, .. } = draft;
        if draft.may_repeat
            && let Some(stored) = self.stored.get(&(
                channel_id,
                message.from_uid.clone(),
                message.client_msg_no.clone(),
            ))
        {
            return Ok(Sent {
                message: stored.clone(),
                repeated: true,
            });
        }
        let Some(Moving { head, messages, .. }) = self.channels.get_mut(&channel_id) else {
            return Err(StoreError::Broken(
                "a channel that was found cannot be locked".to_owned(),
            ));
        };
        head.last_seq += 1;
        head.revision += 1;
        head.red_dots += i64::from(message.red_dot);
        // The clock of another server may be ahead: a conversation never goes down by a new
        // message.
        head.last_message_at = head.last_message_at.max(message.sent_at);
        // Another id in another attempt: a server that drew the same bits may have given this one.
        let message = Message {
            seq: head.last_seq,
            message_id: core.ids.message_id(message.sent_at),
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
        if draft.may_repeat {
            self.remember(channel_id, message.clone());
        }
        Ok(Sent {
            message,
            repeated: false,
        })
    }

    async fn write(&self, tx: &Tx) -> Result<(), StoreError> {
        let moved: Vec<&Moving> = self
            .channels
            .values()
            .filter(|channel| !channel.messages.is_empty())
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        let messages = moved.iter().flat_map(|channel| {
            channel
                .messages
                .iter()
                .map(|message| Message::clone(message).into_stored(channel.head.id))
        });
        tx.insert_messages(&messages.collect::<Vec<_>>()).await?;
        tx.write_heads(
            &moved
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
