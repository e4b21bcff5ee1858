//! Health of the database: the results of recent transactions, and a test write for health checks.

use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use entity::user_cursor::{Column, Entity};
use sea_orm::sea_query::{OnConflict, Query};

use super::{Store, StoreError};
use crate::telemetry::text_with_sources;

/// How long a failed transaction marks the database unhealthy, unless a later one succeeds.
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// Transactions cancelled sooner than this were dropped by their caller, not by a slow database.
const SLOW_TRANSACTION: Duration = Duration::from_secs(1);
/// How long the result of a test write is reused.
const PROBE_TTL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Health {
    /// Time and error of the last failed transaction; `None` after a success.
    failed: Mutex<Option<(Instant, StoreError)>>,
    /// The error that reported a corrupt database file. It is never cleared.
    damaged: OnceLock<StoreError>,
    probed: tokio::sync::Mutex<Option<(Instant, Result<(), StoreError>)>>,
}

/// Tracks a running transaction. A guard that is dropped before [`TransactionGuard::record`]
/// belongs to a cancelled transaction.
pub(super) struct TransactionGuard<'a> {
    health: &'a Health,
    begun: Instant,
    is_recorded: bool,
}

impl TransactionGuard<'_> {
    pub(super) fn record<T>(mut self, result: &Result<T, StoreError>) {
        self.is_recorded = true;
        if let Err(error @ StoreError::Damaged(_)) = result {
            self.health.record_damage(error);
        }
        let failed = match result {
            Err(error @ (StoreError::ConnectionLost(_) | StoreError::Unavailable(_))) => {
                Some((Instant::now(), error.clone()))
            }
            Ok(_) => None,
            Err(_) => return,
        };
        self.health.set_failure(failed);
    }
}

impl Drop for TransactionGuard<'_> {
    fn drop(&mut self) {
        if !self.is_recorded && self.begun.elapsed() > SLOW_TRANSACTION {
            let error = StoreError::Unavailable("a slow transaction was cancelled".into());
            self.health.set_failure(Some((Instant::now(), error)));
        }
    }
}

impl Health {
    pub(super) fn start(&self) -> TransactionGuard<'_> {
        TransactionGuard {
            health: self,
            begun: Instant::now(),
            is_recorded: false,
        }
    }

    pub(super) fn record_damage(&self, error: &StoreError) {
        if self.damaged.set(error.clone()).is_ok() {
            tracing::error!(error = %text_with_sources(error), "the database file is corrupt: this server stays unready until it is restarted");
        }
    }

    fn set_failure(&self, failed: Option<(Instant, StoreError)>) {
        *self
            .failed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = failed;
    }

    fn recent_failure(&self) -> Option<StoreError> {
        if let Some(error) = self.damaged.get() {
            return Some(error.clone());
        }
        let failed = self
            .failed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        failed
            .as_ref()
            .filter(|(at, _)| at.elapsed() < FAILURE_TTL)
            .map(|(_, error)| error.clone())
    }
}

impl Store {
    /// Checks that the database answers and accepts writes.
    ///
    /// # Errors
    /// The reason if it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        if let Some(error) = self.health.recent_failure() {
            return Err(error);
        }
        // Concurrent callers share one test write.
        let mut probed = self.health.probed.lock().await;
        if let Some((at, result)) = &*probed
            && at.elapsed() < PROBE_TTL
        {
            return result.clone();
        }
        let result = self.probe().await;
        if let Err(error @ StoreError::Damaged(_)) = &result {
            self.health.record_damage(error);
        }
        *probed = Some((Instant::now(), result.clone()));
        result
    }

    /// Writes the row with the empty uid, which no user has.
    async fn probe(&self) -> Result<(), StoreError> {
        let mut upsert = Query::insert()
            .into_table(Entity)
            .columns([Column::Uid, Column::Version])
            .to_owned();
        upsert.values_panic(["".into(), 0_i64.into()]);
        let conflict = OnConflict::column(Column::Uid)
            .update_column(Column::Version)
            .to_owned();
        upsert.on_conflict(conflict);
        let tx = self.begin().await?;
        tx.inner.execute(&upsert).await?;
        tx.commit(()).await
    }
}
