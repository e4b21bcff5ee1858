//! Whether the database takes writes: what transactions met lately, and a write of our own when
//! somebody asks.

use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use entity::user_cursor::{Column, Entity};
use sea_orm::sea_query::{OnConflict, Query};

use super::{Store, StoreError};
use crate::error::Error;

/// For so long one that failed counts, unless another one succeeds.
const REMEMBERED: Duration = Duration::from_secs(5);
/// One that is given up earlier was not slow; its caller went away.
const SLOW: Duration = Duration::from_secs(1);
/// For so long an answer stands, however often it is asked for.
const STANDS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Health {
    /// When a transaction last found the database unable, and why; nothing when one succeeded
    /// since.
    failed: Mutex<Option<(Instant, StoreError)>>,
    /// What says that the database's file is damaged. That does not pass.
    damaged: OnceLock<StoreError>,
    probed: tokio::sync::Mutex<Option<(Instant, Result<(), StoreError>)>>,
}

/// A transaction that runs. Dropped before it is heeded, somebody gave it up.
pub(super) struct Running<'a> {
    health: &'a Health,
    begun: Instant,
    is_over: bool,
}

impl Running<'_> {
    pub(super) fn heed<T>(mut self, result: &Result<T, Error>) {
        self.is_over = true;
        if let Err(Error::Store(error @ StoreError::Damaged(_))) = result {
            self.health.damaged(error);
        }
        let failed = match result {
            Err(Error::Store(error @ (StoreError::Lost(_) | StoreError::Unavailable(_)))) => {
                Some((Instant::now(), error.clone()))
            }
            Ok(_) => None,
            Err(_) => return,
        };
        self.health.set(failed);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.begun.elapsed() > SLOW {
            let error = StoreError::Unavailable(
                "a transaction took so long that it was given up".to_owned(),
            );
            self.health.set(Some((Instant::now(), error)));
        }
    }
}

impl Health {
    pub(super) fn run(&self) -> Running<'_> {
        Running {
            health: self,
            begun: Instant::now(),
            is_over: false,
        }
    }

    pub(super) fn damaged(&self, error: &StoreError) {
        if self.damaged.set(error.clone()).is_ok() {
            tracing::error!(error = %error, "the database's file is damaged: this server is not ready until it was started anew");
        }
    }

    fn set(&self, failed: Option<(Instant, StoreError)>) {
        *self
            .failed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = failed;
    }

    fn failed_lately(&self) -> Option<StoreError> {
        if let Some(error) = self.damaged.get() {
            return Some(error.clone());
        }
        let failed = self
            .failed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        failed
            .as_ref()
            .filter(|(at, _)| at.elapsed() < REMEMBERED)
            .map(|(_, error)| error.clone())
    }
}

impl Store {
    /// Whether the database answers and takes writes.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        if let Some(error) = self.health.failed_lately() {
            return Err(error);
        }
        // Who asks at the same time waits for the same answer.
        let mut probed = self.health.probed.lock().await;
        if let Some((at, result)) = &*probed
            && at.elapsed() < STANDS
        {
            return result.clone();
        }
        let result = self.probe().await;
        if let Err(error @ StoreError::Damaged(_)) = &result {
            self.health.damaged(error);
        }
        *probed = Some((Instant::now(), result.clone()));
        result
    }

    /// Writes a row that is nobody's: no uid is empty.
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
        tx.open.execute(&upsert).await?;
        tx.commit(()).await
    }
}
