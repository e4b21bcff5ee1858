//! The newest messages of conversations. They come from the cache if possible, otherwise from a
//! number of statements that does not depend on the number of conversations.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::{Conversation, ConversationService};
use crate::error::Error;
use crate::message::{
    AnswerSizeLimit, MESSAGE_BYTES, MessageSlice, SizedInAnswer, fit_newest_first,
};
use crate::model::{
    ChannelKey, ChannelPk, ChannelSnapshotId, ConversationRow, EpochMs, Message, Seq,
};
use crate::store::{MessagePosition, PartialMessage, SeqRange};

/// Selects the newest `count` messages above `above` of a channel in a given state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecentMessagesKey {
    /// Internal id of the channel.
    pub channel_pk: ChannelPk,
    /// Identity of the channel.
    pub channel_key: ChannelKey,
    /// The deletion watermark.
    pub above: Seq,
    /// State of the channel when it was read: newer messages belong to a later answer.
    pub head: ChannelSnapshotId,
    /// Maximum number of messages.
    pub count: u32,
}

impl RecentMessagesKey {
    pub(super) fn new(row: &ConversationRow, count: u32) -> Self {
        Self {
            channel_pk: row.channel_id,
            channel_key: row.key.clone(),
            above: row.deleted_to_seq,
            head: row.snapshot_id(),
            count,
        }
    }

    /// Selects the newest messages of a conversation.
    #[must_use]
    pub fn of(conversation: &Conversation, count: u32) -> Self {
        Self {
            channel_pk: conversation.channel_pk,
            channel_key: conversation.channel_key.clone(),
            above: conversation.deleted_to_seq,
            head: conversation.head,
            count,
        }
    }

    fn window(&self) -> SeqRange {
        let newest = self.head.last_seq.minus(i64::from(self.count)).next();
        SeqRange {
            channel_id: self.channel_pk,
            from: newest.max(self.above.next()),
            to: self.head.last_seq,
        }
    }

    /// Returns the same key with at most `count` messages.
    fn with_max_count(&self, count: usize) -> Self {
        Self {
            count: self.count.min(u32::try_from(count).unwrap_or(u32::MAX)),
            ..self.clone()
        }
    }

    /// The maximum number of messages by the range of seqs.
    fn length(&self) -> usize {
        let window = self.window();
        usize::try_from(window.to.next().distance_from(window.from)).unwrap_or_default()
    }
}

/// Returns the messages of each key, in the order of the keys, as far as they fit into the answer.
/// If not all fit, older messages are left out first; among equally new ones, those of the channels
/// with the oldest activity.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_recent_messages(
    service: &ConversationService,
    keys: &[RecentMessagesKey],
    bytes: &AnswerSizeLimit,
) -> Result<Vec<MessageSlice>, Error> {
    // No more messages than this can fit, even if they are empty: the others need not be read.
    let lengths: Vec<usize> = keys.iter().map(RecentMessagesKey::length).collect();
    let most = bytes.remaining() / MESSAGE_BYTES;
    if lengths.iter().sum::<usize>() > most {
        let fit = fit_newest_first(
            &lengths,
            &mut most.clone(),
            |list| rank(&keys[list]),
            |_, _| 1,
        );
        let shortened: Vec<RecentMessagesKey> = keys
            .iter()
            .zip(fit)
            .map(|(key, count)| key.with_max_count(count))
            .collect();
        return list_fitting_messages(service, &shortened, bytes).await;
    }
    list_fitting_messages(service, keys, bytes).await
}

/// If not all messages fit, those of conversations with the latest activity come first.
fn rank(key: &RecentMessagesKey) -> (EpochMs, ChannelPk) {
    (key.head.last_message_at, key.channel_pk)
}

async fn list_fitting_messages(
    service: &ConversationService,
    keys: &[RecentMessagesKey],
    bytes: &AnswerSizeLimit,
) -> Result<Vec<MessageSlice>, Error> {
    let cached = |key: &RecentMessagesKey| {
        service
            .messages
            .recent_messages
            .get(key.channel_pk, key.head)?
            .slice(key.above, key.count as usize)
    };
    let cached: Vec<Option<MessageSlice>> = keys.iter().map(cached).collect();
    let missing: Vec<&RecentMessagesKey> = keys
        .iter()
        .zip(&cached)
        .filter(|(_, cached)| cached.is_none())
        .map(|(key, _)| key)
        .collect();
    metrics::counter!(crate::metrics::MESSAGE_CACHE_LOOKUPS_TOTAL, "result" => "hit")
        .increment((keys.len() - missing.len()) as u64);
    metrics::counter!(crate::metrics::MESSAGE_CACHE_LOOKUPS_TOTAL, "result" => "miss")
        .increment(missing.len() as u64);
    let mut read = if missing.is_empty() {
        HashMap::new()
    } else {
        read_missing(service, &missing, bytes).await?
    };

    let ranges: Vec<Range<usize>> = keys
        .iter()
        .zip(&cached)
        .map(|(key, cached)| match cached {
            Some(recents) => 0..recents.len(),
            None => read
                .get(&key.channel_pk)
                .map_or(0..0, |channel| channel.range(key)),
        })
        .collect();
    let weight = |list: usize, at: usize| match &cached[list] {
        Some(recents) => recents[at].size_in_answer(),
        None => read.get(&keys[list].channel_pk).map_or(0, |channel| {
            channel.messages[ranges[list].start + at].size_in_answer()
        }),
    };
    let lengths: Vec<usize> = ranges.iter().map(Range::len).collect();
    let fit =
        bytes.take_with(|left| fit_newest_first(&lengths, left, |list| rank(&keys[list]), weight));
    bytes.reserve_memory()?;
    for (((key, cached), range), fit) in keys.iter().zip(&cached).zip(&ranges).zip(&fit) {
        if let Some(channel) = read
            .get_mut(&key.channel_pk)
            .filter(|_| cached.is_none() && *fit > 0)
        {
            let begin = if channel.selected.is_empty() {
                range.start
            } else {
                channel.selected.start.min(range.start)
            };
            channel.selected = begin..channel.selected.end.max(range.start + fit);
        }
    }
    let selected = read.values_mut().flat_map(|channel| {
        channel
            .messages
            .get_mut(channel.selected.clone())
            .unwrap_or_default()
    });
    service.base.store.read_payloads(selected.collect()).await?;
    let read: HashMap<ChannelPk, ReadMessages> = read
        .into_iter()
        .map(|(id, channel)| (id, channel.into_messages()))
        .collect();

    let recents = cached
        .into_iter()
        .zip(keys)
        .zip(ranges.into_iter().zip(fit))
        .map(|((cached, key), (range, fit))| match cached {
            Some(recents) => recents.above(Seq::ZERO, fit),
            None => read
                .get(&key.channel_pk)
                .map_or_else(MessageSlice::default, |read| {
                    read.slice(service, key, &range, fit)
                }),
        });
    Ok(recents.collect())
}

/// Messages that were read from one channel.
struct ReadChannel {
    key: ChannelKey,
    /// The first seq of the range that was read.
    from: Seq,
    /// Newest first.
    messages: Vec<PartialMessage>,
    /// The messages that are part of the answer.
    selected: Range<usize>,
}

impl ReadChannel {
    /// Returns the range of messages that match a key.
    fn range(&self, key: &RecentMessagesKey) -> Range<usize> {
        let begin = self
            .messages
            .partition_point(|read| read.seq() > key.head.last_seq);
        let end = self.messages.partition_point(|read| read.seq() > key.above);
        begin..end.clamp(begin, begin + key.count as usize)
    }

    fn into_messages(self) -> ReadMessages {
        let Self {
            key,
            from,
            messages,
            selected,
        } = self;
        let skipped = selected.start.min(messages.len());
        let selected = messages.into_iter().skip(skipped).take(selected.len());
        ReadMessages {
            from,
            skipped,
            messages: selected
                .map(|read| Arc::new(Message::from_stored(read.message, &key)))
                .collect(),
        }
    }
}

/// The messages of a channel that are part of the answer.
struct ReadMessages {
    from: Seq,
    /// Number of newer messages that were read but are not part of the answer.
    skipped: usize,
    messages: Vec<Arc<Message>>,
}

impl ReadMessages {
    /// Returns the first `fit` messages of a key's range.
    fn slice(
        &self,
        service: &ConversationService,
        key: &RecentMessagesKey,
        range: &Range<usize>,
        fit: usize,
    ) -> MessageSlice {
        let messages: Vec<Arc<Message>> = self
            .messages
            .iter()
            .skip(range.start - self.skipped.min(range.start))
            .take(fit)
            .cloned()
            .collect();
        let is_all = fit == range.len();
        // If the count was reached, the cached range begins at the last message. With fewer
        // messages there are no more down to the start of the range that was read.
        let from = match messages.last() {
            Some(last) if !is_all || fit == key.count as usize => last.seq,
            _ => self.from.max(key.above.next()),
        };
        let newest = service.messages.recent_messages.new_entry(
            key.head,
            from,
            key.count as usize,
            messages,
        );
        if is_all {
            service
                .messages
                .recent_messages
                .insert(key.channel_pk, &newest);
        }
        MessageSlice::all(newest)
    }
}

/// Reads messages that are not cached; long payloads are left out.
async fn read_missing(
    service: &ConversationService,
    keys: &[&RecentMessagesKey],
    bytes: &AnswerSizeLimit,
) -> Result<HashMap<ChannelPk, ReadChannel>, Error> {
    let mut windows: BTreeMap<ChannelPk, SeqRange> = BTreeMap::new();
    for key in keys {
        widen_range(&mut windows, key.window());
    }
    windows.retain(|_, window| window.from <= window.to);
    if windows.is_empty() {
        return Ok(HashMap::new());
    }
    let up_to = bytes.inline_payload_bytes(keys.iter().map(|key| key.length()).sum());
    let mut found = read(service, &windows, up_to).await?;

    // The seqs of a channel that a webhook feeds can have gaps; then the newest messages begin
    // further down.
    let count_found = |key: &RecentMessagesKey| {
        let all = found
            .get(&key.channel_pk)
            .map(Vec::as_slice)
            .unwrap_or_default();
        all.iter()
            .filter(|read| read.seq() > key.above && read.seq() <= key.head.last_seq)
            .count()
    };
    let with_holes: Vec<&RecentMessagesKey> = keys
        .iter()
        .copied()
        .filter(|key| count_found(key) < key.count as usize && key.window().from > key.above.next())
        .collect();
    if !with_holes.is_empty() {
        let mut heads: HashMap<ChannelPk, Seq> = HashMap::new();
        for key in &with_holes {
            let head = heads.entry(key.channel_pk).or_insert(key.head.last_seq);
            *head = key.head.last_seq.min(*head);
        }
        let count = with_holes
            .iter()
            .map(|key| key.count)
            .max()
            .unwrap_or_default();
        let positions: Vec<MessagePosition> = heads
            .iter()
            .map(|(channel_id, seq)| MessagePosition {
                channel_id: *channel_id,
                seq: *seq,
            })
            .collect();
        let bounds = service
            .base
            .store
            .list_newest_bounds(&positions, u64::from(count))
            .await?;
        let mut longer: BTreeMap<ChannelPk, SeqRange> = BTreeMap::new();
        for key in with_holes {
            let from = bounds
                .get(&key.channel_pk)
                .copied()
                .unwrap_or(Seq(1))
                .max(key.above.next());
            let window = windows
                .get(&key.channel_pk)
                .copied()
                .unwrap_or_else(|| key.window());
            widen_range(&mut longer, window);
            widen_range(&mut longer, SeqRange { from, ..window });
        }
        found.extend(read(service, &longer, up_to).await?);
        windows.extend(longer);
    }

    let names: HashMap<ChannelPk, &ChannelKey> = keys
        .iter()
        .map(|key| (key.channel_pk, &key.channel_key))
        .collect();
    let read = windows.into_iter().filter_map(|(id, window)| {
        let messages = found.remove(&id).unwrap_or_default();
        let key = (*names.get(&id)?).clone();
        Some((
            id,
            ReadChannel {
                key,
                from: window.from,
                messages,
                selected: 0..0,
            },
        ))
    });
    Ok(read.collect())
}

/// Merges the ranges of all keys of a channel, so that no row is returned twice.
fn widen_range(windows: &mut BTreeMap<ChannelPk, SeqRange>, with: SeqRange) {
    let window = windows.entry(with.channel_id).or_insert(with);
    window.from = window.from.min(with.from);
    window.to = window.to.max(with.to);
}

async fn read(
    service: &ConversationService,
    windows: &BTreeMap<ChannelPk, SeqRange>,
    up_to: usize,
) -> Result<HashMap<ChannelPk, Vec<PartialMessage>>, Error> {
    Ok(service
        .base
        .store
        .list_windows(&windows.values().copied().collect::<Vec<_>>(), up_to)
        .await?)
}
