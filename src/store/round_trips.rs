//! Rows that are written and read again. The columns of a table are listed in statements, in the
//! code that reads a row, and in the code that writes one. Every column has its own value here,
//! and the entities read by name, so that a list in a different order fails a test.

use std::collections::HashMap;

use entity::{channel, conversation, message};
use sea_orm::EntityTrait;

use super::{FindMessages, LockPolicy, OwnMessage, SeqRange, Store, StoreError};
use crate::config::Settings;
use crate::model::{
    ChannelGaps, ChannelHead, ChannelKey, ChannelPk, ChannelType, ConversationRow, Counts, EpochMs,
    Membership, Revision, SenderMark, Seq, Uid, Version,
};

/// Returns a new database with two channels, and their internal ids.
async fn start() -> (tempfile::TempDir, Store, [(ChannelKey, ChannelPk); 2]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recents.db");
    let mut settings = Settings::default().database;
    settings.url = format!("sqlite://{}?mode=rwc", file.display())
        .as_str()
        .into();
    let store = Store::connect(&settings).await.unwrap();
    store.migrate_up().await.unwrap();
    let keys = ["team", "news"].map(|name| ChannelKey {
        channel_type: ChannelType::GROUP,
        key: name.to_owned(),
    });
    let ids = store.ensure_channels(&[&keys[0], &keys[1]]).await.unwrap();
    let channels = keys.map(|key| (key.clone(), ids[&key]));
    (folder, store, channels)
}

fn head((key, id): &(ChannelKey, ChannelPk), first: i64) -> ChannelHead {
    ChannelHead {
        id: *id,
        key: key.clone(),
        last_seq: Seq(first),
        revision: Revision(first + 1),
        red_dots: first + 2,
        last_message_at: EpochMs(first + 3),
        late_revision: Revision(first + 4),
        flags: first + 5,
        cleared_to_seq: Seq(first + 6),
        cleared_at: EpochMs(first + 7),
        gaps: ChannelGaps {
            complete_to: Seq(first + 8),
            missing: first + 9,
            begins_at: Seq(first + 10),
            since: EpochMs(first + 11),
        },
    }
}

/// Writes heads, and returns them as a list and a lock read them.
async fn written(store: &Store, heads: &[&ChannelHead]) -> [Vec<ChannelHead>; 2] {
    let ids: Vec<ChannelPk> = heads.iter().map(|head| head.id).collect();
    let tx = store.begin().await.unwrap();
    tx.write_heads(heads).await.unwrap();
    let locked = tx.lock_channels(&ids, LockPolicy::Wait).await.unwrap();
    let committed: Result<(), StoreError> = tx.commit(()).await;
    committed.unwrap();
    for head in heads {
        let stored = channel::Entity::find_by_id(head.id.0)
            .one(&store.read.connection())
            .await
            .unwrap()
            .unwrap();
        let by_name = ChannelHead {
            id: ChannelPk(stored.id),
            key: ChannelKey {
                channel_type: ChannelType::from_stored(stored.channel_type),
                key: stored.channel_key,
            },
            last_seq: Seq(stored.last_seq),
            revision: Revision(stored.revision),
            red_dots: stored.red_dots,
            last_message_at: EpochMs(stored.last_message_at),
            late_revision: Revision(stored.late_revision),
            flags: stored.flags,
            cleared_to_seq: Seq(stored.cleared_to_seq),
            cleared_at: EpochMs(stored.cleared_at),
            gaps: ChannelGaps {
                complete_to: Seq(stored.complete_to_seq),
                missing: stored.missing,
                begins_at: Seq(stored.begins_at_seq),
                since: EpochMs(stored.gaps_since),
            },
        };
        assert_eq!(by_name, **head, "{}", head.key.key);
    }
    let mut listed = store.list_heads(&ids).await.unwrap();
    listed.sort_by_key(|head| head.id);
    [listed, locked]
}

#[tokio::test]
async fn heads() {
    let (_folder, store, channels) = start().await;
    let one = head(&channels[0], 100);
    assert_eq!(written(&store, &[&one]).await, [[one.clone()], [one]]);
    let mut both = channels.each_ref().map(|channel| head(channel, 200));
    both.sort_by_key(|head| head.id);
    let [one, other] = &both;
    assert_eq!(
        written(&store, &[one, other]).await,
        [both.clone(), both.clone()]
    );
}

#[tokio::test]
async fn messages() {
    let (_folder, store, channels) = start().await;
    let channel_id = channels[0].1;
    let message = message::Model {
        channel_id: channel_id.0,
        seq: 1,
        message_id: 2,
        client_msg_no: "three".to_owned(),
        from_uid: "four".to_owned(),
        sent_at: 5,
        red_dot: true,
        setting: 6,
        topic: "seven".to_owned(),
        expire: 8,
        stream_no: "nine".to_owned(),
        stream_seq: 10,
        stream_flag: 11,
        stream_state: b"{}".to_vec(),
        payload: b"twelve".to_vec(),
    };
    let other = message::Model {
        seq: 2,
        message_id: 3,
        red_dot: false,
        ..message.clone()
    };
    let tx = store.begin().await.unwrap();
    let both = [message.clone(), other.clone()];
    tx.insert_messages(&both).await.unwrap();
    let committed: Result<(), StoreError> = tx.commit(()).await;
    committed.unwrap();

    let by_name = message::Entity::find().all(&store.read.connection()).await;
    assert_eq!(by_name.unwrap(), both);
    let all = SeqRange {
        channel_id,
        from: Seq(1),
        to: Seq(9),
    };
    let page = store.list_page(all, 9, false, 100).await.unwrap();
    let lengths: Vec<usize> = page.iter().map(|partial| partial.payload_bytes).collect();
    assert_eq!(lengths, [8, 8]);
    let page: Vec<_> = page.into_iter().map(|partial| partial.message).collect();
    assert_eq!(page, both);
    let recent = store.list_windows(&[all], 100).await.unwrap();
    let recent: Vec<_> = recent[&channel_id]
        .iter()
        .map(|partial| &partial.message)
        .collect();
    assert_eq!(recent, [&other, &message]);
    let repeated = [(channel_id, "four", "three")];
    let sent = store.find_by_client_msg_nos(&repeated).await.unwrap();
    assert_eq!(sent, both);

    // A payload above the limit is read by a statement of its own.
    let mut short = store.list_page(all, 1, false, 7).await.unwrap();
    let read = &short[0].message;
    assert!(
        read.payload.is_empty() && read.stream_state.is_empty(),
        "{short:?}"
    );
    store.read_payloads(vec![&mut short[0]]).await.unwrap();
    assert_eq!(short[0].message, message);
}

#[tokio::test]
async fn conversations() {
    let (_folder, store, channels) = start().await;
    let head = head(&channels[0], 1000);
    written(&store, &[&head]).await;
    let uid = Uid::parse("uid", "ann").unwrap();
    store
        .ensure_cursors(std::slice::from_ref(&uid))
        .await
        .unwrap();
    let own = SenderMark {
        seq: Seq(11),
        red_dots: 12,
        revision: Revision(13),
    };
    let row = ConversationRow {
        channel_id: head.id,
        key: head.key.clone(),
        last_seq: head.last_seq,
        revision: head.revision,
        red_dots: head.red_dots,
        last_message_at: head.last_message_at,
        late_revision: head.late_revision,
        own,
        counts: Counts::default(),
        membership: Membership::Member,
        read_seq: Seq(21),
        read_mark: 22,
        marked_revision: Revision(23),
        marked_seq: Seq(24),
        // The larger one of the user's and the channel's.
        deleted_to_seq: head.cleared_to_seq.plus(25),
        joined_seq: Seq(26),
        left_seq: Seq(27),
        left_at: EpochMs(28),
        joined_removals: 29,
        version: Version(30),
        stamped_revision: Revision(31),
        pinned_at: EpochMs(32),
        muted: true,
        activated_at: EpochMs(33),
    };
    let tx = store.begin().await.unwrap();
    let mark = OwnMessage {
        channel_id: head.id,
        uid: "ann".to_owned(),
        mark: own,
    };
    tx.write_sender_marks(vec![mark]).await.unwrap();
    assert_eq!(tx.find_sender_mark(head.id, "ann").await.unwrap(), own);
    tx.write_conversations(vec![(&uid, &row)], &HashMap::new())
        .await
        .unwrap();
    let found = tx.find_conversations(&[(&uid, head.id)]).await.unwrap();
    assert_eq!(found, [(uid.clone(), row.clone())]);
    let views = tx.find_member_views(&[(&uid, head.id)]).await.unwrap();
    assert_eq!((views[0].uid.as_str(), &views[0].row), ("ann", &row));
    assert_eq!(
        (views[0].cleared_at, views[0].removals),
        (head.cleared_at, 0)
    );

    // A stamp writes what a sync changes, and nothing else.
    let stamped = ConversationRow {
        read_seq: Seq(41),
        read_mark: 42,
        marked_revision: Revision(43),
        marked_seq: Seq(44),
        version: Version(45),
        stamped_revision: Revision(46),
        ..row.clone()
    };
    let all_changed = ConversationRow {
        deleted_to_seq: Seq(9999),
        joined_seq: Seq(9999),
        left_seq: Seq(9999),
        left_at: EpochMs(9999),
        joined_removals: 9999,
        membership: Membership::Left,
        pinned_at: EpochMs(9999),
        muted: false,
        activated_at: EpochMs(9999),
        ..stamped.clone()
    };
    tx.stamp(vec![(&uid, &all_changed)]).await.unwrap();
    let found = tx.find_conversations(&[(&uid, head.id)]).await.unwrap();
    assert_eq!(found, [(uid.clone(), stamped.clone())]);
    let cursors = tx
        .lock_users(std::slice::from_ref(&uid), LockPolicy::Wait)
        .await;
    assert_eq!(cursors.unwrap()["ann"], Version(45));
    let committed: Result<(), StoreError> = tx.commit(()).await;
    committed.unwrap();
    let stored = conversation::Entity::find()
        .one(&store.read.connection())
        .await
        .unwrap()
        .unwrap();
    let by_name = ConversationRow {
        channel_id: ChannelPk(stored.channel_id),
        read_seq: Seq(stored.read_seq),
        read_mark: stored.read_mark,
        marked_revision: Revision(stored.marked_revision),
        marked_seq: Seq(stored.marked_seq),
        deleted_to_seq: Seq(stored.deleted_to_seq),
        joined_seq: Seq(stored.joined_seq),
        left_seq: Seq(stored.left_seq),
        left_at: EpochMs(stored.left_at),
        joined_removals: stored.joined_removals,
        version: Version(stored.version),
        stamped_revision: Revision(stored.stamped_revision),
        pinned_at: EpochMs(stored.pinned_at),
        muted: stored.muted,
        activated_at: EpochMs(stored.activated_at),
        ..stamped.clone()
    };
    assert_eq!(by_name, stamped);
    let rest = (stored.uid.as_str(), stored.membership);
    assert_eq!(rest, ("ann", Membership::Member.stored()));
    let changed = store.list_changed(&uid, Version(44)).await.unwrap();
    assert_eq!(changed.cursor, Some(Version(45)));
    let mut rows = changed.rows;
    // Counted afterwards.
    rows[0].counts = Counts::default();
    assert_eq!(rows, [stamped]);
}
