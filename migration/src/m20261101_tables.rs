//! The four tables: channel, message, conversation, `user_cursor`.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

use crate::columns::{bytes, flag, integer, optional_text, small, text};

/// Longest id in bytes.
const ID: u32 = 255;
/// Longest channel key in bytes: the length of one uid, a colon, two uids.
const CHANNEL_KEY: u32 = 4 + 2 * ID;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_database_backend();
        for table in [channel(db), message(db), conversation(db), user_cursor(db)] {
            manager.create_table(table).await?;
        }
        for (table, name, index) in indexes() {
            // MySQL knows no CREATE INDEX IF NOT EXISTS.
            if !manager.has_index(table, name).await? {
                manager.create_index(index).await?;
            }
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["user_cursor", "conversation", "message", "channel"] {
            manager.drop_table(Table::drop().table(table).if_exists().to_owned()).await?;
        }
        Ok(())
    }
}

fn channel(db: DbBackend) -> TableCreateStatement {
    Table::create()
        .table("channel")
        .if_not_exists()
        .col(ColumnDef::new("id").big_integer().not_null().primary_key())
        .col(ColumnDef::new("channel_type").small_integer().not_null())
        .col(text("channel_key", CHANNEL_KEY, db))
        .col(integer("last_seq", 0))
        .col(integer("revision", 0))
        .col(integer("red_dots", 0))
        .col(integer("last_message_at", 0))
        .col(integer("flags", 0))
        .to_owned()
}

fn message(db: DbBackend) -> TableCreateStatement {
    clustered(
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
            .col(bytes("payload", db))
            .primary_key(Index::create().col("channel_id").col("seq")),
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
            .col(integer("read_mark", 0))
            .col(integer("deleted_to_seq", 0))
            .col(integer("joined_seq", 0))
            .col(integer("left_seq", 0))
            .col(small("state", 0))
            .col(integer("version", 0))
            .col(integer("stamped_revision", -1))
            .col(integer("pinned_at", 0))
            .col(flag("muted"))
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

/// On SQLite a table is its primary key's B-tree, as on InnoDB: ranges of a user or a channel lie together.
fn clustered(table: &mut TableCreateStatement, db: DbBackend) -> TableCreateStatement {
    if db == DbBackend::Sqlite {
        table.extra("WITHOUT ROWID");
    }
    table.to_owned()
}

/// Table, name and statement of each index.
fn indexes() -> [(&'static str, &'static str, IndexCreateStatement); 4] {
    let index = |table: &'static str, name: &'static str, columns: &[&'static str]| {
        let mut index = Index::create();
        index.name(name).table(table);
        for column in columns {
            index.col(*column);
        }
        (table, name, index)
    };
    let unique = |(table, name, mut index): (&'static str, &'static str, IndexCreateStatement)| {
        index.unique();
        (table, name, index)
    };
    [
        // A channel by what its users call it.
        unique(index("channel", "channel_type_key", &["channel_type", "channel_key"])),
        // A webhook's message by its global id.
        unique(index("message", "message_message_id", &["message_id"])),
        // A repeated send by its sender's key. Not unique: WuKongIM itself stores such repeats under two seqs.
        index("message", "message_client_msg_no", &["channel_id", "client_msg_no"]),
        // The members of a channel, and for late messages those who deleted or joined above them.
        index("conversation", "conversation_channel", &["channel_id"]),
    ]
}
