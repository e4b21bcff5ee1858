//! The SQL of the hot statements on every engine, one file for each in `snapshots/`: a reviewer
//! sees what a change of a builder does to the statements.
//!
//! The tests call the methods of `Store` and `Tx` on a mock connection, which records statements
//! and returns no rows. After a wanted change `just snapshots` writes the files anew.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use entity::message;
use sea_orm::{DatabaseConnection, DbBackend, MockDatabase, MockExecResult, Value};
use sqlformat::{FormatOptions, QueryParams};

use super::pool::{Pool, PoolLimits};
use super::{
    CountRequest, FindMessages, LockPolicy, MessagePosition, OwnMessage, PartialMessage, SeqRange,
    Store, StoreError, Tx,
};
use crate::model::{
    ChannelGaps, ChannelHead, ChannelKey, ChannelPk, ChannelType, ConversationRow, EpochMs,
    MessageId, Revision, SenderMark, Seq, Uid, Version,
};

const ENGINES: [(DbBackend, &str); 3] = [
    (DbBackend::Sqlite, "SQLite"),
    (DbBackend::Postgres, "PostgreSQL"),
    (DbBackend::MySql, "MySQL, MariaDB"),
];

const TEAM: i64 = 1;
const NEWS: i64 = 2;

fn uid(name: &str) -> Uid {
    Uid::parse("uid", name).unwrap()
}

fn key(name: &str) -> ChannelKey {
    ChannelKey {
        channel_type: ChannelType::GROUP,
        key: name.to_owned(),
    }
}

fn row(channel_id: i64) -> ConversationRow {
    ConversationRow::empty(ChannelPk(channel_id), key("team"))
}

fn head(id: i64) -> ChannelHead {
    ChannelHead {
        id: ChannelPk(id),
        key: key("team"),
        last_seq: Seq(9),
        revision: Revision(9),
        red_dots: 9,
        last_message_at: EpochMs(9),
        late_revision: Revision(0),
        flags: 0,
        cleared_to_seq: Seq::ZERO,
        cleared_at: EpochMs(0),
        gaps: ChannelGaps::default(),
    }
}

fn message(channel_id: i64, seq: i64) -> message::Model {
    message::Model {
        channel_id,
        seq,
        message_id: seq,
        client_msg_no: "c1".to_owned(),
        from_uid: "ann".to_owned(),
        sent_at: 9,
        red_dot: true,
        setting: 0,
        topic: String::new(),
        expire: 0,
        stream_no: String::new(),
        stream_seq: 0,
        stream_flag: 0,
        stream_state: Vec::new(),
        payload: b"hello".to_vec(),
    }
}

fn window(channel_id: i64) -> SeqRange {
    SeqRange {
        channel_id: ChannelPk(channel_id),
        from: Seq(1),
        to: Seq(9),
    }
}

fn own_message(channel_id: i64, uid: &str) -> OwnMessage {
    OwnMessage {
        channel_id: ChannelPk(channel_id),
        uid: uid.to_owned(),
        mark: SenderMark::default(),
    }
}

/// A connection that records statements and returns no rows.
fn mock(backend: DbBackend) -> DatabaseConnection {
    let no_rows: Vec<Vec<BTreeMap<&str, Value>>> = vec![Vec::new(); 9];
    MockDatabase::new(backend)
        .append_query_results(no_rows)
        .append_exec_results(vec![MockExecResult::default(); 9])
        .into_connection()
}

fn store_on(connection: &DatabaseConnection) -> Store {
    let limits = PoolLimits {
        max_connections: 1,
        acquire_timeout: Duration::from_secs(9),
        statement_timeout: Duration::from_secs(9),
    };
    let pool = Pool::from_connection(connection.clone(), limits);
    Store::from_pools(pool.clone(), pool, limits.max_connections)
}

/// Breaks the lines of a statement. The formatter does not know MySQL's upsert.
fn with_line_breaks(sql: &str) -> String {
    let options = FormatOptions {
        joins_as_top_level: true,
        max_inline_block: 90,
        max_inline_arguments: Some(90),
        max_inline_top_level: Some(90),
        ..FormatOptions::default()
    };
    let upsert = "ON DUPLICATE KEY UPDATE";
    let (sql, assignments) = match sql.split_once(upsert) {
        Some((insert, assignments)) => (insert, Some(assignments.replace("), `", "),\n  `"))),
        None => (sql, None),
    };
    let formatted = sqlformat::format(sql, &QueryParams::None, &options);
    match assignments {
        Some(assignments) => format!("{formatted}\n{upsert}\n  {}", assignments.trim()),
        None => formatted,
    }
}

/// Compares the statements that `run` sends on each engine with the file of this name.
async fn compare(
    name: &str,
    description: &str,
    run: impl AsyncFn(&Store) -> Result<(), anyhow::Error>,
) {
    let mut text = String::new();
    for (backend, engine) in ENGINES {
        let connection = mock(backend);
        run(&store_on(&connection))
            .await
            .unwrap_or_else(|error| panic!("{name} on {engine}: {error:#}"));
        text += &format!("\n-- {engine}\n");
        for transaction in connection.into_transaction_log() {
            for statement in transaction.statements() {
                if !["BEGIN", "COMMIT"].contains(&statement.sql.as_str()) {
                    text += &format!("{};\n", with_line_breaks(&statement.sql));
                }
            }
        }
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_description(description);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// [`compare`] for statements inside of a transaction.
async fn compare_in_transaction(
    name: &str,
    description: &str,
    run: impl AsyncFn(&Tx) -> Result<(), anyhow::Error>,
) {
    compare(name, description, async |store| {
        let tx = store.begin().await?;
        run(&tx).await?;
        let committed: Result<(), StoreError> = tx.commit(()).await;
        Ok(committed?)
    })
    .await;
}

#[tokio::test]
async fn full_list() {
    let about = "Store::list_changed: the first sync of a device";
    compare("list_changed_full", about, async |store| {
        store.list_changed(&uid("ann"), Version(0)).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn changes_of_a_user() {
    let about = "Store::list_changed: a sync with a version";
    compare("list_changed", about, async |store| {
        store.list_changed(&uid("ann"), Version(7)).await?;
        Ok(())
    })
    .await;
    let about = "Tx::list_changed: the same under the user's lock, where rows are stale";
    compare_in_transaction("list_changed_locked", about, async |tx| {
        tx.list_changed(&[(&uid("ann"), Version(7))]).await?;
        Ok(())
    })
    .await;
    let about = "Tx::list_changed: a batch of users, with padding where there is any";
    compare_in_transaction("list_changed_of_users", about, async |tx| {
        let (ann, bob, cid) = (uid("ann"), uid("bob"), uid("cid"));
        tx.list_changed(&[(&ann, Version(7)), (&bob, Version(8)), (&cid, Version(9))])
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn users_with_changes() {
    let about = "Store::list_users_behind: which of the subscribed users have changes";
    compare("list_users_behind", about, async |store| {
        let (ann, bob) = (uid("ann"), uid("bob"));
        store
            .list_users_behind(&[(&ann, Version(7)), (&bob, Version(8))])
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn single_conversations() {
    let about = "Tx::find_conversations: conversations by user and channel";
    compare_in_transaction("find_conversations", about, async |tx| {
        let (ann, bob) = (uid("ann"), uid("bob"));
        tx.find_conversations(&[(&ann, ChannelPk(TEAM)), (&bob, ChannelPk(TEAM))])
            .await?;
        Ok(())
    })
    .await;
    let about = "Tx::find_member_views: the same for users who may have no conversation";
    compare_in_transaction("find_member_views", about, async |tx| {
        let (ann, bob) = (uid("ann"), uid("bob"));
        tx.find_member_views(&[(&ann, ChannelPk(TEAM)), (&bob, ChannelPk(TEAM))])
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn counts() {
    let about = "Store::count: messages read ahead, late messages, messages above a seq";
    compare("count", about, async |store| {
        let ann = uid("ann");
        let mut rows = [TEAM, NEWS].map(|channel_id| ConversationRow {
            last_seq: Seq(9),
            revision: Revision(9),
            ..row(channel_id)
        });
        let mut requests: Vec<CountRequest> = rows
            .iter_mut()
            .map(|row| CountRequest {
                uid: &ann,
                row,
                up_to: Some(Seq(3)),
            })
            .collect();
        store.count(&mut requests).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn members() {
    let about = "Store::list_members";
    compare("list_members", about, async |store| {
        store.list_members(ChannelPk(TEAM)).await?;
        Ok(())
    })
    .await;
    let about = "Store::list_removed: members whose rows lack a removal of all members";
    compare("list_removed", about, async |store| {
        store.list_removed(ChannelPk(TEAM), 1, "ann", 500).await?;
        Ok(())
    })
    .await;
    let about = "Store::list_channel_ids: the channels of a user";
    compare("list_channel_ids", about, async |store| {
        store.list_channel_ids(&uid("ann")).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn recent_messages() {
    let about = "Store::list_windows: the newest messages of each conversation";
    compare("list_windows", about, async |store| {
        store
            .list_windows(&[window(TEAM), window(NEWS)], 500)
            .await?;
        Ok(())
    })
    .await;
    let about = "Store::list_newest_bounds: where the newest messages begin in spite of gaps";
    compare("list_newest_bounds", about, async |store| {
        let heads = [TEAM, NEWS].map(|channel_id| MessagePosition {
            channel_id: ChannelPk(channel_id),
            seq: Seq(9),
        });
        store.list_newest_bounds(&heads, 20).await?;
        Ok(())
    })
    .await;
    let about = "Store::read_payloads: payloads too long to be read with messages";
    compare("read_payloads", about, async |store| {
        let mut long = PartialMessage {
            message: message(TEAM, 9),
            payload_bytes: 9999,
        };
        store.read_payloads(vec![&mut long]).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn pages_of_messages() {
    let about = "Store::list_page: history from its end, then from its beginning";
    compare("list_page", about, async |store| {
        store.list_page(window(TEAM), 20, true, 500).await?;
        store.list_page(window(TEAM), 20, false, 500).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn messages_by_id() {
    let about = "Store::list_messages: messages by their global ids";
    compare("list_messages", about, async |store| {
        store
            .list_messages(
                &[
                    (ChannelPk(TEAM), MessageId(1)),
                    (ChannelPk(NEWS), MessageId(2)),
                ],
                500,
            )
            .await?;
        Ok(())
    })
    .await;
    let about = "Tx::find_message_ids: messages of a webhook that are stored already";
    compare_in_transaction("find_message_ids", about, async |tx| {
        tx.find_message_ids(&[
            (ChannelPk(TEAM), MessageId(1)),
            (ChannelPk(NEWS), MessageId(2)),
        ])
        .await?;
        Ok(())
    })
    .await;
    let about = "Tx::find_positions: seqs of a webhook that are taken already";
    compare_in_transaction("find_positions", about, async |tx| {
        let positions = [8, 9].map(|seq| MessagePosition {
            channel_id: ChannelPk(TEAM),
            seq: Seq(seq),
        });
        tx.find_positions(&positions).await?;
        Ok(())
    })
    .await;
    let about = "Tx::find_by_client_msg_nos: repeated sends";
    compare_in_transaction("find_by_client_msg_nos", about, async |tx| {
        tx.find_by_client_msg_nos(&[
            (ChannelPk(TEAM), "ann", "c1"),
            (ChannelPk(NEWS), "bob", "c2"),
        ])
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn messages_by_client_number() {
    let about = "Store::find_client_msg_nos: the first message with each client number";
    compare("find_client_msg_nos", about, async |store| {
        store
            .find_client_msg_nos(ChannelPk(TEAM), &["c1", "c2", "c3"])
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn channels() {
    let about = "Store::find_channels: internal ids by key";
    compare("find_channels", about, async |store| {
        store.find_channels(&[&key("team"), &key("news")]).await?;
        Ok(())
    })
    .await;
    let about = "Tx::lock_channels: a send waits; a batch skips what others have locked";
    compare_in_transaction("lock_channels", about, async |tx| {
        tx.lock_channels(&[ChannelPk(TEAM)], LockPolicy::Wait)
            .await?;
        tx.lock_channels(&[ChannelPk(TEAM), ChannelPk(NEWS)], LockPolicy::SkipLocked)
            .await?;
        Ok(())
    })
    .await;
    let about = "Tx::write_heads: one channel, then several";
    compare_in_transaction("write_heads", about, async |tx| {
        tx.write_heads(&[&head(TEAM)]).await?;
        tx.write_heads(&[&head(TEAM), &head(NEWS)]).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn sends() {
    let about = "Tx::insert_messages: one message, then three";
    compare_in_transaction("insert_messages", about, async |tx| {
        tx.insert_messages(&[message(TEAM, 9)]).await?;
        let three = [message(TEAM, 9), message(NEWS, 8), message(NEWS, 9)];
        tx.insert_messages(&three).await?;
        Ok(())
    })
    .await;
    let about = "Tx::write_sender_marks: one sender, then two";
    compare_in_transaction("write_sender_marks", about, async |tx| {
        tx.write_sender_marks(vec![own_message(TEAM, "ann")])
            .await?;
        let two = vec![own_message(TEAM, "ann"), own_message(TEAM, "bob")];
        tx.write_sender_marks(two).await?;
        Ok(())
    })
    .await;
    let about = "Tx: the three statements of a late message";
    compare_in_transaction("late_message", about, async |tx| {
        tx.find_sender_mark(ChannelPk(TEAM), "ann").await?;
        tx.count_red_dots_above(ChannelPk(TEAM), Seq(5), "ann")
            .await?;
        tx.insert_late_message(ChannelPk(TEAM), Revision(9), Seq(5))
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn locks_of_users() {
    let about = "Tx::lock_users: one user waits; a batch skips what others have locked";
    compare_in_transaction("lock_users", about, async |tx| {
        tx.lock_users(&[uid("ann")], LockPolicy::Wait).await?;
        let two = [uid("ann"), uid("bob")];
        tx.lock_users(&two, LockPolicy::SkipLocked).await?;
        Ok(())
    })
    .await;
    let about = "Store::ensure_cursors: the rows that are locked";
    compare("ensure_cursors", about, async |store| {
        store.ensure_cursors(&[uid("ann"), uid("bob")]).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn changes_by_users() {
    let about = "Tx::stamp: a sync gives versions to one stale conversation, then to two";
    compare_in_transaction("stamp", about, async |tx| {
        let ann = uid("ann");
        tx.stamp(vec![(&ann, &row(TEAM))]).await?;
        tx.stamp(vec![(&ann, &row(TEAM)), (&ann, &row(NEWS))])
            .await?;
        Ok(())
    })
    .await;
    let about = "Tx::write_conversations: setUnread, read, delete, pin; then two rows";
    compare_in_transaction("write_conversations", about, async |tx| {
        let (ann, team, news) = (uid("ann"), row(TEAM), row(NEWS));
        let locked = HashMap::new();
        tx.write_conversations(vec![(&ann, &team)], &locked).await?;
        let two = vec![(&ann, &team), (&ann, &news)];
        tx.write_conversations(two, &locked).await?;
        Ok(())
    })
    .await;
    let about = "Store::insert_conversations: both users of a new person channel";
    compare("insert_conversations", about, async |store| {
        let both = [uid("ann"), uid("bob")].map(|uid| (uid, row(TEAM)));
        store.insert_conversations(&both).await?;
        Ok(())
    })
    .await;
}

#[test]
fn every_file_has_a_test() {
    let source = include_str!("sql_snapshots.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/snapshots");
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let name = format!("\"{}\"", file.trim_end_matches(".snap"));
        assert!(source.contains(&name), "no test compares {file}");
    }
}
