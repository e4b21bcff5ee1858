//! In-memory cache of the newest messages of channels.
//!
//! Stored messages hardly change, but late messages are inserted between them. Each change raises
//! the channel's revision. Therefore a cache entry is valid for one state of its channel, and is used only by a reader that has read the same
//! state from the database. No invalidation between servers is needed, and a missing entry only
//! costs a read.

use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use moka::sync::Cache;

use crate::model::{ChannelPk, ChannelSnapshotId, Message, Seq};

/// Memory of a cached message without its texts: its own size, and the rest of its JSON forms.
const CACHED_MESSAGE_BYTES: usize = size_of::<Message>() + 400;

/// Appends the JSON of a message to a buffer.
pub type RenderMessage = fn(&Message, &mut Vec<u8>);

/// All messages of a channel in one state from a certain seq on, newest first.
#[derive(Debug)]
pub struct CachedMessages {
    head: ChannelSnapshotId,
    /// The entry contains all messages from this seq on.
    from: Seq,
    /// The requested number of messages.
    requested: usize,
    messages: Vec<Arc<Message>>,
    render: RenderMessage,
    json: OnceLock<RenderedJson>,
}

/// The messages as JSON, separated by commas.
#[derive(Debug)]
struct RenderedJson {
    text: Vec<u8>,
    /// Offset of each message, and the end of the last one.
    begins: Vec<usize>,
}

impl CachedMessages {
    /// Returns at most `count` messages above `above`; `None` if there may be more matching
    /// messages than the entry contains.
    #[must_use]
    pub fn slice(self: &Arc<Self>, above: Seq, count: usize) -> Option<MessageSlice> {
        let end = self
            .messages
            .partition_point(|message| message.seq > above)
            .min(count);
        let is_all = end == count || self.from <= above.next();
        is_all.then(|| MessageSlice {
            newest: Some(Arc::clone(self)),
            range: 0..end,
        })
    }

    /// Returns the JSON, which is rendered on first use.
    fn json(&self) -> &RenderedJson {
        self.json.get_or_init(|| {
            let (mut text, mut begins) = (
                Vec::with_capacity(self.messages.len() * 512),
                Vec::with_capacity(self.messages.len() + 1),
            );
            for message in &self.messages {
                begins.push(text.len());
                (self.render)(message, &mut text);
                text.push(b',');
            }
            text.shrink_to_fit();
            begins.push(text.len());
            RenderedJson { text, begins }
        })
    }

    fn bytes(&self) -> usize {
        self.messages
            .iter()
            .map(|message| CACHED_MESSAGE_BYTES + message.bytes())
            .sum::<usize>()
            + size_of::<Self>()
    }
}

/// A range of a channel's newest messages, newest first.
#[derive(Clone, Debug, Default)]
pub struct MessageSlice {
    newest: Option<Arc<CachedMessages>>,
    range: Range<usize>,
}

impl MessageSlice {
    /// The range of all messages.
    pub(crate) fn all(newest: Arc<CachedMessages>) -> Self {
        Self {
            range: 0..newest.messages.len(),
            newest: Some(newest),
        }
    }

    /// Returns the messages above `seq`, at most `count`.
    #[must_use]
    pub fn above(mut self, seq: Seq, count: usize) -> Self {
        let end = self.partition_point(|message| message.seq > seq).min(count);
        self.range.end = self.range.start + end;
        self
    }

    /// Appends the messages as JSON, separated by commas.
    pub fn write_json(&self, to: &mut Vec<u8>) {
        if let Some(newest) = self.newest.as_ref().filter(|_| !self.range.is_empty()) {
            let json = newest.json();
            to.extend_from_slice(
                &json.text[json.begins[self.range.start]..json.begins[self.range.end] - 1],
            );
        }
    }

    /// Estimates the size of the messages as JSON.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        self.iter()
            .map(|message| CACHED_MESSAGE_BYTES + message.bytes())
            .sum()
    }
}

impl Deref for MessageSlice {
    type Target = [Arc<Message>];

    fn deref(&self) -> &Self::Target {
        self.newest
            .as_ref()
            .map(|newest| &newest.messages[self.range.clone()])
            .unwrap_or_default()
    }
}

impl PartialEq for MessageSlice {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// Caches the newest messages of channels up to a number of bytes; evicts the least used entries.
#[derive(Debug)]
pub struct RecentMessageCache {
    /// `None` if the cache is disabled.
    entries: Option<Cache<ChannelPk, Arc<CachedMessages>>>,
    render: RenderMessage,
}

impl RecentMessageCache {
    /// Creates a cache of at most `bytes`, where 0 disables it. `render` makes the JSON of all
    /// messages, which is cached with them.
    #[must_use]
    pub fn new(bytes: u64, render: RenderMessage) -> Self {
        let weight = |_: &ChannelPk, newest: &Arc<CachedMessages>| {
            u32::try_from(newest.bytes()).unwrap_or(u32::MAX)
        };
        Self {
            entries: (bytes > 0)
                .then(|| Cache::builder().max_capacity(bytes).weigher(weight).build()),
            render,
        }
    }

    /// Creates an entry without inserting it. `messages` are all messages of the channel from
    /// `from` on, newest first; `requested` is the requested number.
    #[must_use]
    pub fn new_entry(
        &self,
        head: ChannelSnapshotId,
        from: Seq,
        requested: usize,
        messages: Vec<Arc<Message>>,
    ) -> Arc<CachedMessages> {
        Arc::new(CachedMessages {
            head,
            from,
            requested,
            messages,
            render: self.render,
            json: OnceLock::new(),
        })
    }

    /// Returns the approximate number of bytes in use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let Some(cache) = &self.entries else { return 0 };
        // Otherwise the size does not contain the latest insert.
        cache.run_pending_tasks();
        cache.weighted_size()
    }

    /// Returns the entry of a channel in this state.
    #[must_use]
    pub fn get(
        &self,
        channel_id: ChannelPk,
        head: ChannelSnapshotId,
    ) -> Option<Arc<CachedMessages>> {
        self.entries
            .as_ref()?
            .get(&channel_id)
            .filter(|newest| newest.head == head)
    }

    /// Inserts messages that were read after the channel's state.
    pub fn insert(&self, channel_id: ChannelPk, newest: &Arc<CachedMessages>) {
        if let Some(cache) = &self.entries {
            cache.insert(channel_id, Arc::clone(newest));
        }
    }

    /// Moves the entry of a channel to its next state by appending committed messages, oldest
    /// first.
    pub fn append(
        &self,
        channel_id: ChannelPk,
        before: ChannelSnapshotId,
        after: ChannelSnapshotId,
        new: &[Arc<Message>],
    ) {
        let Some((cache, newest)) = self.entries.as_ref().zip(self.get(channel_id, before)) else {
            return;
        };
        let mut messages: Vec<Arc<Message>> =
            new.iter().rev().chain(&newest.messages).cloned().collect();
        let mut from = newest.from;
        if messages.len() > newest.requested {
            messages.truncate(newest.requested.max(1));
            from = messages.last().map_or(from, |last| last.seq);
        }
        cache.insert(
            channel_id,
            self.new_entry(after, from, newest.requested, messages),
        );
    }
}

#[cfg(test)]
mod tests;
