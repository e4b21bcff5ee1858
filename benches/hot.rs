//! Benchmarks of hot functions: `cargo bench`. `scripts/bench` measures whole requests.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use recents::conversation::parse_last_msg_seqs;
use recents::message::{CachedMessages, RecentMessageCache};
use recents::model::{
    ChannelPk, ChannelRef, ChannelSnapshotId, ChannelType, Content, EpochMs, Message, MessageId,
    Revision, Seq,
};
use recents::rest::wukong::conversation::sync::SyncBody;
use recents::wukongim::JsonObject;
use recents::wukongim::dto::{ConversationDto, SyncEntryDto, write_entries, write_message};

const CONVERSATIONS: i64 = 500;
const MESSAGES: i64 = 20;

fn message(seq: i64) -> Arc<Message> {
    Arc::new(Message {
        channel: ChannelRef {
            channel_type: ChannelType::GROUP,
            channel_id: "team-1".to_owned(),
        },
        message_id: MessageId(2_124_658_887_163_379_712 + seq),
        seq: Seq(seq),
        client_msg_no: format!("7f1c0d3e5a9b4c2d8e6f{seq}"),
        from_uid: "u17".to_owned(),
        sent_at: EpochMs(1_795_393_127_614 + seq),
        red_dot: true,
        content: Content {
            payload: br#"{"type":1,"content":"See you at the station at half past seven, gate 4"}"#
                .to_vec(),
            ..Content::default()
        },
    })
}

fn head(last_seq: i64) -> ChannelSnapshotId {
    ChannelSnapshotId {
        revision: Revision(last_seq),
        last_seq: Seq(last_seq),
        last_message_at: EpochMs(last_seq),
    }
}

fn cached_messages() -> Arc<CachedMessages> {
    RecentMessageCache::new(0, write_message).new_entry(
        head(MESSAGES),
        Seq(1),
        MESSAGES as usize,
        (1..=MESSAGES).rev().map(message).collect(),
    )
}

fn entries() -> Vec<SyncEntryDto> {
    (0..CONVERSATIONS)
        .map(|number| {
            let mut item = ConversationDto::absent(format!("team-{number}"), 2);
            item.recents = cached_messages()
                .slice(Seq::ZERO, MESSAGES as usize)
                .unwrap_or_default();
            SyncEntryDto::Item(item)
        })
        .collect()
}

fn benches(criterion: &mut Criterion) {
    let kept = entries();
    let bytes = write_entries(&kept).map_or(0, |text| text.len() as u64);
    let mut group = criterion.benchmark_group("answers");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("500 conversations of 20 messages, cached JSON", |bench| {
        bench.iter(|| black_box(write_entries(&kept)))
    });
    group.sample_size(20);
    group.bench_function("500 conversations of 20 messages, rendered", |bench| {
        bench.iter_batched(
            entries,
            |entries| black_box(write_entries(&entries)),
            BatchSize::LargeInput,
        );
    });
    group.finish();

    criterion.bench_function("append to the cached messages of a channel", |bench| {
        let (cache, newest, new) = (
            RecentMessageCache::new(1 << 20, write_message),
            cached_messages(),
            [message(MESSAGES + 1)],
        );
        bench.iter(|| {
            cache.insert(ChannelPk(1), &newest);
            cache.append(ChannelPk(1), head(MESSAGES), head(MESSAGES + 1), &new);
        });
    });
    let request = br#"{"uid":"u0","version":1795393127614,"last_msg_seqs":"","msg_count":20,"only_unread":0}"#;
    criterion.bench_function("parse the body of a sync", |bench| {
        bench.iter(|| {
            black_box(JsonObject::parse(request).and_then(|mut body| body.decode::<SyncBody>()))
        })
    });
    let held: Vec<String> = (0..CONVERSATIONS)
        .map(|number| format!("team-{number}:2:{number}"))
        .collect();
    let held = held.join("|");
    criterion.bench_function("parse 500 last_msg_seqs", |bench| {
        bench.iter(|| black_box(parse_last_msg_seqs(&held)))
    });
}

criterion_group!(hot, benches);
criterion_main!(hot);
