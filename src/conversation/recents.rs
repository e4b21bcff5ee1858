//! The newest messages of conversations: from memory where they are there, the rest in a number of
//! statements that does not depend on how many conversations there are.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Seq;
use crate::message::{
    AnswerBytes, HeadState, MESSAGE_BYTES, Message, Newest, Recents, Weigh, fitting,
};
use crate::store::{ConversationRow, Measured, Position, Window};

/// Which messages: the newest `count` above `above` of a channel in some state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecentsKey {
    /// The channel's internal id.
    pub channel_id: i64,
    /// Who the channel is.
    pub key: ChannelKey,
    /// The deletion watermark.
    pub above: Seq,
    /// The channel as it was read: what came since belongs to a later answer.
    pub head: HeadState,
    /// At most this many.
    pub count: u32,
}

impl RecentsKey {
    pub(super) fn new(row: &ConversationRow, count: u32) -> Self {
        Self {
            channel_id: row.channel_id,
            key: row.key.clone(),
            above: row.deleted_to_seq,
            head: head_state(row),
            count,
        }
    }

    fn window(&self) -> Window {
        let newest = self.head.last_seq - i64::from(self.count) + 1;
        Window {
            channel_id: self.channel_id,
            from: newest.max(self.above + 1),
            to: self.head.last_seq,
        }
    }

    /// The same, but at most so many.
    fn cut(&self, count: usize) -> Self {
        Self {
            count: self.count.min(u32::try_from(count).unwrap_or(u32::MAX)),
            ..self.clone()
        }
    }

    /// How many messages it may be, going by the numbers.
    fn length(&self) -> usize {
        let window = self.window();
        usize::try_from(window.to - window.from + 1).unwrap_or_default()
    }
}

pub(super) fn head_state(row: &ConversationRow) -> HeadState {
    HeadState {
        revision: row.revision,
        last_seq: row.last_seq,
        last_message_at: row.last_message_at,
    }
}

/// The messages of each key, in the order of the keys, as far as they fit into the answer: where
/// not all do, older ones are left out first, and of messages that are equally new those of the
/// channels with the oldest activity.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_recents(
    core: &Core,
    keys: &[RecentsKey],
    bytes: &AnswerBytes,
) -> Result<Vec<Recents>, Error> {
    // So many fit at most, however short they are: the others need not be looked at.
    let lengths: Vec<usize> = keys.iter().map(RecentsKey::length).collect();
    let most = bytes.left() / MESSAGE_BYTES;
    if lengths.iter().sum::<usize>() > most {
        let fit = fitting(
            &lengths,
            &mut most.clone(),
            |list| rank(&keys[list]),
            |_, _| 1,
        );
        let cut: Vec<RecentsKey> = keys
            .iter()
            .zip(fit)
            .map(|(key, count)| key.cut(count))
            .collect();
        return list_few_recents(core, &cut, bytes).await;
    }
    list_few_recents(core, keys, bytes).await
}

/// Messages of the conversation with the last activity go first where not all fit.
fn rank(key: &RecentsKey) -> (i64, i64) {
    (key.head.last_message_at, key.channel_id)
}

async fn list_few_recents(
    core: &Core,
    keys: &[RecentsKey],
    bytes: &AnswerBytes,
) -> Result<Vec<Recents>, Error> {
    let kept = |key: &RecentsKey| {
        core.newest
            .get(key.channel_id, key.head)?
            .recents(key.above, key.count as usize)
    };
    let kept: Vec<Option<Recents>> = keys.iter().map(kept).collect();
    let missing: Vec<&RecentsKey> = keys
        .iter()
        .zip(&kept)
        .filter(|(_, kept)| kept.is_none())
        .map(|(key, _)| key)
        .collect();
    metrics::counter!("recents_cache_total", "result" => "hit")
        .increment((keys.len() - missing.len()) as u64);
    metrics::counter!("recents_cache_total", "result" => "miss").increment(missing.len() as u64);
    let mut read = if missing.is_empty() {
        HashMap::new()
    } else {
        read_channels(core, &missing, bytes).await?
    };

    let ranges: Vec<Range<usize>> = keys
        .iter()
        .zip(&kept)
        .map(|(key, kept)| match kept {
            Some(recents) => 0..recents.len(),
            None => read
                .get(&key.channel_id)
                .map_or(0..0, |channel| channel.range(key)),
        })
        .collect();
    let weight = |list: usize, at: usize| match &kept[list] {
        Some(recents) => recents[at].weight(),
        None => read.get(&keys[list].channel_id).map_or(0, |channel| {
            channel.messages[ranges[list].start + at].weight()
        }),
    };
    let lengths: Vec<usize> = ranges.iter().map(Range::len).collect();
    let fit = bytes.with(|left| fitting(&lengths, left, |list| rank(&keys[list]), weight));
    bytes.hold()?;
    for (((key, kept), range), fit) in keys.iter().zip(&kept).zip(&ranges).zip(&fit) {
        if let Some(channel) = read
            .get_mut(&key.channel_id)
            .filter(|_| kept.is_none() && *fit > 0)
        {
            let begin = if channel.wanted.is_empty() {
                range.start
            } else {
                channel.wanted.start.min(range.start)
            };
            channel.wanted = begin..channel.wanted.end.max(range.start + fit);
        }
    }
    let wanted = read.values_mut().flat_map(|channel| {
        channel
            .messages
            .get_mut(channel.wanted.clone())
            .unwrap_or_default()
    });
    core.store.read_payloads(wanted.collect()).await?;
    let read: HashMap<i64, ReadMessages> = read
        .into_iter()
        .map(|(id, channel)| (id, channel.into_messages()))
        .collect();

    let recents = kept
        .into_iter()
        .zip(keys)
        .zip(ranges.into_iter().zip(fit))
        .map(|((kept, key), (range, fit))| match kept {
            Some(recents) => recents.above(0, fit),
            None => read
                .get(&key.channel_id)
                .map_or_else(Recents::default, |read| {
                    read.recents(core, key, &range, fit)
                }),
        });
    Ok(recents.collect())
}

/// The messages that were read of a channel.
struct ReadChannel {
    key: ChannelKey,
    /// The first seq that was read.
    from: Seq,
    /// Newest first.
    messages: Vec<Measured>,
    /// Those of them that the answer has.
    wanted: Range<usize>,
}

impl ReadChannel {
    /// Which of the messages a key asks for.
    fn range(&self, key: &RecentsKey) -> Range<usize> {
        let begin = self
            .messages
            .partition_point(|read| read.message.seq > key.head.last_seq);
        let end = self
            .messages
            .partition_point(|read| read.message.seq > key.above);
        begin..end.clamp(begin, begin + key.count as usize)
    }

    fn into_messages(self) -> ReadMessages {
        let Self {
            key,
            from,
            messages,
            wanted,
        } = self;
        let skipped = wanted.start.min(messages.len());
        let wanted = messages.into_iter().skip(skipped).take(wanted.len());
        ReadMessages {
            from,
            skipped,
            messages: wanted
                .map(|read| Arc::new(Message::new(read.message, &key)))
                .collect(),
        }
    }
}

/// Those messages of a channel that the answer has.
struct ReadMessages {
    from: Seq,
    /// Newer ones that were read for nobody.
    skipped: usize,
    messages: Vec<Arc<Message>>,
}

impl ReadMessages {
    /// The first `fit` messages of a key's range.
    fn recents(&self, core: &Core, key: &RecentsKey, range: &Range<usize>, fit: usize) -> Recents {
        let messages: Vec<Arc<Message>> = self
            .messages
            .iter()
            .skip(range.start - self.skipped.min(range.start))
            .take(fit)
            .cloned()
            .collect();
        let is_all = fit == range.len();
        // Between the last message and the first of a full count nothing was left out; of fewer
        // there are no more.
        let from = match messages.last() {
            Some(last) if !is_all || fit == key.count as usize => last.seq,
            _ => self.from.max(key.above + 1),
        };
        let newest = Arc::new(Newest::new(key.head, from, key.count as usize, messages));
        if is_all {
            core.newest.keep(key.channel_id, &newest);
        }
        Recents::all(newest)
    }
}

/// From the database; payloads as far as they are short.
async fn read_channels(
    core: &Core,
    keys: &[&RecentsKey],
    bytes: &AnswerBytes,
) -> Result<HashMap<i64, ReadChannel>, Error> {
    let mut windows: BTreeMap<i64, Window> = BTreeMap::new();
    for key in keys {
        widen(&mut windows, key.window());
    }
    windows.retain(|_, window| window.from <= window.to);
    if windows.is_empty() {
        return Ok(HashMap::new());
    }
    let up_to = bytes.short_enough(keys.iter().map(|key| key.length()).sum());
    let mut found = read(core, &windows, up_to).await?;

    // A channel that a webhook feeds can have holes in its seqs; then the newest messages begin
    // further down.
    let holds = |key: &RecentsKey| {
        let all = found
            .get(&key.channel_id)
            .map(Vec::as_slice)
            .unwrap_or_default();
        all.iter()
            .filter(|read| read.message.seq > key.above && read.message.seq <= key.head.last_seq)
            .count()
    };
    let with_holes: Vec<&RecentsKey> = keys
        .iter()
        .copied()
        .filter(|key| holds(key) < key.count as usize && key.window().from > key.above + 1)
        .collect();
    if !with_holes.is_empty() {
        let mut heads: HashMap<i64, Seq> = HashMap::new();
        for key in &with_holes {
            let head = heads.entry(key.channel_id).or_insert(key.head.last_seq);
            *head = key.head.last_seq.min(*head);
        }
        let count = with_holes
            .iter()
            .map(|key| key.count)
            .max()
            .unwrap_or_default();
        let positions: Vec<Position> = heads
            .iter()
            .map(|(channel_id, seq)| Position {
                channel_id: *channel_id,
                seq: *seq,
            })
            .collect();
        let bounds = core
            .store
            .list_newest_bounds(&positions, u64::from(count))
            .await?;
        let mut longer: BTreeMap<i64, Window> = BTreeMap::new();
        for key in with_holes {
            let from = bounds
                .get(&key.channel_id)
                .copied()
                .unwrap_or(1)
                .max(key.above + 1);
            let window = windows
                .get(&key.channel_id)
                .copied()
                .unwrap_or_else(|| key.window());
            widen(&mut longer, window);
            widen(&mut longer, Window { from, ..window });
        }
        found.extend(read(core, &longer, up_to).await?);
        windows.extend(longer);
    }

    let names: HashMap<i64, &ChannelKey> =
        keys.iter().map(|key| (key.channel_id, &key.key)).collect();
    let read = windows.into_iter().filter_map(|(id, window)| {
        let messages = found.remove(&id).unwrap_or_default();
        let key = (*names.get(&id)?).clone();
        Some((
            id,
            ReadChannel {
                key,
                from: window.from,
                messages,
                wanted: 0..0,
            },
        ))
    });
    Ok(read.collect())
}

/// One window for each channel, however many keys ask for it: a row must not come twice.
fn widen(windows: &mut BTreeMap<i64, Window>, with: Window) {
    let window = windows.entry(with.channel_id).or_insert(with);
    window.from = window.from.min(with.from);
    window.to = window.to.max(with.to);
}

async fn read(
    core: &Core,
    windows: &BTreeMap<i64, Window>,
    up_to: usize,
) -> Result<HashMap<i64, Vec<Measured>>, Error> {
    Ok(core
        .store
        .list_windows(&windows.values().copied().collect::<Vec<_>>(), up_to)
        .await?)
}
