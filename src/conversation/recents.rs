//! The newest messages of conversations, in a number of statements that does not depend on how many conversations there are.

use std::collections::{BTreeMap, HashMap};

use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Seq;
use crate::message::{Message, StoredMessage};
use crate::store::{Position, Window};

/// Which messages: the newest `count` above `above` and up to `last_seq`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecentsKey {
    /// The channel's internal id.
    pub channel_id: i64,
    /// Who the channel is.
    pub key: ChannelKey,
    /// The deletion watermark.
    pub above: Seq,
    /// The channel's last seq as it was read: what came since belongs to a later answer.
    pub last_seq: Seq,
    /// At most this many.
    pub count: u32,
}

impl RecentsKey {
    /// Its messages of those of the channel, newest first.
    fn of<'a>(&self, messages: &'a [StoredMessage]) -> impl Iterator<Item = &'a StoredMessage> {
        let (above, last_seq) = (self.above, self.last_seq);
        messages.iter().filter(move |message| message.seq > above && message.seq <= last_seq).take(self.count as usize)
    }

    fn window(&self) -> Window {
        let newest = self.last_seq - i64::from(self.count) + 1;
        Window { channel_id: self.channel_id, from: newest.max(self.above + 1), to: self.last_seq }
    }
}

/// The messages of each key, newest first.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_recents(core: &Core, keys: &[RecentsKey]) -> Result<HashMap<RecentsKey, Vec<Message>>, Error> {
    let mut windows: BTreeMap<i64, Window> = BTreeMap::new();
    for key in keys {
        widen(&mut windows, key.window());
    }
    windows.retain(|_, window| window.from <= window.to);
    if windows.is_empty() {
        return Ok(HashMap::new());
    }
    let mut found = read(core, &windows).await?;

    // A channel that a webhook feeds can have holes in its seqs; then the newest messages begin further down.
    let with_holes: Vec<&RecentsKey> = keys
        .iter()
        .filter(|key| {
            let held = found.get(&key.channel_id).map_or(0, |messages| key.of(messages).count());
            held < key.count as usize && key.window().from > key.above + 1
        })
        .collect();
    if !with_holes.is_empty() {
        let mut heads: HashMap<i64, Seq> = HashMap::new();
        for key in &with_holes {
            let head = heads.entry(key.channel_id).or_insert(key.last_seq);
            *head = key.last_seq.min(*head);
        }
        let count = with_holes.iter().map(|key| key.count).max().unwrap_or_default();
        let positions: Vec<Position> =
            heads.iter().map(|(channel_id, seq)| Position { channel_id: *channel_id, seq: *seq }).collect();
        let bounds = core.store.list_newest_bounds(&positions, u64::from(count)).await?;
        windows.retain(|channel_id, _| heads.contains_key(channel_id));
        for key in with_holes {
            let from = bounds.get(&key.channel_id).copied().unwrap_or(1).max(key.above + 1);
            widen(&mut windows, Window { from, ..key.window() });
        }
        found.extend(read(core, &windows).await?);
    }

    let mut by_key = HashMap::with_capacity(keys.len());
    for key in keys {
        let messages = found.get(&key.channel_id).map(Vec::as_slice).unwrap_or_default();
        let newest = key.of(messages).map(|message| Message::new(message.clone(), &key.key)).collect();
        by_key.insert(key.clone(), newest);
    }
    Ok(by_key)
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
