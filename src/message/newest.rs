//! The newest messages of channels, kept in memory.
//!
//! A message never changes once it has a seq, but late ones come in between. So what is kept
//! belongs to one state of its channel, and is used only by who has read just that state from the
//! database: nobody needs to be told when a channel moves, here or on another server, and what is
//! forgotten costs a read.

use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use moka::sync::Cache;

use super::Message;
use crate::ids::Seq;
use crate::store::HeadState;

/// Bytes of a kept message beside its texts: its own size, and its forms in JSON without them.
const MESSAGE_BYTES: usize = size_of::<Message>() + 400;

/// All messages of a channel in one state from some seq on, newest first.
#[derive(Debug)]
pub struct Newest {
    head: HeadState,
    /// There is nothing between this seq and the last message but what is here.
    from: Seq,
    /// So many were asked for.
    wanted: usize,
    messages: Vec<Arc<Message>>,
    json: OnceLock<Json>,
}

/// The messages as JSON, one after the other with commas between.
#[derive(Debug)]
struct Json {
    text: Vec<u8>,
    /// Where each begins, and where the last one ends.
    begins: Vec<usize>,
}

impl Newest {
    /// `messages` are all those of the channel from `from` on, newest first; `wanted` were asked
    /// for.
    #[must_use]
    pub fn new(head: HeadState, from: Seq, wanted: usize, messages: Vec<Arc<Message>>) -> Self {
        Self {
            head,
            from,
            wanted,
            messages,
            json: OnceLock::new(),
        }
    }

    /// Those above `above`, at most `count`; `None` where there may be more of them than are here.
    #[must_use]
    pub fn recents(self: &Arc<Self>, above: Seq, count: usize) -> Option<Recents> {
        let end = self
            .messages
            .partition_point(|message| message.seq > above)
            .min(count);
        let is_all = end == count || self.from <= above + 1;
        is_all.then(|| Recents {
            newest: Some(Arc::clone(self)),
            range: 0..end,
        })
    }

    /// As JSON, in the form that the first caller writes.
    fn json(&self, write: impl Fn(&Message, &mut Vec<u8>)) -> &Json {
        self.json.get_or_init(|| {
            let (mut text, mut begins) = (
                Vec::with_capacity(self.messages.len() * 512),
                Vec::with_capacity(self.messages.len() + 1),
            );
            for message in &self.messages {
                begins.push(text.len());
                write(message, &mut text);
                text.push(b',');
            }
            text.shrink_to_fit();
            begins.push(text.len());
            Json { text, begins }
        })
    }

    fn bytes(&self) -> usize {
        self.messages
            .iter()
            .map(|message| MESSAGE_BYTES + message.bytes())
            .sum::<usize>()
            + size_of::<Self>()
    }
}

/// Some of a channel's newest messages, newest first.
#[derive(Clone, Debug, Default)]
pub struct Recents {
    newest: Option<Arc<Newest>>,
    range: Range<usize>,
}

impl Recents {
    /// All of these.
    pub(crate) fn all(newest: Arc<Newest>) -> Self {
        Self {
            range: 0..newest.messages.len(),
            newest: Some(newest),
        }
    }

    /// Those of them above `seq`, at most `count`.
    #[must_use]
    pub fn above(mut self, seq: Seq, count: usize) -> Self {
        let end = self.partition_point(|message| message.seq > seq).min(count);
        self.range.end = self.range.start + end;
        self
    }

    /// Appends them as JSON, with commas between. Every caller writes the same form: it is kept.
    pub fn write_json(&self, to: &mut Vec<u8>, write: impl Fn(&Message, &mut Vec<u8>)) {
        if let Some(newest) = self.newest.as_ref().filter(|_| !self.range.is_empty()) {
            let json = newest.json(write);
            to.extend_from_slice(
                &json.text[json.begins[self.range.start]..json.begins[self.range.end] - 1],
            );
        }
    }

    /// About how many bytes they are as JSON.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        self.iter()
            .map(|message| MESSAGE_BYTES + message.bytes())
            .sum()
    }
}

impl Deref for Recents {
    type Target = [Arc<Message>];

    fn deref(&self) -> &Self::Target {
        self.newest
            .as_ref()
            .map(|newest| &newest.messages[self.range.clone()])
            .unwrap_or_default()
    }
}

impl PartialEq for Recents {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// The channels whose newest messages are kept, up to so many bytes; the least used go first.
#[derive(Debug)]
pub struct NewestCache(Option<Cache<i64, Arc<Newest>>>);

impl NewestCache {
    /// 0: nothing is kept.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let weight =
            |_: &i64, newest: &Arc<Newest>| u32::try_from(newest.bytes()).unwrap_or(u32::MAX);
        Self((bytes > 0).then(|| Cache::builder().max_capacity(bytes).weigher(weight).build()))
    }

    /// Bytes in use, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let Some(cache) = &self.0 else { return 0 };
        // It counts what came last with the next that comes, otherwise.
        cache.run_pending_tasks();
        cache.weighted_size()
    }

    /// What is kept of a channel in this state.
    #[must_use]
    pub fn get(&self, channel_id: i64, head: HeadState) -> Option<Arc<Newest>> {
        self.0
            .as_ref()?
            .get(&channel_id)
            .filter(|newest| newest.head == head)
    }

    /// Keeps what was read of a channel, after its state was.
    pub fn keep(&self, channel_id: i64, newest: &Arc<Newest>) {
        if let Some(cache) = &self.0 {
            cache.insert(channel_id, Arc::clone(newest));
        }
    }

    /// Takes over from one state of a channel to the next, to which committed messages at its end
    /// brought it; oldest first.
    pub fn append(
        &self,
        channel_id: i64,
        before: HeadState,
        after: HeadState,
        new: &[Arc<Message>],
    ) {
        let Some((cache, newest)) = self.0.as_ref().zip(self.get(channel_id, before)) else {
            return;
        };
        let mut messages: Vec<Arc<Message>> =
            new.iter().rev().chain(&newest.messages).cloned().collect();
        let mut from = newest.from;
        if messages.len() > newest.wanted {
            messages.truncate(newest.wanted.max(1));
            from = messages.last().map_or(from, |last| last.seq);
        }
        cache.insert(
            channel_id,
            Arc::new(Newest::new(after, from, newest.wanted, messages)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChannelRef, ChannelType};
    use crate::message::Content;

    fn message(seq: Seq) -> Arc<Message> {
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
            message_id: 100 + seq,
            seq,
            client_msg_no,
            from_uid,
            sent_at: seq,
            red_dot: true,
            content,
        })
    }

    fn head(revision: i64, last_seq: Seq) -> HeadState {
        HeadState {
            revision,
            last_seq,
            last_message_at: last_seq,
        }
    }

    fn newest(head: HeadState, from: Seq, wanted: usize, seqs: &[Seq]) -> Arc<Newest> {
        Arc::new(Newest::new(
            head,
            from,
            wanted,
            seqs.iter().copied().map(message).collect(),
        ))
    }

    fn seqs(recents: Option<Recents>) -> Option<Vec<Seq>> {
        recents.map(|recents| recents.iter().map(|message| message.seq).collect())
    }

    #[test]
    fn what_may_be_more_than_is_here_is_read() {
        // 6 is a hole.
        let some = newest(head(9, 9), 5, 4, &[9, 8, 7, 5]);
        assert_eq!(seqs(some.recents(0, 4)), Some(vec![9, 8, 7, 5]));
        assert_eq!(seqs(some.recents(0, 2)), Some(vec![9, 8]));
        assert_eq!(seqs(some.recents(0, 5)), None, "there may be more below 5");
        assert_eq!(seqs(some.recents(3, 5)), None);
        assert_eq!(
            seqs(some.recents(4, 5)),
            Some(vec![9, 8, 7, 5]),
            "below 5 they are deleted for this user"
        );
        assert_eq!(seqs(some.recents(8, 20)), Some(vec![9]));
        assert_eq!(seqs(some.recents(9, 20)), Some(vec![]));
        assert_eq!(
            seqs(some.recents(0, 4).map(|recents| recents.above(7, 9))),
            Some(vec![9, 8])
        );
        assert_eq!(
            seqs(some.recents(0, 4).map(|recents| recents.above(0, 1))),
            Some(vec![9])
        );
    }

    #[test]
    fn only_the_state_that_was_read_is_served() {
        let cache = NewestCache::new(1 << 20);
        cache.keep(1, &newest(head(3, 3), 1, 20, &[3, 2, 1]));
        assert!(cache.get(1, head(3, 3)).is_some());
        for other in [
            head(4, 4),
            head(2, 3),
            head(4, 3),
            HeadState {
                last_message_at: 9,
                ..head(3, 3)
            },
        ] {
            assert!(cache.get(1, other).is_none(), "{other:?}");
        }
        assert!(cache.get(2, head(3, 3)).is_none());
    }

    #[test]
    fn what_is_appended_takes_the_place_of_the_oldest_unless_all_are_wanted() {
        let cache = NewestCache::new(1 << 20);
        cache.keep(1, &newest(head(3, 3), 1, 4, &[3, 2, 1]));
        cache.append(1, head(3, 3), head(4, 4), &[message(4)]);
        let four = cache.get(1, head(4, 4)).unwrap();
        assert_eq!(
            (seqs(four.recents(0, 4)), seqs(four.recents(0, 9))),
            (Some(vec![4, 3, 2, 1]), Some(vec![4, 3, 2, 1]))
        );
        cache.append(1, head(4, 4), head(6, 6), &[message(5), message(6)]);
        let six = cache.get(1, head(6, 6)).unwrap();
        assert_eq!(
            (seqs(six.recents(0, 4)), seqs(six.recents(0, 5))),
            (Some(vec![6, 5, 4, 3]), None)
        );
        // From a state that is not the kept one nothing is known.
        cache.append(1, head(4, 4), head(7, 7), &[message(7)]);
        assert!(cache.get(1, head(7, 7)).is_none() && cache.get(1, head(6, 6)).is_some());
    }

    #[test]
    fn what_is_kept_is_bounded_and_may_be_nothing() {
        let cache = NewestCache::new(50_000);
        for channel_id in 0..1000 {
            cache.keep(channel_id, &newest(head(2, 2), 1, 2, &[2, 1]));
        }
        assert!(
            cache.bytes() <= 50_000 && cache.bytes() > 20_000,
            "{}",
            cache.bytes()
        );
        let none = NewestCache::new(0);
        none.keep(1, &newest(head(2, 2), 1, 2, &[2, 1]));
        none.append(1, head(2, 2), head(3, 3), &[message(3)]);
        assert!(none.get(1, head(2, 2)).is_none() && none.bytes() == 0);
    }

    #[test]
    fn json_is_written_once_and_cut_anywhere() {
        let some = newest(head(3, 3), 1, 3, &[3, 2, 1]);
        let write = |message: &Message, to: &mut Vec<u8>| {
            to.extend_from_slice(format!("[{}]", message.seq).as_bytes())
        };
        let text = |recents: Option<Recents>| {
            let mut to = Vec::new();
            recents.unwrap().write_json(&mut to, write);
            String::from_utf8(to).unwrap()
        };
        assert_eq!(text(some.recents(0, 3)), "[3],[2],[1]");
        assert_eq!(text(some.recents(0, 1)), "[3]");
        assert_eq!(text(some.recents(1, 3)), "[3],[2]");
        assert_eq!(text(some.recents(3, 3)), "");
        assert_eq!(
            text(some.recents(0, 3).map(|recents| recents.above(2, 9))),
            "[3]"
        );
        assert_eq!(text(Some(Recents::default())), "");
    }
}
