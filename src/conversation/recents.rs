//! The newest messages of conversations: from memory where they are there, the rest in a number of statements that does not depend
//! on how many conversations there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Seq;
use crate::message::{HeadState, Message, Newest, Recents, StoredMessage};
use crate::store::{ConversationRow, Position, Window};

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
        Self { channel_id: row.channel_id, key: row.key.clone(), above: row.deleted_to_seq, head: head_state(row), count }
    }

    fn window(&self) -> Window {
        let newest = self.head.last_seq - i64::from(self.count) + 1;
        Window { channel_id: self.channel_id, from: newest.max(self.above + 1), to: self.head.last_seq }
    }

    /// Its messages of all those of the channel from `from` on, newest first.
    fn of(&self, from: Seq, messages: &[StoredMessage]) -> Arc<Newest> {
        let up_to = messages.partition_point(|message| message.seq > self.head.last_seq);
        let messages = messages[up_to..].iter().map(|message| Arc::new(Message::new(message.clone(), &self.key))).collect();
        Arc::new(Newest::new(self.head, from, self.count as usize, messages))
    }
}

pub(super) fn head_state(row: &ConversationRow) -> HeadState {
    HeadState { revision: row.revision, last_seq: row.last_seq, last_message_at: row.last_message_at }
}

/// The messages of each key, in the order of the keys.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_recents(core: &Core, keys: &[RecentsKey]) -> Result<Vec<Recents>, Error> {
    let kept = |key: &RecentsKey| core.newest.get(key.channel_id, key.head)?.recents(key.above, key.count as usize);
    let mut found: Vec<Option<Recents>> = keys.iter().map(kept).collect();
    let missing: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
    metrics::counter!("recents_cache_total", "result" => "hit").increment((keys.len() - missing.len()) as u64);
    metrics::counter!("recents_cache_total", "result" => "miss").increment(missing.len() as u64);
    if !missing.is_empty() {
        let read = read_recents(core, &missing.iter().map(|at| &keys[*at]).collect::<Vec<_>>()).await?;
        for (at, recents) in missing.into_iter().zip(read) {
            found[at] = Some(recents);
        }
    }
    Ok(found.into_iter().map(Option::unwrap_or_default).collect())
}

/// From the database.
async fn read_recents(core: &Core, keys: &[&RecentsKey]) -> Result<Vec<Recents>, Error> {
    let mut windows: BTreeMap<i64, Window> = BTreeMap::new();
    for key in keys {
        widen(&mut windows, key.window());
    }
    windows.retain(|_, window| window.from <= window.to);
    if windows.is_empty() {
        return Ok(vec![Recents::default(); keys.len()]);
    }
    let mut found = read(core, &windows).await?;

    // A channel that a webhook feeds can have holes in its seqs; then the newest messages begin further down.
    let holds = |key: &RecentsKey| {
        let all = found.get(&key.channel_id).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|message| message.seq > key.above && message.seq <= key.head.last_seq).count()
    };
    let with_holes: Vec<&RecentsKey> =
        keys.iter().copied().filter(|key| holds(key) < key.count as usize && key.window().from > key.above + 1).collect();
    if !with_holes.is_empty() {
        let mut heads: HashMap<i64, Seq> = HashMap::new();
        for key in &with_holes {
            let head = heads.entry(key.channel_id).or_insert(key.head.last_seq);
            *head = key.head.last_seq.min(*head);
        }
        let count = with_holes.iter().map(|key| key.count).max().unwrap_or_default();
        let positions: Vec<Position> =
            heads.iter().map(|(channel_id, seq)| Position { channel_id: *channel_id, seq: *seq }).collect();
        let bounds = core.store.list_newest_bounds(&positions, u64::from(count)).await?;
        let mut longer: BTreeMap<i64, Window> = BTreeMap::new();
        for key in with_holes {
            let from = bounds.get(&key.channel_id).copied().unwrap_or(1).max(key.above + 1);
            let window = windows.get(&key.channel_id).copied().unwrap_or_else(|| key.window());
            widen(&mut longer, window);
            widen(&mut longer, Window { from, ..window });
        }
        found.extend(read(core, &longer).await?);
        windows.extend(longer);
    }

    let recents = keys.iter().map(|key| {
        let Some(window) = windows.get(&key.channel_id) else { return Recents::default() };
        let newest = key.of(window.from, found.get(&key.channel_id).map(Vec::as_slice).unwrap_or_default());
        core.newest.keep(key.channel_id, &newest);
        newest.recents(key.above, key.count as usize).unwrap_or_default()
    });
    Ok(recents.collect())
}

/// One window for each channel, however many keys ask for it: a row must not come twice.
fn widen(windows: &mut BTreeMap<i64, Window>, with: Window) {
    let window = windows.entry(with.channel_id).or_insert(with);
    window.from = window.from.min(with.from);
    window.to = window.to.max(with.to);
}

async fn read(core: &Core, windows: &BTreeMap<i64, Window>) -> Result<HashMap<i64, Vec<StoredMessage>>, Error> {
    Ok(core.store.list_windows(&windows.values().copied().collect::<Vec<_>>()).await?)
}
