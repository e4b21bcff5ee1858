//! The initial tables. `channel`, `message`, `sender_mark`, `late_message` and `pending_removal`
//! belong to channels, `conversation` and `user_cursor` to users: no transaction writes to both
//! kinds.

use sea_orm::sea_query::{ColumnDef, Index, IndexCreateStatement, Table, TableCreateStatement};
use sea_orm::{DbBackend, Statement};

use crate::columns::{bytes, flag, integer, optional_bytes, optional_text, small, text};

/// Maximum length of an id in bytes.
const ID: u32 = 255;
/// Maximum length of a channel key in bytes: the length of one uid, a colon, two uids.
const CHANNEL_KEY: u32 = 4 + 2 * ID;

pub(crate) fn up(db: DbBackend) -> Vec<Statement> {
    let mut statements = Vec::new();
    for (mut table, indexes) in [
        (
            channel(db),
            // Lists the channels whose messages have not all arrived.
            vec![index("channel", "channel_gaps_since", &["gaps_since"])],
        ),
        (
            message(db),
            vec![
                // Finds a webhook's message by its global id.
                index(
                    "message",
                    "message_message_id",
                    &["channel_id", "message_id"],
                )
                .unique()
                .to_owned(),
                // Finds a repeated send by its sender's key. Not unique: WuKongIM itself stores
                // such repeats under two seqs.
                index(
                    "message",
                    "message_client_msg_no",
                    &["channel_id", "client_msg_no"],
                ),
            ],
        ),
        (sender_mark(db), Vec::new()),
        (late_message(db), Vec::new()),
        (pending_removal(db), Vec::new()),
        // Lists the members of a channel in order.
        (
            conversation(db),
            vec![index(
                "conversation",
                "conversation_channel",
                &["channel_id", "uid"],
            )],
        ),
        (user_cursor(db), Vec::new()),
        (import_progress(db), Vec::new()),
        (feeder(), Vec::new()),
    ] {
        if db == DbBackend::MySql {
            // MySQL has no CREATE INDEX IF NOT EXISTS: there an index is part of its table.
            for mut index in indexes {
                table.index(&mut index);
            }
            statements.push(db.build(&table));
        } else {
            statements.push(db.build(&table));
            statements.extend(
                indexes
                    .into_iter()
                    .map(|mut index| db.build(index.if_not_exists())),
            );
        }
    }
    statements
}

pub(crate) fn down(db: DbBackend) -> Vec<Statement> {
    [
        "feeder",
        "import_progress",
        "user_cursor",
        "conversation",
        "pending_removal",
        "late_message",
        "sender_mark",
        "message",
        "channel",
    ]
    .map(|table| db.build(Table::drop().table(table).if_exists()))
    .into()
}

fn index(
    table: &'static str,
    name: &'static str,
    columns: &[&'static str],
) -> IndexCreateStatement {
    let mut index = Index::create().name(name).table(table).to_owned();
    for column in columns {
        index.col(*column);
    }
    index
}

fn channel(db: DbBackend) -> TableCreateStatement {
    Table::create()
        .table("channel")
        .if_not_exists()
        // Derived from the type and the key, so that the primary key is the only unique constraint.
        .col(ColumnDef::new("id").big_integer().not_null().primary_key())
        .col(ColumnDef::new("channel_type").small_integer().not_null())
        .col(text("channel_key", CHANNEL_KEY, db))
        .col(integer("last_seq", 0))
        .col(integer("revision", 0))
        .col(integer("red_dots", 0))
        .col(integer("last_message_at", 0))
        .col(integer("late_revision", 0))
        .col(integer("flags", 0))
        .col(integer("cleared_to_seq", 0))
        .col(integer("cleared_at", 0))
        .col(integer("complete_to_seq", 0))
        .col(integer("missing", 0))
        .col(integer("begins_at_seq", 0))
        .col(integer("gaps_since", 0))
        .col(integer("removals", 0))
        .col(integer("cleared_removals", 0))
        .col(integer("cleared_revision", 0))
        .col(integer("cleared_seq", 0))
        .to_owned()
}

fn message(db: DbBackend) -> TableCreateStatement {
    // Not clustered on SQLite: a read of any column of a row without a rowid reads the whole
    // payload.
    Table::create()
        .table("message")
        .if_not_exists()
        .col(ColumnDef::new("channel_id").big_integer().not_null())
        .col(ColumnDef::new("seq").big_integer().not_null())
        .col(ColumnDef::new("message_id").big_integer().not_null())
        .col(optional_text("client_msg_no", ID, db))
        .col(text("from_uid", ID, db))
        .col(integer("sent_at", 0))
        .col(flag("red_dot"))
        .col(small("setting", 0))
        .col(optional_text("topic", ID, db))
        .col(integer("expire", 0))
        .col(optional_text("stream_no", ID, db))
        .col(integer("stream_seq", 0))
        .col(small("stream_flag", 0))
        .col(optional_bytes("stream_state", db))
        .col(bytes("payload", db))
        .primary_key(Index::create().col("channel_id").col("seq"))
        .to_owned()
}

fn sender_mark(db: DbBackend) -> TableCreateStatement {
    clustered(
        Table::create()
            .table("sender_mark")
            .if_not_exists()
            .col(ColumnDef::new("channel_id").big_integer().not_null())
            .col(text("uid", ID, db))
            .col(integer("seq", 0))
            .col(integer("red_dots", 0))
            .col(integer("revision", 0))
            .primary_key(Index::create().col("channel_id").col("uid")),
        db,
    )
}

fn late_message(db: DbBackend) -> TableCreateStatement {
    clustered(
        Table::create()
            .table("late_message")
            .if_not_exists()
            .col(ColumnDef::new("channel_id").big_integer().not_null())
            .col(ColumnDef::new("revision").big_integer().not_null())
            .col(ColumnDef::new("seq").big_integer().not_null())
            .primary_key(Index::create().col("channel_id").col("revision")),
        db,
    )
}

fn pending_removal(db: DbBackend) -> TableCreateStatement {
    clustered(
        Table::create()
            .table("pending_removal")
            .if_not_exists()
            .col(ColumnDef::new("channel_id").big_integer().not_null())
            .col(ColumnDef::new("number").big_integer().not_null())
            .col(ColumnDef::new("part").big_integer().not_null())
            .col(integer("removed_at", 0))
            .col(bytes("uids", db))
            .col(integer("claimed_until", 0))
            .primary_key(Index::create().col("channel_id").col("number").col("part")),
        db,
    )
}

fn conversation(db: DbBackend) -> TableCreateStatement {
    clustered(
        Table::create()
            .table("conversation")
            .if_not_exists()
            .col(text("uid", ID, db))
            .col(ColumnDef::new("channel_id").big_integer().not_null())
            .col(integer("read_seq", 0))
            .col(integer("read_mark", 0))
            .col(integer("marked_revision", 0))
            .col(integer("marked_seq", 0))
            .col(integer("deleted_to_seq", 0))
            .col(integer("joined_seq", 0))
            .col(integer("left_seq", 0))
            .col(integer("left_at", 0))
            .col(small("membership", 0))
            .col(integer("joined_removals", 0))
            .col(integer("version", 0))
            .col(integer("stamped_revision", -1))
            .col(integer("pinned_at", 0))
            .col(flag("muted"))
            .col(integer("activated_at", 0))
            .primary_key(Index::create().col("uid").col("channel_id")),
        db,
    )
}

fn user_cursor(db: DbBackend) -> TableCreateStatement {
    clustered(
        Table::create()
            .table("user_cursor")
            .if_not_exists()
            .col(text("uid", ID, db).primary_key().to_owned())
            .col(integer("version", 0)),
        db,
    )
}

/// Clusters the table by its primary key: on SQLite it becomes a B-tree of the key, as on InnoDB,
/// so ranges of a user or a channel are stored together.
fn clustered(table: &mut TableCreateStatement, db: DbBackend) -> TableCreateStatement {
    if db == DbBackend::Sqlite {
        table.extra("WITHOUT ROWID");
    }
    table.to_owned()
}

fn import_progress(db: DbBackend) -> TableCreateStatement {
    let recording = text("recording", 64, db).primary_key().to_owned();
    Table::create()
        .table("import_progress")
        .if_not_exists()
        .col(recording)
        .col(integer("lines", 0))
        .to_owned()
}

fn feeder() -> TableCreateStatement {
    Table::create()
        .table("feeder")
        .if_not_exists()
        .col(ColumnDef::new("id").big_integer().not_null().primary_key())
        .col(integer("began_at", 0))
        .col(integer("search_requests", 0))
        .col(integer("answered_requests", 0))
        .col(integer("searched_at", 0))
        .col(integer("claimed_until", 0))
        .to_owned()
}
