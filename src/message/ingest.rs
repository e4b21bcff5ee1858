//! Messages that a `WuKongIM` stored and hands on: its own seqs, at least once, in any order. A body is stored whole or not at all;
//! bodies that come at the same time share a transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::send::born_conversations;
use super::{Message, StoredMessage};
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{Seq, Uid};
use crate::store::{Head, NewConversation, Position, ReadMark, State, StoreError, Tx};
use crate::together::{Answers, lane};

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
/// A message that is stored already (by `message_id`, or by channel and seq) changes nothing. Messages count one after the
/// other in the order given, so that it does not matter how they are cut into bodies.
///
/// # Errors
/// [`Error::Store`], [`Error::Timeout`]: then nothing was stored, or all of it and the answer came too late.
pub async fn ingest(core: &Arc<Core>, incoming: impl Into<Arc<Incoming>>) -> Result<Report, Error> {
    let incoming: Arc<Incoming> = incoming.into();
    if incoming.messages.is_empty() && incoming.receivers.is_none() {
        return Ok(Report::default());
    }
    let shared = Arc::clone(core);
    // Any lane will do, evenly.
    let lane = lane(&incoming.messages.first().map(|first| first.message.message_id), core.store.writers());
    core.bodies.run(lane, incoming, move |bodies| store(Arc::clone(&shared), bodies)).await
}

/// Stores what several bodies bring in one transaction, one body after the other.
async fn store(core: Arc<Core>, bodies: Vec<Arc<Incoming>>) -> Answers<Report> {
    let keys: HashSet<&ChannelKey> = bodies.iter().flat_map(|body| body.keys()).collect();
    let ids = core.store.ensure_channels(&core.ids, &keys.into_iter().collect::<Vec<_>>()).await?;
    let (ids, bodies) = (&ids, &bodies);
    let (reports, touched, joined) = core
        .store
        .transaction(|tx| async move {
            let mut batch = Batch::begin(&tx, ids, bodies).await?;
            let mut reports = Vec::with_capacity(bodies.len());
            for body in bodies {
                reports.push(batch.store(&tx, ids, body).await?);
            }
            batch.flush(&tx).await?;
            let heads: Vec<&Head> = batch.heads.values().filter(|head| batch.touched.contains(&head.id)).collect();
            tx.write_heads(&heads).await?;
            tx.commit((reports, batch.touched, batch.joined)).await
        })
        .await?;
    core.bus.channels_moved(ids.iter().filter(|(_, id)| touched.contains(id)).map(|(key, id)| (*id, key)));
    core.bus.users_changed(&joined);
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    let (stored, repeated, conflicts) = (sum(|one| one.stored), sum(|one| one.repeated), sum(|one| one.conflicts));
    for (result, count) in [("stored", stored), ("repeated", repeated), ("conflict", conflicts)] {
        metrics::counter!("recents_messages_total", "result" => result).increment(count);
    }
    Ok(reports.into_iter().map(Ok).collect())
}

impl Incoming {
    fn keys(&self) -> impl Iterator<Item = &ChannelKey> {
        self.messages.iter().map(|incoming| &incoming.key).chain(self.receivers.iter().map(|receivers| &receivers.key))
    }

    /// Where its messages belong, and the one that was received, which may be stored already.
    fn positions(&self, ids: &HashMap<ChannelKey, i64>) -> impl Iterator<Item = Position> {
        let position = |key: &ChannelKey, seq| Position { channel_id: ids[key], seq };
        let received = self.receivers.iter().map(move |receivers| position(&receivers.key, receivers.seq));
        self.messages.iter().map(move |incoming| position(&incoming.key, incoming.message.seq)).chain(received)
    }
}

/// Bodies on their way into the database: the channels are locked, what is stored already is known.
struct Batch {
    /// By internal id, in the order in which they were locked.
    heads: BTreeMap<i64, Head>,
    by_id: HashMap<i64, Position>,
    by_position: HashMap<Position, i64>,
    /// Channels whose head changed.
    touched: HashSet<i64>,
    /// Not yet written; flushed before anything that must see them.
    messages: Vec<StoredMessage>,
    marks: HashMap<(i64, String), i64>,
    /// Users who are in a channel now and were not before.
    joined: Vec<Uid>,
    /// Of the body that is being taken in.
    report: Report,
}

impl Batch {
    async fn begin(tx: &Tx, ids: &HashMap<ChannelKey, i64>, bodies: &[Arc<Incoming>]) -> Result<Self, StoreError> {
        let channel_ids: Vec<i64> = ids.values().copied().collect();
        let heads: BTreeMap<i64, Head> = tx.lock_channels(&channel_ids).await?.into_iter().map(|head| (head.id, head)).collect();
        if heads.len() < channel_ids.len() {
            return Err(StoreError::Broken("a channel that was found cannot be locked".to_owned()));
        }
        let message_ids = bodies.iter().flat_map(|body| &body.messages).map(|incoming| incoming.message.message_id);
        let by_id = tx.find_message_ids(&message_ids.collect::<Vec<_>>()).await?;
        // Above the head there is nothing yet.
        let below: Vec<Position> = bodies
            .iter()
            .flat_map(|body| body.positions(ids))
            .filter(|position| heads.get(&position.channel_id).is_some_and(|head| position.seq <= head.last_seq))
            .collect();
        let by_position = tx.find_positions(&below).await?;
        let mut batch = Self {
            heads,
            by_id,
            by_position,
            touched: HashSet::new(),
            messages: Vec::new(),
            marks: HashMap::new(),
            joined: Vec::new(),
            report: Report::default(),
        };
        batch.bear(tx).await?;
        Ok(batch)
    }

    /// A person channel's first message makes both sides' conversations.
    async fn bear(&mut self, tx: &Tx) -> Result<(), StoreError> {
        let born: Vec<NewConversation> =
            self.heads.values().filter(|head| head.last_seq == 0).flat_map(born_conversations).collect();
        tx.write_joined(&born).await
    }

    /// Takes in one body. Not all of it is written yet.
    async fn store(&mut self, tx: &Tx, ids: &HashMap<ChannelKey, i64>, body: &Incoming) -> Result<Report, StoreError> {
        // Channel by channel, in the order of the locks; inside of a channel in the order given.
        let mut by_channel: BTreeMap<i64, Vec<&IncomingMessage>> = BTreeMap::new();
        for incoming in &body.messages {
            by_channel.entry(ids[&incoming.key]).or_default().push(incoming);
        }
        for (channel_id, messages) in by_channel {
            for incoming in messages {
                self.store_one(tx, channel_id, &incoming.message).await?;
            }
        }
        if let Some(receivers) = &body.receivers
            && self.holds(ids, receivers)
        {
            self.flush(tx).await?;
            self.join(tx, ids, receivers).await?;
        }
        Ok(std::mem::take(&mut self.report))
    }

    async fn store_one(&mut self, tx: &Tx, channel_id: i64, message: &Message) -> Result<(), StoreError> {
        let position = Position { channel_id, seq: message.seq };
        if let Some(stored) = self.by_id.get(&message.message_id) {
            if *stored == position {
                self.report.repeated += 1;
            } else {
                self.conflict(message, "a message with this id is stored elsewhere; it stays there");
            }
            return Ok(());
        }
        if self.by_position.contains_key(&position) {
            self.conflict(message, "another message has this seq; it stays");
            return Ok(());
        }
        self.by_id.insert(message.message_id, position);
        self.by_position.insert(position, message.message_id);
        self.report.stored += 1;
        self.touched.insert(channel_id);

        let Some(head) = self.heads.get_mut(&channel_id) else { return Ok(()) };
        let is_late = message.seq < head.last_seq;
        if is_late {
            let before = head.red_dots;
            head.revision += 1;
            head.red_dots += i64::from(message.red_dot);
            let after = head.red_dots;
            self.flush(tx).await?;
            tx.insert_messages(&[message.clone().into_stored(channel_id)]).await?;
            return settle_late(tx, channel_id, message, before, after).await;
        }
        head.last_seq = message.seq;
        head.last_message_at = message.sent_at;
        head.revision += 1;
        head.red_dots += i64::from(message.red_dot);
        self.marks.insert((channel_id, message.from_uid.clone()), head.red_dots);
        self.messages.push(message.clone().into_stored(channel_id));
        Ok(())
    }

    fn conflict(&mut self, message: &Message, what: &'static str) {
        self.report.conflicts += 1;
        tracing::warn!(message_id = message.message_id, seq = message.seq, channel = ?message.channel, "{what}");
    }

    async fn flush(&mut self, tx: &Tx) -> Result<(), StoreError> {
        tx.insert_messages(&std::mem::take(&mut self.messages)).await?;
        let marks: Vec<ReadMark> = std::mem::take(&mut self.marks)
            .into_iter()
            .map(|((channel_id, uid), read_mark)| ReadMark { uid, channel_id, read_mark })
            .collect();
        tx.write_read_marks(&marks).await
    }

    /// Whether the message that was received is the one that is stored there.
    fn holds(&self, ids: &HashMap<ChannelKey, i64>, receivers: &Receivers) -> bool {
        let position = Position { channel_id: ids[&receivers.key], seq: receivers.seq };
        self.by_position.get(&position) == Some(&receivers.message_id)
    }

    /// Receivers who are no members yet become members below the message; who left before it comes back.
    async fn join(&mut self, tx: &Tx, ids: &HashMap<ChannelKey, i64>, receivers: &Receivers) -> Result<(), StoreError> {
        let Some(head) = self.heads.get(&ids[&receivers.key]) else { return Ok(()) };
        let states = tx.list_states(head.id, &receivers.uids).await?;
        let states: HashMap<&str, (State, Seq)> =
            states.iter().map(|(uid, state, left_seq)| (uid.as_str(), (*state, *left_seq))).collect();
        let joining: HashSet<&Uid> = receivers
            .uids
            .iter()
            .filter(|uid| match states.get(uid.as_str()) {
                None => true,
                Some((State::Left, left_seq)) => *left_seq < receivers.seq,
                Some(_) => false,
            })
            .collect();
        if joining.is_empty() {
            return Ok(());
        }
        let by_sender = tx.count_red_dots(head.id, receivers.seq).await?;
        let all: i64 = by_sender.values().sum();
        let mut new: Vec<NewConversation> = joining
            .into_iter()
            .map(|uid| NewConversation {
                uid: uid.clone(),
                channel_id: head.id,
                joined_seq: receivers.seq - 1,
                read_mark: head.red_dots - (all - by_sender.get(uid.as_str()).copied().unwrap_or(0)),
            })
            .collect();
        new.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        self.joined.extend(new.iter().map(|conversation| conversation.uid.clone()));
        tx.write_joined(&new).await
    }
}

/// A message below the head counts as unread, but not for whom it lies at or below the watermarks; for its sender it reads
/// what lies before it. Only this rare path counts rows and touches several conversations.
async fn settle_late(tx: &Tx, channel_id: i64, message: &Message, before: i64, after: i64) -> Result<(), StoreError> {
    if message.red_dot {
        tx.excuse_from_late_message(channel_id, &message.from_uid, message.seq).await?;
    }
    let Ok(sender) = Uid::parse("from_uid", message.from_uid.as_str()) else { return Ok(()) };
    if let Some((_, row)) = tx.find_conversations(&[(&sender, channel_id)]).await?.pop() {
        let unread_before = (before - row.read_mark).max(0);
        let of_others: i64 = if unread_before == 0 {
            0
        } else {
            let counts = tx.count_red_dots(channel_id, message.seq + 1).await?;
            counts.iter().filter(|(from, _)| **from != message.from_uid).map(|(_, count)| count).sum()
        };
        tx.write_read_mark(&message.from_uid, channel_id, after - unread_before.min(of_others)).await?;
    }
    Ok(())
}
