//! In-memory cache of the newest messages of channels.
//!
//! Stored messages never change, but late messages are inserted between them. Therefore a cache
//! entry is valid for one state of its channel, and is used only by a reader that has read the same
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
mod tests {
    use super::*;
    use crate::model::{ChannelRef, ChannelType, Content, EpochMs, MessageId, Revision};

    fn message(seq: i64) -> Arc<Message> {
        let channel = ChannelRef {
            channel_type: ChannelType::GROUP,
            channel_id: "team".to_owned(),
        };
        let (client_msg_no, from_uid) = (format!("n{seq}"), "bob".to_owned());
        let content = Content {
            payload: vec![b'x'; 100],
            ..Content::default()
        };
        Arc::new(Message {
            channel,
            message_id: MessageId(100 + seq),
            seq: Seq(seq),
            client_msg_no,
            from_uid,
            sent_at: EpochMs(seq),
            red_dot: true,
            content,
        })
    }

    fn head(revision: i64, last_seq: i64) -> ChannelSnapshotId {
        ChannelSnapshotId {
            revision: Revision(revision),
            last_seq: Seq(last_seq),
            last_message_at: EpochMs(last_seq),
        }
    }

    fn render(message: &Message, to: &mut Vec<u8>) {
        to.extend_from_slice(format!("[{}]", message.seq.0).as_bytes());
    }

    fn cache(bytes: u64) -> RecentMessageCache {
        RecentMessageCache::new(bytes, render)
    }

    fn newest(
        head: ChannelSnapshotId,
        from: i64,
        requested: usize,
        seqs: &[i64],
    ) -> Arc<CachedMessages> {
        let messages = seqs.iter().copied().map(message).collect();
        cache(0).new_entry(head, Seq(from), requested, messages)
    }

    fn seqs(recents: Option<MessageSlice>) -> Option<Vec<i64>> {
        recents.map(|recents| recents.iter().map(|message| message.seq.0).collect())
    }

    #[test]
    fn a_slice_that_may_be_incomplete_is_none() {
        // 6 is a gap.
        let some = newest(head(9, 9), 5, 4, &[9, 8, 7, 5]);
        assert_eq!(seqs(some.slice(Seq(0), 4)), Some(vec![9, 8, 7, 5]));
        assert_eq!(seqs(some.slice(Seq(0), 2)), Some(vec![9, 8]));
        assert_eq!(
            seqs(some.slice(Seq(0), 5)),
            None,
            "there may be more below 5"
        );
        assert_eq!(seqs(some.slice(Seq(3), 5)), None);
        assert_eq!(
            seqs(some.slice(Seq(4), 5)),
            Some(vec![9, 8, 7, 5]),
            "below 5 they are deleted for this user"
        );
        assert_eq!(seqs(some.slice(Seq(8), 20)), Some(vec![9]));
        assert_eq!(seqs(some.slice(Seq(9), 20)), Some(vec![]));
        assert_eq!(
            seqs(
                some.slice(Seq(0), 4)
                    .map(|recents| recents.above(Seq(7), 9))
            ),
            Some(vec![9, 8])
        );
        assert_eq!(
            seqs(
                some.slice(Seq(0), 4)
                    .map(|recents| recents.above(Seq(0), 1))
            ),
            Some(vec![9])
        );
    }

    #[test]
    fn an_entry_is_returned_only_for_its_state() {
        let cache = cache(1 << 20);
        cache.insert(ChannelPk(1), &newest(head(3, 3), 1, 20, &[3, 2, 1]));
        assert!(cache.get(ChannelPk(1), head(3, 3)).is_some());
        for other in [
            head(4, 4),
            head(2, 3),
            head(4, 3),
            ChannelSnapshotId {
                last_message_at: EpochMs(9),
                ..head(3, 3)
            },
        ] {
            assert!(cache.get(ChannelPk(1), other).is_none(), "{other:?}");
        }
        assert!(cache.get(ChannelPk(2), head(3, 3)).is_none());
    }

    #[test]
    fn append_evicts_the_oldest_message_above_the_requested_number() {
        let cache = cache(1 << 20);
        cache.insert(ChannelPk(1), &newest(head(3, 3), 1, 4, &[3, 2, 1]));
        cache.append(ChannelPk(1), head(3, 3), head(4, 4), &[message(4)]);
        let four = cache.get(ChannelPk(1), head(4, 4)).unwrap();
        assert_eq!(
            (seqs(four.slice(Seq(0), 4)), seqs(four.slice(Seq(0), 9))),
            (Some(vec![4, 3, 2, 1]), Some(vec![4, 3, 2, 1]))
        );
        cache.append(
            ChannelPk(1),
            head(4, 4),
            head(6, 6),
            &[message(5), message(6)],
        );
        let six = cache.get(ChannelPk(1), head(6, 6)).unwrap();
        assert_eq!(
            (seqs(six.slice(Seq(0), 4)), seqs(six.slice(Seq(0), 5))),
            (Some(vec![6, 5, 4, 3]), None)
        );
        // Without an entry for the previous state nothing can be appended.
        cache.append(ChannelPk(1), head(4, 4), head(7, 7), &[message(7)]);
        assert!(
            cache.get(ChannelPk(1), head(7, 7)).is_none()
                && cache.get(ChannelPk(1), head(6, 6)).is_some()
        );
    }

    #[test]
    fn the_cache_is_bounded_and_can_be_disabled() {
        let bounded = cache(50_000);
        for channel_id in 0..1000 {
            bounded.insert(ChannelPk(channel_id), &newest(head(2, 2), 1, 2, &[2, 1]));
        }
        assert!(
            bounded.bytes() <= 50_000 && bounded.bytes() > 20_000,
            "{}",
            bounded.bytes()
        );
        let none = cache(0);
        none.insert(ChannelPk(1), &newest(head(2, 2), 1, 2, &[2, 1]));
        none.append(ChannelPk(1), head(2, 2), head(3, 3), &[message(3)]);
        assert!(none.get(ChannelPk(1), head(2, 2)).is_none() && none.bytes() == 0);
    }

    #[test]
    fn json_is_rendered_once_and_sliced() {
        let some = newest(head(3, 3), 1, 3, &[3, 2, 1]);
        let text = |recents: Option<MessageSlice>| {
            let mut to = Vec::new();
            recents.unwrap().write_json(&mut to);
            String::from_utf8(to).unwrap()
        };
        assert_eq!(text(some.slice(Seq(0), 3)), "[3],[2],[1]");
        assert_eq!(text(some.slice(Seq(0), 1)), "[3]");
        assert_eq!(text(some.slice(Seq(1), 3)), "[3],[2]");
        assert_eq!(text(some.slice(Seq(3), 3)), "");
        assert_eq!(
            text(
                some.slice(Seq(0), 3)
                    .map(|recents| recents.above(Seq(2), 9))
            ),
            "[3]"
        );
        assert_eq!(text(Some(MessageSlice::default())), "");
        let first = some.json().text.as_ptr();
        assert_eq!(some.json().text.as_ptr(), first, "rendered twice");
    }

    #[test]
    fn entries_are_rendered_by_the_function_of_their_cache() {
        let other = RecentMessageCache::new(1 << 20, |message, to| {
            to.extend_from_slice(message.message_id.to_string().as_bytes());
        });
        let text = |cache: &RecentMessageCache| {
            let mut to = Vec::new();
            cache.insert(
                ChannelPk(1),
                &cache.new_entry(head(1, 1), Seq(1), 2, vec![message(1)]),
            );
            cache.append(ChannelPk(1), head(1, 1), head(2, 2), &[message(2)]);
            MessageSlice::all(cache.get(ChannelPk(1), head(2, 2)).unwrap()).write_json(&mut to);
            String::from_utf8(to).unwrap()
        };
        assert_eq!(text(&cache(1 << 20)), "[2],[1]");
        assert_eq!(text(&other), "102,101");
    }
}
