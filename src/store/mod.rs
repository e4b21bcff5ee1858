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
mod files;
mod finish_on_drop;
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
mod sender_marks;
#[cfg(test)]
mod sql_snapshots;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use sea_orm::sea_query::{InsertStatement, LockBehavior, LockType, SelectStatement};
use sea_orm::{DbBackend, QueryResult, StatementBuilder};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use self::conversations::ChangedConversations;
pub(crate) use self::conversations::{CountRequest, MemberView};
pub use self::error::StoreError;
pub use self::messages::{MessagePosition, SeqRange};
pub(crate) use self::messages::{PartialMessage, StoredMessage};
pub use self::migrate::MigrationStatus;
use self::open_transaction::OpenTransaction;
pub(crate) use self::pending_removals::PendingRemoval;
use self::pool::Pool;
pub(crate) use self::sender_marks::OwnMessage;
use crate::config::DatabaseConfig;
use crate::model::{ChannelKey, ChannelPk};
use crate::telemetry::text_with_sources;

/// How many times a transaction is tried before the caller gets a conflict error.
const MAX_ATTEMPTS: u32 = 20;
/// Statements that follow BEGIN on a Galera node. MariaDB (10.11) may roll a transaction back in
/// favour of another node's transaction while it prepares a statement, and reports no error: the
/// following statements succeed. With autocommit off such statements are not committed one by one,
/// and the savepoint shows whether the transaction is still the one that was begun.
const BEGIN_MARKER: &str = "SET autocommit = 0; SAVEPOINT begun";
/// Statement that precedes COMMIT on a Galera node. It fails if the transaction was replaced.
const VERIFY_MARKER: &str = "RELEASE SAVEPOINT begun";
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
    /// Whether the database is a Galera cluster, whose nodes do not see each other's row locks.
    is_galera: Arc<AtomicBool>,
    /// Whether the database supports `SKIP LOCKED`.
    supports_skip_locked: Arc<AtomicBool>,
    lock_wait_permits: Arc<Semaphore>,
    /// Maximum number of connections.
    connections: u32,
    /// Internal ids of existing channels. The id of a channel never changes.
    channel_ids: Cache<ChannelKey, ChannelPk>,
    health: Arc<health::Health>,
}

/// An open transaction. It is rolled back if it is dropped without [`Tx::commit`].
#[derive(Debug)]
pub struct Tx {
    inner: OpenTransaction,
    is_galera: bool,
    files: Option<Arc<files::Files>>,
    supports_skip_locked: Arc<AtomicBool>,
}

/// How to treat rows that another transaction has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LockPolicy {
    /// Waits for the lock.
    Wait,
    /// Leaves out locked rows.
    SkipLocked,
}

impl Tx {
    fn backend(&self) -> DbBackend {
        self.inner.backend()
    }

    /// Returns the rows of `select` after locking them. Databases without `SKIP LOCKED` (`TiDB`;
    /// `MariaDB` before 10.6) wait for locked rows.
    async fn lock(
        &self,
        mut select: SelectStatement,
        lock_policy: LockPolicy,
    ) -> Result<Vec<QueryResult>, StoreError> {
        if lock_policy == LockPolicy::Wait || !self.supports_skip_locked.load(Ordering::Relaxed) {
            return Ok(self.inner.query_all(select.lock(LockType::Update)).await?);
        }
        let skipping = select.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let rows = self
            .inner
            .query_all(skipping)
            .await
            .map_err(StoreError::from);
        if let Err(StoreError::Internal(cause)) = rows {
            self.supports_skip_locked.store(false, Ordering::Relaxed);
            tracing::warn!(
                reason = cause.text(),
                "the database does not support SKIP LOCKED: batches wait for locked rows"
            );
            return Err(StoreError::Conflict(cause));
        }
        rows
    }

    /// Commits and returns `result`, so that a caller has no result before the commit.
    ///
    /// # Errors
    /// Any database error. After [`StoreError::ConnectionLost`] it is not known whether the
    /// transaction was committed.
    pub async fn commit<T>(self, result: T) -> Result<T, StoreError> {
        if self.is_galera {
            self.inner
                .execute_unprepared(VERIFY_MARKER)
                .await
                .map_err(StoreError::from)?;
        }
        self.inner
            .commit()
            .await
            .map_err(|error| StoreError::from_commit_error(&error))?;
        if let Some(files) = self.files {
            files.check()?;
        }
        Ok(result)
    }
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

    /// Permits for transactions that may wait for row locks at the same time: half of the
    /// connections, so that the other half always makes progress.
    pub(crate) fn lock_wait_permits(&self) -> &Arc<Semaphore> {
        &self.lock_wait_permits
    }

    /// Waits for a permit of [`Store::lock_wait_permits`].
    pub(crate) async fn acquire_lock_wait_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.lock_wait_permits.acquire().await.ok()
    }

    /// Runs [`Store::transaction`] for `work` that waits for row locks and is not part of a batch.
    pub(crate) async fn lock_waiting_transaction<T, Work>(
        &self,
        work: impl FnMut(Tx) -> Work,
    ) -> Result<T, StoreError>
    where
        Work: Future<Output = Result<T, StoreError>>,
    {
        let _permit = self.acquire_lock_wait_permit().await;
        self.transaction(work).await
    }

    /// Number of concurrent write transactions that improves throughput.
    pub(crate) fn write_shards(&self) -> u64 {
        match self.backend() {
            DbBackend::Sqlite => 1,
            _ => u64::from(self.connections / 2).clamp(1, 2),
        }
    }

    /// Runs `work` in a transaction. After a deadlock or a serialization failure it starts again
    /// from the beginning.
    ///
    /// # Errors
    /// The error of `work`.
    pub(crate) async fn transaction<T, Work>(
        &self,
        mut work: impl FnMut(Tx) -> Work,
    ) -> Result<T, StoreError>
    where
        Work: Future<Output = Result<T, StoreError>>,
    {
        let guard = self.health.start();
        let mut attempt = 0;
        loop {
            let result = match self.begin().await {
                Ok(tx) => work(tx).await,
                Err(error) => Err(error),
            };
            match &result {
                Err(error) if should_retry(error, &mut attempt).await => {}
                _ => {
                    guard.record(&result);
                    return result;
                }
            }
        }
    }

    /// Begins a transaction. A restarted database leaves dead connections in the pool; nothing has
    /// been done on such a connection yet, so the next one is tried.
    async fn begin(&self) -> Result<Tx, StoreError> {
        let mut attempt = 0;
        loop {
            match self.begin_once().await {
                Err(StoreError::ConnectionLost(_)) if attempt < self.connections => attempt += 1,
                result => return result,
            }
        }
    }

    async fn begin_once(&self) -> Result<Tx, StoreError> {
        if let Some(files) = &self.files {
            files.check()?;
        }
        let inner = self.write.begin(self.preamble.clone()).await?;
        let is_galera = self.is_galera.load(Ordering::Relaxed);
        if is_galera {
            inner.execute_unprepared(BEGIN_MARKER).await?;
        }
        Ok(Tx {
            inner,
            is_galera,
            files: self.files.clone(),
            supports_skip_locked: Arc::clone(&self.supports_skip_locked),
        })
    }

    /// Reads outside of a caller's transaction: one statement, one snapshot. If the connection
    /// breaks, another connection runs the statement.
    async fn query_all(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        let (mut attempt, mut broken) = (0, 0);
        loop {
            match self.read_once(statement).await {
                Err(StoreError::ConnectionLost(_)) if broken < self.connections => broken += 1,
                Err(error) if should_retry(&error, &mut attempt).await => {}
                Err(error @ StoreError::Damaged(_)) => {
                    self.health.record_damage(&error);
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    async fn read_once(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        if self.preamble.is_none() {
            return self
                .read
                .query_all(StatementBuilder::build(statement, &self.backend()))
                .await;
        }
        let tx = self.begin_once().await?;
        let rows = tx.inner.query_all(statement).await?;
        tx.commit(rows).await
    }

    /// Returns the first row, if any.
    async fn query_one(
        &self,
        statement: &SelectStatement,
    ) -> Result<Option<QueryResult>, StoreError> {
        Ok(self.query_all(statement).await?.into_iter().next())
    }

    /// Runs one insert statement in a transaction.
    async fn insert(&self, statement: &InsertStatement) -> Result<(), StoreError> {
        self.transaction(|tx| async move {
            tx.inner
                .execute(statement)
                .await
                .map_err(StoreError::from)?;
            tx.commit(()).await
        })
        .await
    }

    /// Closes all connections.
    pub async fn close(&self) {
        for pool in [&self.read, &self.write] {
            pool.close().await;
        }
    }
}

/// Runs queries outside of a transaction (`Store`) or inside of one (`Tx`).
trait RunQuery: Sync {
    fn backend(&self) -> DbBackend;
    fn run_query(
        &self,
        statement: &SelectStatement,
    ) -> impl Future<Output = Result<Vec<QueryResult>, StoreError>> + Send;
}

impl RunQuery for Store {
    fn backend(&self) -> DbBackend {
        self.backend()
    }

    async fn run_query(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        self.query_all(statement).await
    }
}

impl RunQuery for Tx {
    fn backend(&self) -> DbBackend {
        self.backend()
    }

    async fn run_query(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        Ok(self.inner.query_all(statement).await?)
    }
}

/// Returns whether to retry after a deadlock or serialization failure, sleeping first.
async fn should_retry(error: &StoreError, attempt: &mut u32) -> bool {
    *attempt += 1;
    if !error.is_retryable() || *attempt >= MAX_ATTEMPTS {
        return false;
    }
    metrics::counter!(crate::metrics::TRANSACTIONS_RETRIED_TOTAL).increment(1);
    tracing::debug!(error = %text_with_sources(error), attempt, "retrying a transaction");
    // The pause grows, so that the same two transactions do not collide again. No randomness is
    // needed: they wake up in the order in which they were rolled back.
    tokio::time::sleep(Duration::from_millis(
        u64::from(*attempt * *attempt).min(100),
    ))
    .await;
    true
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
