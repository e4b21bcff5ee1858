//! Messages that a `WuKongIM` stored and hands on: its own seqs, at least once, in any order. A
//! body is stored whole or not at all; bodies that come at the same time share a transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::send::implies_membership;
use super::{Message, StoredMessage};
use crate::channel::{ChannelKey, MemberHint, Reason, join_members};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{Seq, Uid};
use crate::store::{Head, Locks, OwnMessage, Position, SenderMark, Store, StoreError, Tx};
use crate::together::{Answers, Done, lane, row};

/// What one body brings.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// In the order in which they count.
    pub messages: Vec<IncomingMessage>,
    /// Who received a message that is stored with or before these.
    pub receivers: Option<Receivers>,
}

/// A message as it comes in, checked.
#[derive(Clone, Debug)]
pub struct IncomingMessage {
    /// Where it belongs.
    pub key: ChannelKey,
    /// The message, with its seq.
    pub message: Message,
}

/// Who is known to receive a group's message, and is therefore in the group.
#[derive(Clone, Debug)]
pub struct Receivers {
    /// Which group.
    pub key: ChannelKey,
    /// The message's seq: they joined below it.
    pub seq: Seq,
    /// The message's global id.
    pub message_id: i64,
    /// When the message was sent, epoch ms.
    pub sent_at: i64,
    /// Who.
    pub uids: Vec<Uid>,
}

/// What became of a body's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Stored now.
    pub stored: u64,
    /// Stored before.
    pub repeated: u64,
    /// Another message has the same seq, or the same id elsewhere: the first was kept.
    pub conflicts: u64,
}

/// Stores messages under the seqs they have and makes the receivers members, all or nothing.
///
/// A message that is stored already (by `message_id`, or by channel and seq) changes nothing.
/// Messages count one after the other in the order given, so that it does not matter how they are
/// cut into bodies.
///
/// # Errors
/// [`Error::Store`], [`Error::Timeout`]: then nothing was stored, or all of it and the answer came
/// too late.
pub async fn ingest(core: &Arc<Core>, incoming: impl Into<Arc<Incoming>>) -> Result<Report, Error> {
    let incoming: Arc<Incoming> = incoming.into();
    if incoming.messages.is_empty() && incoming.receivers.is_none() {
        return Ok(Report::default());
    }
    let shared = Arc::clone(core);
    // Any lane will do, evenly.
    let lane = lane(
        &incoming
            .messages
            .first()
            .map(|first| first.message.message_id),
        core.store.writers(),
    );
    core.bodies
        .run(lane, incoming, move |bodies, locks| {
            store(Arc::clone(&shared), bodies, locks)
        })
        .await
}

/// Stores what several bodies bring in one transaction, one body after the other.
async fn store(core: Arc<Core>, bodies: Vec<Arc<Incoming>>, locks: Locks) -> Answers<Report> {
    let keys: HashSet<&ChannelKey> = bodies.iter().flat_map(|body| body.keys()).collect();
    let ids = core
        .store
        .ensure_channels(&keys.into_iter().collect::<Vec<_>>())
        .await?;
    // Before the messages commit: after a crash in between the feeder repeats them, and finds the
    // members.
    let held = join_implied(&core, &bodies, &ids, locks).await?;
    let (store, ids, bodies, held) = (&core.store, &ids, &bodies, &held);
    let (reports, touched) = core
        .store
        .transaction(|tx| async move {
            let mut batch = Batch::begin(store, &tx, ids, bodies, locks).await?;
            let mut reports = Vec::with_capacity(bodies.len());
            for body in bodies {
                let channel = body
                    .keys()
                    .find(|key| !batch.heads.contains_key(&ids[*key]));
                reports.push(if let Some(channel) = channel {
                    Done::Held(row(channel))
                } else if let Some(uid) = body.implied().find(|uid| held.contains(*uid)) {
                    Done::Held(row(&uid))
                } else {
                    Done::Answer(Ok(batch.store(&tx, ids, body).await?))
                });
            }
            batch.flush(&tx).await?;
            let heads: Vec<&Head> = batch
                .heads
                .values()
                .filter(|head| batch.touched.contains(&head.id))
                .collect();
            tx.write_heads(&heads).await?;
            tx.commit((reports, batch.touched)).await
        })
        .await?;
    core.bus.channels_moved(
        ids.iter()
            .filter(|(_, id)| touched.contains(id))
            .map(|(key, id)| (*id, key)),
    );
    let done = || {
        reports.iter().filter_map(|report| {
            if let Done::Answer(Ok(report)) = report {
                Some(report)
            } else {
                None
            }
        })
    };
    let sum = |count: fn(&Report) -> u64| done().map(count).sum::<u64>();
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
        metrics::counter!("recents_messages_total", "result" => result).increment(count);
    }
    Ok(reports)
}

/// The sender of a group's message is a member, and so are its receivers. A message that is
/// refused, because another one has its seq or its id, implies nothing.
///
/// Returns those who are to become members and whose locks somebody else holds.
async fn join_implied(
    core: &Core,
    bodies: &[Arc<Incoming>],
    ids: &HashMap<ChannelKey, i64>,
    locks: Locks,
) -> Result<HashSet<String>, Error> {
    let messages = || bodies.iter().flat_map(|body| &body.messages);
    let senders: Vec<&IncomingMessage> = messages()
        .filter(|incoming| implies_membership(core, ids, &incoming.key, &incoming.message.from_uid))
        .collect();
    let received: Vec<&Receivers> = bodies
        .iter()
        .filter_map(|body| body.receivers.as_ref())
        .collect();
    if senders.is_empty() && received.is_empty() {
        return Ok(HashSet::new());
    }
    // What is stored already, and then what these bodies will store, in their order.
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
    let (positions, named): (Vec<Position>, Vec<(i64, i64)>) = named
        .map(|(channel_id, seq, message_id)| {
            (Position { channel_id, seq }, (channel_id, message_id))
        })
        .unzip();
    let mut by_id = core.store.find_message_ids(&named).await?;
    let mut by_position = core.store.find_positions(&positions).await?;
    for IncomingMessage { key, message } in messages() {
        let position = Position {
            channel_id: ids[key],
            seq: message.seq,
        };
        let id = (position.channel_id, message.message_id);
        if !by_id.contains_key(&id) && !by_position.contains_key(&position) {
            by_id.insert(id, message.seq);
            by_position.insert(position, message.message_id);
        }
    }
    let is_stored = |channel_id: i64, seq: Seq, message_id: i64| {
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
    for receivers in received {
        let channel_id = ids[&receivers.key];
        if is_stored(channel_id, receivers.seq, receivers.message_id) {
            let reason = reason(receivers.seq, receivers.sent_at);
            let unknown = receivers
                .uids
                .iter()
                .filter(|uid| !core.members.contains(channel_id, uid));
            hints.extend(unknown.map(|uid| MemberHint {
                channel_id,
                uid: uid.clone(),
                reason,
            }));
        }
    }
    let held = join_members(core, &hints, locks).await?;
    Ok(held.iter().map(|uid| uid.as_str().to_owned()).collect())
}

fn reason(seq: Seq, sent_at: i64) -> Reason {
    Reason::Message { seq, sent_at }
}

impl Incoming {
    fn keys(&self) -> impl Iterator<Item = &ChannelKey> {
        self.messages
            .iter()
            .map(|incoming| &incoming.key)
            .chain(self.receivers.iter().map(|receivers| &receivers.key))
    }

    /// Those whom it may make members.
    fn implied(&self) -> impl Iterator<Item = &str> {
        let received = self
            .receivers
            .iter()
            .flat_map(|receivers| receivers.uids.iter().map(Uid::as_str));
        self.messages
            .iter()
            .map(|incoming| incoming.message.from_uid.as_str())
            .chain(received)
    }
}

/// Bodies on their way into the database: the channels are locked, what is stored already is known.
struct Batch {
    /// By internal id, in the order in which they were locked.
    heads: BTreeMap<i64, Head>,
    /// Seqs by channel and global id.
    by_id: HashMap<(i64, i64), Seq>,
    by_position: HashMap<Position, i64>,
    /// Channels whose head changed.
    touched: HashSet<i64>,
    /// Not yet written; flushed before anything that must see them.
    messages: Vec<StoredMessage>,
    /// The newest own message of each sender; not yet written.
    own: HashMap<(i64, String), SenderMark>,
    /// Of the body that is being taken in.
    report: Report,
}

impl Batch {
    async fn begin(
        store: &Store,
        tx: &Tx,
        ids: &HashMap<ChannelKey, i64>,
        bodies: &[Arc<Incoming>],
        locks: Locks,
    ) -> Result<Self, StoreError> {
        let channel_ids: Vec<i64> = ids.values().copied().collect();
        let heads = tx.lock_channels(&channel_ids, locks).await?;
        if locks == Locks::Wait && heads.len() < channel_ids.len() {
            return Err(store.forget_channels(ids.keys()));
        }
        let heads: BTreeMap<i64, Head> = heads.into_iter().map(|head| (head.id, head)).collect();
        let messages = || bodies.iter().flat_map(|body| &body.messages);
        let named: Vec<(i64, i64)> = messages()
            .map(|incoming| (ids[&incoming.key], incoming.message.message_id))
            .collect();
        let by_id = tx.find_message_ids(&named).await?;
        // Above the head there is nothing yet.
        let below: Vec<Position> = messages()
            .map(|incoming| Position {
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
            report: Report::default(),
        })
    }

    /// Takes in one body. Not all of it is written yet.
    async fn store(
        &mut self,
        tx: &Tx,
        ids: &HashMap<ChannelKey, i64>,
        body: &Incoming,
    ) -> Result<Report, StoreError> {
        // Channel by channel, in the order of the locks; inside of a channel in the order given.
        let mut by_channel: BTreeMap<i64, Vec<&IncomingMessage>> = BTreeMap::new();
        for incoming in &body.messages {
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
        channel_id: i64,
        message: &Message,
    ) -> Result<(), StoreError> {
        let position = Position {
            channel_id,
            seq: message.seq,
        };
        if let Some(stored) = self.by_id.get(&(channel_id, message.message_id)) {
            if *stored == message.seq {
                self.report.repeated += 1;
            } else {
                self.conflict(
                    message,
                    "a message with this id is stored under another seq; it stays there",
                );
            }
            return Ok(());
        }
        if self.by_position.contains_key(&position) {
            self.conflict(message, "another message has this seq; it stays");
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
        head.revision += 1;
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

    /// A message below the head: those whose position is above it must know that it came after
    /// their mark; for its sender it reads the messages before it, if it is the newest own one.
    async fn store_late(
        &mut self,
        tx: &Tx,
        channel_id: i64,
        message: &Message,
        revision: i64,
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
        tracing::warn!(message_id = message.message_id, seq = message.seq, channel = ?message.channel, "{what}");
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
