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
