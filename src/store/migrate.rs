//! Migrations under a lock, because two servers may start at the same time on an empty database.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use migration::MIGRATIONS;
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};

use super::{Store, StoreError};

/// How long a server waits for another server's migration.
const WAIT_SECONDS: u32 = 60;
/// How long to retry when a database refuses connections that it had allowed.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a server on a cluster node checks the migrations again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Number of the lock on engines that number locks.
const LOCK_NUMBER: i64 = 5_001_001;
/// Name of the lock on engines that name locks. It is valid for the whole server and has at most 64
/// characters. (MySQL 9.6 removed `MD5()`.)
const LOCK_NAME: &str = "LEFT(SHA2(CONCAT('recents ', DATABASE()), 256), 60)";

/// A migration and whether it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Name of the migration.
    pub name: String,
    /// True if it is applied to this database.
    pub applied: bool,
}

enum Direction {
    Up,
    Down(Option<u32>),
}

impl Store {
    /// Applies the missing migrations.
    ///
    /// No lock covers all nodes of a cluster, so servers that start on several nodes may apply the
    /// same migration at the same time. The first server applies it, statement by statement; the
    /// statements of the others fail, and they check again.
    ///
    /// # Errors
    /// Any database error.
    pub async fn migrate_up(&self) -> Result<(), StoreError> {
        let begun = Instant::now();
        loop {
            match self.apply_missing().await {
                Err(error)
                    if error.is_transient() && begun.elapsed() < self.migration_timeout() =>
                {
                    tracing::info!(%error, "migration failed, retrying");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                result => return result,
            }
        }
    }

    /// How long to retry: on a cluster node another server may be migrating; elsewhere a connection
    /// may be refused for a moment.
    fn migration_timeout(&self) -> Duration {
        if self.is_galera.load(Ordering::Relaxed) {
            Duration::from_secs(WAIT_SECONDS.into())
        } else {
            REFUSAL_TIMEOUT
        }
    }

    async fn apply_missing(&self) -> Result<(), StoreError> {
        // A database that a newer server has migrated further is fine: its migrations only add.
        if self
            .migration_status()
            .await?
            .iter()
            .all(|migration| migration.applied)
        {
            return Ok(());
        }
        self.migrate(Direction::Up).await
    }

    /// Reverts the last `steps` migrations, or all of them.
    ///
    /// # Errors
    /// Any database error.
    pub async fn migrate_down(&self, steps: Option<u32>) -> Result<(), StoreError> {
        self.migrate(Direction::Down(steps)).await
    }

    /// Returns our migrations in order. Migrations that only a newer server knows are ignored.
    ///
    /// # Errors
    /// Any database error.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, StoreError> {
        let (tx, permit) = self.begin().await?.inner.into_inner()?;
        let asking = async move {
            let applied = migration::list_applied(&tx).await;
            let ended = tx.rollback().await;
            drop(permit);
            ended.and(applied)
        };
        let applied = self.write.run_to_completion(asking).await?;
        let status = MIGRATIONS.iter().map(|migration| MigrationStatus {
            name: migration.name.to_owned(),
            applied: applied.contains(migration.name),
        });
        Ok(status.collect())
    }

    async fn migrate(&self, direction: Direction) -> Result<(), StoreError> {
        // On SQLite the write transaction is the lock.
        let (tx, _permit) = self.begin().await?.inner.into_inner()?;
        match tx.get_database_backend() {
            DbBackend::MySql => {
                // DDL commits at once on MySQL, so the lock belongs to the session and the
                // migration runs on another connection.
                wait_for_lock(&tx).await?;
                let result = run_migrations(&self.write.connection(), direction).await;
                tx.execute_unprepared(&format!("SELECT RELEASE_LOCK({LOCK_NAME})"))
                    .await?;
                tx.rollback().await?;
                result
            }
            backend => {
                if backend == DbBackend::Postgres {
                    // Waiting for another server's migration, and a long migration, must not hit
                    // the statement timeout.
                    tx.execute_unprepared("SET LOCAL statement_timeout = 0")
                        .await?;
                    let lock = Expr::cust(format!("pg_advisory_xact_lock({LOCK_NUMBER})"));
                    tx.query_one(Query::select().expr(lock)).await?;
                }
                run_migrations(&tx, direction).await?;
                tx.commit().await?;
                Ok(())
            }
        }
    }
}

/// Requests the lock every second: the statement timeout is shorter than a migration may take.
async fn wait_for_lock(tx: &DatabaseTransaction) -> Result<(), StoreError> {
    let lock = format!("GET_LOCK({LOCK_NAME}, 1)");
    for _ in 0..WAIT_SECONDS {
        let row = tx
            .query_one(Query::select().expr(Expr::cust(lock.clone())))
            .await?;
        if row.is_some_and(|row| matches!(row.try_get_by_index::<Option<i64>>(0), Ok(Some(1)))) {
            return Ok(());
        }
    }
    let text = format!("another server has been migrating for more than {WAIT_SECONDS} s");
    Err(StoreError::Unavailable(text.into()))
}

async fn run_migrations(
    connection: &impl ConnectionTrait,
    direction: Direction,
) -> Result<(), StoreError> {
    match direction {
        Direction::Up => migration::up(connection).await?,
        Direction::Down(steps) => migration::down(connection, steps).await?,
    }
    Ok(())
}
