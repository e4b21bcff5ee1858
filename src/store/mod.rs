//! The only place that knows sea-orm and SQL.
//!
//! Reading needs no transaction: every use case reads what belongs together in one statement.
//! Writing happens in `Store::transaction`, which begins again when the database says so (deadlock,
//! serialization failure).
//!
//! No transaction writes to both sides: messages lock their channel and write `channel`, `message`,
//! `sender_mark` and `late_message` (removals of many, `pending_removal`); users' changes lock
//! `user_cursor` and write `conversation`, and read heads without a lock. Several locks are taken
//! by key order.
//!
//! How to add a query:
//! 1. A method of `Store` (outside of transactions) or `Tx` (inside) beside its table: `channels`,
//!    `conversations`, `messages`, `cursors`. sea-query builds it, so that every engine gets its
//!    own dialect.
//! 2. When it is on the hot path: a line in that file's `hot_statements`; `tests/statements.rs`
//!    asks every engine for its plan.

mod channels;
mod connect;
mod conversations;
mod cursors;
mod error;
mod files;
mod health;
mod imports;
mod messages;
mod migrate;
mod options;
mod pool;
mod removals;
mod rows;
mod sender_marks;
mod uncancelled;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use sea_orm::sea_query::{InsertStatement, LockBehavior, LockType, SelectStatement};
use sea_orm::{DbBackend, QueryResult, StatementBuilder};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use self::channels::{Head, HeadState};
pub use self::conversations::{Changed, ConversationRow, Counts, Membership, SenderMark};
pub(crate) use self::conversations::{Counted, View};
pub use self::error::StoreError;
pub(crate) use self::messages::Measured;
pub use self::messages::{Position, Window};
pub use self::migrate::MigrationStatus;
use self::pool::{Open, Pool};
pub(crate) use self::removals::PendingRemoval;
pub(crate) use self::sender_marks::OwnMessage;
use crate::channel::ChannelKey;
use crate::config::Database;
use crate::error::Error;

/// How often a transaction is begun again before the caller is told that it is too busy.
const ATTEMPTS: u32 = 20;
/// What follows BEGIN on a node of a cluster. MariaDB (10.11) may roll a transaction back for the
/// sake of another node's while it prepares a statement of it, and says nothing of it: the
/// statements after that one succeed. So nothing is committed by itself, and the savepoint tells
/// whether it is the transaction that was begun.
const MARK_BEGINNING: &str = "SET autocommit = 0; SAVEPOINT begun";
/// What comes before COMMIT then: it fails when the transaction is another one.
const CHECK_BEGINNING: &str = "RELEASE SAVEPOINT begun";
/// Rows of one multi-row statement at most: below every engine's limit on parameters.
const ROWS_PER_STATEMENT: usize = 1024;

/// Channels whose ids are remembered: about 20 MB.
const KNOWN_CHANNELS: u64 = 100_000;

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    /// For statements outside of transactions. SQLite: connections that only read.
    read: Pool,
    /// For transactions. SQLite: one connection, because there is one writer.
    write: Pool,
    /// SQLite's files: what is written into one that was removed is gone.
    files: Option<Arc<files::Files>>,
    /// What begins every transaction, where nothing can be set on connections because a pooler
    /// shares them out (`database.transaction_pooler`). Reads are transactions then, too.
    preamble: Option<Arc<str>>,
    /// Whether the database is a cluster whose nodes do not see each other's row locks.
    optimistic: Arc<AtomicBool>,
    /// Whether the database can leave out rows that others hold.
    skips: Arc<AtomicBool>,
    waiters: Arc<Semaphore>,
    /// How many connections there are at most.
    connections: u32,
    /// Internal ids of channels that are there. A channel keeps its id for good.
    channel_ids: Cache<ChannelKey, i64>,
    health: Arc<health::Health>,
}

/// An open transaction. Dropped without [`Tx::commit`], it is rolled back.
#[derive(Debug)]
pub struct Tx {
    open: Open,
    optimistic: bool,
    files: Option<Arc<files::Files>>,
    skips: Arc<AtomicBool>,
}

/// What to do about a row that somebody else has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Locks {
    /// Wait for it.
    Wait,
    /// Go on without it.
    Skip,
}

impl Tx {
    fn backend(&self) -> DbBackend {
        self.open.backend()
    }

    /// The rows of `select`, locked. A database that cannot leave out what others hold (`TiDB`;
    /// `MariaDB` before 10.6) waits for it.
    async fn lock(
        &self,
        mut select: SelectStatement,
        locks: Locks,
    ) -> Result<Vec<QueryResult>, StoreError> {
        if locks == Locks::Wait || !self.skips.load(Ordering::Relaxed) {
            return Ok(self.open.query_all(select.lock(LockType::Update)).await?);
        }
        let skipping = select.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let rows = self
            .open
            .query_all(skipping)
            .await
            .map_err(StoreError::from);
        if let Err(StoreError::Broken(text)) = rows {
            self.skips.store(false, Ordering::Relaxed);
            tracing::warn!(
                reason = text,
                "the database cannot leave out locked rows: requests that are done together wait for them"
            );
            return Err(StoreError::Contended(text));
        }
        rows
    }

    /// Commits; only then is there a result to answer with.
    ///
    /// # Errors
    /// What the database says. [`StoreError::Lost`]: whether it was committed is not known.
    pub async fn commit<T, E: From<StoreError>>(self, result: T) -> Result<T, E> {
        if self.optimistic {
            self.open
                .execute_unprepared(CHECK_BEGINNING)
                .await
                .map_err(StoreError::from)?;
        }
        self.open
            .commit()
            .await
            .map_err(|error| StoreError::of_commit(&error))?;
        if let Some(files) = self.files {
            files.check()?;
        }
        Ok(result)
    }
}

impl Store {
    /// Connects, lazily: the first statement tells whether the database is there.
    ///
    /// # Errors
    /// A URL that is none.
    pub async fn connect(settings: &Database) -> Result<Self, StoreError> {
        connect::connect(settings).await
    }

    fn over(read: Pool, write: Pool, connections: u32) -> Self {
        Self {
            read,
            write,
            files: None,
            preamble: None,
            optimistic: Arc::default(),
            skips: Arc::new(AtomicBool::new(true)),
            waiters: Arc::new(Semaphore::new((connections as usize / 2).max(1))),
            connections,
            channel_ids: Cache::new(KNOWN_CHANNELS),
            health: Arc::default(),
        }
    }

    fn backend(&self) -> DbBackend {
        self.write.backend()
    }

    /// Waits until the database can be reached, for so long at most; a database that refuses us for
    /// good is not waited for.
    ///
    /// # Errors
    /// Where it is, and the reason.
    pub async fn wait(&self, seconds: u64) -> Result<(), StoreError> {
        self.write
            .wait_for_server(Duration::from_secs(seconds))
            .await
    }

    /// How many connections the database allows, and how many it should, where it allows fewer.
    #[must_use]
    pub fn limited_connections(&self) -> Option<(u32, u32)> {
        self.write.limited()
    }

    /// A place for each transaction that may wait at once for rows that others hold: half of the
    /// connections always go on.
    pub(crate) fn waiters(&self) -> &Arc<Semaphore> {
        &self.waiters
    }

    /// One of these places.
    pub(crate) async fn may_wait(&self) -> Option<SemaphorePermit<'_>> {
        self.waiters.acquire().await.ok()
    }

    /// As [`Store::transaction`], where `work` waits for rows that others hold, and is not done
    /// together with others.
    pub(crate) async fn waiting_transaction<T, Work>(
        &self,
        work: impl FnMut(Tx) -> Work,
    ) -> Result<T, Error>
    where
        Work: Future<Output = Result<T, Error>>,
    {
        let _place = self.may_wait().await;
        self.transaction(work).await
    }

    /// How many transactions that write are worth having at once.
    pub(crate) fn writers(&self) -> u64 {
        match self.backend() {
            DbBackend::Sqlite => 1,
            _ => u64::from(self.connections / 2).clamp(1, 2),
        }
    }

    /// Does `work` in a transaction, again from its beginning when the database rolled it back for
    /// the sake of another.
    ///
    /// # Errors
    /// What `work` fails with.
    pub(crate) async fn transaction<T, Work>(
        &self,
        mut work: impl FnMut(Tx) -> Work,
    ) -> Result<T, Error>
    where
        Work: Future<Output = Result<T, Error>>,
    {
        let running = self.health.run();
        let mut attempt = 0;
        loop {
            let result = match self.begin().await {
                Ok(tx) => work(tx).await,
                Err(error) => Err(error.into()),
            };
            match &result {
                Err(Error::Store(error)) if begins_again(error, &mut attempt).await => {}
                _ => {
                    running.heed(&result);
                    return result;
                }
            }
        }
    }

    /// Begins a transaction. A restarted database leaves dead connections in the pool, and nothing
    /// has been done on one yet: then the next connection is tried.
    async fn begin(&self) -> Result<Tx, StoreError> {
        let mut attempt = 0;
        loop {
            match self.begin_once().await {
                Err(StoreError::Lost(_)) if attempt < self.connections => attempt += 1,
                result => return result,
            }
        }
    }

    async fn begin_once(&self) -> Result<Tx, StoreError> {
        if let Some(files) = &self.files {
            files.check()?;
        }
        let open = self.write.begin(self.preamble.clone()).await?;
        let optimistic = self.optimistic.load(Ordering::Relaxed);
        if optimistic {
            open.execute_unprepared(MARK_BEGINNING).await?;
        }
        Ok(Tx {
            open,
            optimistic,
            files: self.files.clone(),
            skips: Arc::clone(&self.skips),
        })
    }

    /// Reads outside of a transaction of its caller's: one statement, one moment. Where the
    /// connection breaks, another one reads.
    async fn query_all(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        let (mut attempt, mut broken) = (0, 0);
        loop {
            match self.read_once(statement).await {
                Err(StoreError::Lost(_)) if broken < self.connections => broken += 1,
                Err(error) if begins_again(&error, &mut attempt).await => {}
                Err(error @ StoreError::Damaged(_)) => {
                    self.health.damaged(&error);
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
        let rows = tx.open.query_all(statement).await?;
        tx.commit(rows).await
    }

    /// Reads at most one row.
    async fn query_one(
        &self,
        statement: &SelectStatement,
    ) -> Result<Option<QueryResult>, StoreError> {
        Ok(self.query_all(statement).await?.into_iter().next())
    }

    /// One statement that inserts, again when the database says so.
    async fn insert(&self, statement: &InsertStatement) -> Result<(), Error> {
        self.transaction(|tx| async move {
            tx.open.execute(statement).await.map_err(StoreError::from)?;
            tx.commit(()).await
        })
        .await
    }

    /// Closes the connections.
    pub async fn close(&self) {
        for pool in [&self.read, &self.write] {
            pool.close().await;
        }
    }
}

/// Where statements can be asked: outside of a transaction, or in one.
trait Ask: Sync {
    fn backend(&self) -> DbBackend;
    fn ask(
        &self,
        statement: &SelectStatement,
    ) -> impl Future<Output = Result<Vec<QueryResult>, StoreError>> + Send;
}

impl Ask for Store {
    fn backend(&self) -> DbBackend {
        self.backend()
    }

    async fn ask(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        self.query_all(statement).await
    }
}

impl Ask for Tx {
    fn backend(&self) -> DbBackend {
        self.backend()
    }

    async fn ask(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        Ok(self.open.query_all(statement).await?)
    }
}

/// Whether what failed is to be begun again, after a pause: the database rolled it back for the
/// sake of another.
async fn begins_again(error: &StoreError, attempt: &mut u32) -> bool {
    *attempt += 1;
    if !error.is_retryable() || *attempt >= ATTEMPTS {
        return false;
    }
    metrics::counter!("recents_transactions_retried_total").increment(1);
    tracing::debug!(error = %error, attempt, "a transaction begins again");
    // A little longer each time, so that the same two do not meet again; no need for randomness:
    // they wake in the order in which they were rolled back.
    tokio::time::sleep(Duration::from_millis(
        u64::from(*attempt * *attempt).min(100),
    ))
    .await;
    true
}

/// The statements of the hot path as text, each with the tables that its plan must never read as a
/// whole: for tests that ask the engines for their plans.
#[doc(hidden)]
#[must_use]
pub fn hot_statements(
    backend: sea_orm::DbBackend,
    uid: &str,
    channel_id: i64,
    small_channel_id: i64,
) -> Vec<(&'static str, String, &'static [&'static str])> {
    let statements = conversations::hot_statements(backend, uid, small_channel_id)
        .into_iter()
        .chain(messages::hot_statements(backend, channel_id));
    let text = |statement: sea_orm::sea_query::SelectStatement| {
        sea_orm::StatementBuilder::build(&statement, &backend).to_string()
    };
    statements
        .map(|(name, statement, tables)| (name, text(statement), tables))
        .collect()
}
