//! Transactions, which start again when the database rolled them back.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::sea_query::{InsertStatement, LockBehavior, LockType, SelectStatement};
use sea_orm::{DbBackend, QueryResult};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::open_transaction::OpenTransaction;
use super::{Store, StoreError, files};
use crate::telemetry::text_with_sources;

/// How many times a transaction is tried before the caller gets a conflict error.
pub(super) const MAX_ATTEMPTS: u32 = 20;
/// Statements that follow BEGIN on a Galera node. MariaDB (10.11) may roll a transaction back in
/// favour of another node's transaction while it prepares a statement, and reports no error: the
/// following statements succeed. With autocommit off such statements are not committed one by one,
/// and the savepoint shows whether the transaction is still the one that was begun.
const BEGIN_MARKER: &str = "SET autocommit = 0; SAVEPOINT begun";
/// Statement that precedes COMMIT on a Galera node. It fails if the transaction was replaced.
const VERIFY_MARKER: &str = "RELEASE SAVEPOINT begun";

/// An open transaction. It is rolled back if it is dropped without [`Tx::commit`].
#[derive(Debug)]
pub struct Tx {
    pub(super) inner: OpenTransaction,
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
    pub(super) fn backend(&self) -> DbBackend {
        self.inner.backend()
    }

    /// Returns the rows of `select` after locking them. Databases without `SKIP LOCKED` (`TiDB`;
    /// `MariaDB` before 10.6) wait for locked rows.
    pub(super) async fn lock(
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

    /// Begins a transaction. A restarted database leaves broken connections in the pool; nothing has
    /// been done on such a connection yet, so the next one is tried.
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        let mut attempt = 0;
        loop {
            match self.begin_once().await {
                Err(StoreError::ConnectionLost(_)) if attempt < self.connections => attempt += 1,
                result => return result,
            }
        }
    }

    pub(super) async fn begin_once(&self) -> Result<Tx, StoreError> {
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

    /// Runs one insert statement in a transaction.
    pub(super) async fn insert(&self, statement: &InsertStatement) -> Result<(), StoreError> {
        self.transaction(|tx| async move {
            tx.inner
                .execute(statement)
                .await
                .map_err(StoreError::from)?;
            tx.commit(()).await
        })
        .await
    }
}

/// Returns whether to retry after a deadlock or serialization failure, sleeping first.
pub(super) async fn should_retry(error: &StoreError, attempt: &mut u32) -> bool {
    *attempt += 1;
    if !error.is_retryable() || *attempt >= MAX_ATTEMPTS {
        return false;
    }
    metrics::counter!(crate::metrics::TRANSACTIONS_RETRIED_TOTAL).increment(1);
    tracing::debug!(error = %text_with_sources(error), attempt, "retrying a transaction");
    // The pause grows, so that the same two transactions do not collide again. No randomness is
    // needed: they continue in the order in which they were rolled back.
    tokio::time::sleep(Duration::from_millis(
        u64::from(*attempt * *attempt).min(100),
    ))
    .await;
    true
}
