//! Database access. This is the only module that knows sea-orm and SQL.
//!
//! Reads need no transaction: every use case reads in one statement the data that must be
//! consistent. Writes run in `Store::transaction`, which starts again after a deadlock or a
//! serialization failure.
//!
//! No transaction writes both to channels and to users. Messages lock their channel and write
//! `channel`, `message`, `sender_mark` and `late_message` (bulk removals also write
//! `pending_removal`). Changes by users lock `user_cursor`, write `conversation`, and read heads
//! without a lock. A transaction that needs several locks takes them in key order.
//!
//! How to add a query:
//! 1. Add a method to `Store` (outside of transactions) or `Tx` (inside) next to its table:
//!    `channels`, `conversations`, `messages`, `cursors`. Build the statement with sea-query, so
//!    that every engine gets its own dialect.
//! 2. If the query is on the hot path, add a line to that file's `hot_statements`;
//!    `tests/it/storage/query_plans.rs` checks its plan on every engine.

mod bulk;
mod channels;
mod connect;
mod conversations;
mod cursors;
mod error;
mod feeder;
mod files;
mod finish_on_drop;
mod gaps;
mod health;
mod imports;
mod messages;
mod migrate;
mod numbers;
mod open_transaction;
mod options;
mod pending_removals;
mod pool;
#[cfg(test)]
mod round_trips;
mod run_query;
mod sender_marks;
#[cfg(test)]
mod sql_snapshots;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use moka::sync::Cache;
use sea_orm::DbBackend;
use tokio::sync::Semaphore;

pub use self::conversations::ChangedConversations;
pub(crate) use self::conversations::{CountRequest, MemberView};
pub use self::error::StoreError;
pub(crate) use self::feeder::Feeder;
pub use self::gaps::MissingMessages;
pub(crate) use self::gaps::StoredPlace;
pub(crate) use self::messages::{FindMessages, MessageRow, PartialMessage};
pub use self::messages::{MessagePosition, SeqRange};
pub use self::migrate::MigrationStatus;
pub(crate) use self::pending_removals::PendingRemoval;
use self::pool::Pool;
use self::run_query::RunQuery;
pub(crate) use self::sender_marks::OwnMessage;
pub(crate) use self::transaction::LockPolicy;
use self::transaction::MAX_ATTEMPTS;
pub use self::transaction::Tx;
use crate::config::DatabaseConfig;
use crate::model::{ChannelKey, ChannelPk};

/// Maximum number of rows in one multi-row statement: below every engine's limit on parameters.
const ROWS_PER_STATEMENT: usize = 1024;
/// Maximum number of channels in the cache of channel ids: about 20 MB.
const KNOWN_CHANNELS: u64 = 100_000;

/// A database and its connection pools.
#[derive(Clone, Debug)]
pub struct Store {
    /// Runs statements outside of transactions. On SQLite its connections are read-only.
    read: Pool,
    /// Runs transactions. On SQLite it has one connection, because SQLite allows one writer.
    write: Pool,
    /// SQLite's files, to detect that they were removed or replaced: writes to a removed file are
    /// lost.
    files: Option<Arc<files::Files>>,
    /// The first statement of every transaction with `database.transaction_pooler`: a pooler shares
    /// its connections, so session settings are not possible. Reads then run in transactions, too.
    preamble: Option<Arc<str>>,
    /// True if the database is a Galera cluster, whose nodes do not see each other's row locks.
    is_galera: Arc<AtomicBool>,
    /// True if the database supports `SKIP LOCKED`.
    supports_skip_locked: Arc<AtomicBool>,
    lock_wait_permits: Arc<Semaphore>,
    /// Maximum number of connections.
    connections: u32,
    /// Internal ids of existing channels. The id of a channel never changes.
    channel_ids: Cache<ChannelKey, ChannelPk>,
    health: Arc<health::Health>,
}

impl Store {
    /// Creates the connection pools. Connections are made lazily: the first statement shows whether
    /// the database can be reached.
    ///
    /// # Errors
    /// An invalid URL.
    pub async fn connect(settings: &DatabaseConfig) -> Result<Self, StoreError> {
        connect::connect(settings).await
    }

    fn from_pools(read: Pool, write: Pool, connections: u32) -> Self {
        Self {
            read,
            write,
            files: None,
            preamble: None,
            is_galera: Arc::default(),
            supports_skip_locked: Arc::new(AtomicBool::new(true)),
            lock_wait_permits: Arc::new(Semaphore::new((connections as usize / 2).max(1))),
            connections,
            channel_ids: Cache::new(KNOWN_CHANNELS),
            health: Arc::default(),
        }
    }

    fn backend(&self) -> DbBackend {
        self.write.backend()
    }

    /// Waits up to `seconds` until the database can be reached. Returns at once if the database
    /// refuses the connection permanently.
    ///
    /// # Errors
    /// The address and the reason.
    pub async fn wait_until_reachable(&self, seconds: u64) -> Result<(), StoreError> {
        self.write
            .wait_for_server(Duration::from_secs(seconds))
            .await
    }

    /// Returns (allowed, configured) numbers of connections if the database allows fewer
    /// connections than configured.
    #[must_use]
    pub fn reduced_connections(&self) -> Option<(u32, u32)> {
        self.write.reduced_limit()
    }

    /// Closes all connections.
    pub async fn close(&self) {
        for pool in [&self.read, &self.write] {
            pool.close().await;
        }
    }
}

/// Statements of the hot path as text, each with the tables that its plan must not scan. For tests
/// that check the plans of the engines.
#[doc(hidden)]
#[must_use]
pub fn hot_statements(
    backend: sea_orm::DbBackend,
    uid: &str,
    channel_id: i64,
    small_channel_id: i64,
) -> Vec<(&'static str, String, &'static [&'static str])> {
    let statements = conversations::hot_statements(backend, uid, ChannelPk(small_channel_id))
        .into_iter()
        .chain(messages::hot_statements(backend, ChannelPk(channel_id)));
    let text = |statement: sea_orm::sea_query::SelectStatement| {
        sea_orm::StatementBuilder::build(&statement, &backend).to_string()
    };
    statements
        .map(|(name, statement, tables)| (name, text(statement), tables))
        .collect()
}
