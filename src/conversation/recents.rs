//! The newest messages of conversations, in a number of statements that does not depend on how many conversations there are.

use std::collections::HashMap;

use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Seq;
use crate::message::Message;
use crate::store::Window;

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
    let windows: Vec<Window> = keys.iter().map(RecentsKey::window).filter(|window| window.from <= window.to).collect();
    if windows.is_empty() {
        return Ok(HashMap::new());
    }
    let mut found = core.store.list_windows(&windows).await?;

    // A channel that a webhook feeds can have holes in its seqs; then the newest messages begin further down.
    let with_holes: Vec<&RecentsKey> = keys
        .iter()
        .filter(|key| {
            let window = key.window();
            let held = found
                .get(&key.channel_id)
                .map_or(0, |messages| messages.iter().filter(|message| (window.from..=window.to).contains(&message.seq)).count());
            held < key.count as usize && window.from > key.above + 1
        })
        .collect();
    if !with_holes.is_empty() {
        let channels: Vec<i64> = with_holes.iter().map(|key| key.channel_id).collect();
        let count = with_holes.iter().map(|key| key.count).max().unwrap_or_default();
        let bounds = core.store.list_newest_bounds(&channels, u64::from(count)).await?;
        let windows: Vec<Window> = with_holes
            .iter()
            .map(|key| Window { from: bounds.get(&key.channel_id).copied().unwrap_or(1).max(key.above + 1), ..key.window() })
            .collect();
        found.extend(core.store.list_windows(&windows).await?);
    }

    let mut by_key = HashMap::with_capacity(keys.len());
    for key in keys {
        let messages = found.get(&key.channel_id).into_iter().flatten();
        let newest = messages
            .filter(|message| message.seq > key.above && message.seq <= key.last_seq)
            .take(key.count as usize)
            .map(|message| Message::new(message.clone(), &key.key))
            .collect();
        by_key.insert(key.clone(), newest);
    }
    Ok(by_key)
}
