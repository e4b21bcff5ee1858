//! Migrations under a lock: two servers may start at once on an empty database.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use migration::MIGRATIONS;
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};

use super::{Store, StoreError};

/// How long one server waits for another's migration.
const WAIT_SECONDS: u32 = 60;
/// How long a database may refuse connections that it had allowed.
const REFUSED: Duration = Duration::from_secs(5);
/// How long a server on a node of a cluster waits before it looks again.
const PAUSE: Duration = Duration::from_millis(500);
/// The lock where locks have numbers.
const LOCK: i64 = 5_001_001;
/// The lock where locks have names, of at most 64 characters, and belong to the whole server.
/// (MySQL 9.6 has no `MD5()` any more.)
const LOCK_NAME: &str = "LEFT(SHA2(CONCAT('recents ', DATABASE()), 256), 60)";

/// One migration and whether it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// The migration's name.
    pub name: String,
    /// Whether this database has it.
    pub applied: bool,
}

enum Direction {
    Up,
    Down(Option<u32>),
}

impl Store {
    /// Applies what is missing.
    ///
    /// No lock reaches the other nodes of a cluster, so servers that start together on several
    /// nodes may apply the same step at once. The step is done by the first of them, statement by
    /// statement; the others' statements fail, and they look again.
    ///
    /// # Errors
    /// What the database says.
    pub async fn migrate_up(&self) -> Result<(), StoreError> {
        let begun = Instant::now();
        loop {
            match self.apply_missing().await {
                Err(error) if error.is_passing() && begun.elapsed() < self.migration_patience() => {
                    tracing::info!(%error, "the database is not migrated yet: looking again");
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// For so long it is tried again: on a node of a cluster others may migrate; elsewhere a
    /// connection may be refused for a moment.
    fn migration_patience(&self) -> Duration {
        if self.optimistic.load(Ordering::Relaxed) {
            Duration::from_secs(WAIT_SECONDS.into())
        } else {
            REFUSED
        }
    }

    async fn apply_missing(&self) -> Result<(), StoreError> {
        // A database that a newer server has migrated further is fine: its steps only add.
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

    /// Takes back the last `steps` migrations, or all of them.
    ///
    /// # Errors
    /// What the database says.
    pub async fn migrate_down(&self, steps: Option<u32>) -> Result<(), StoreError> {
        self.migrate(Direction::Down(steps)).await
    }

    /// Our migrations in order. Those that only a newer server knows are not ours to judge.
    ///
    /// # Errors
    /// What the database says.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, StoreError> {
        let (tx, place) = self.begin().await?.open.into_inner()?;
        let asking = async move {
            let applied = migration::list_applied(&tx).await;
            let ended = tx.rollback().await;
            drop(place);
            ended.and(applied)
        };
        let applied = self.write.finish(asking).await?;
        let status = MIGRATIONS.iter().map(|migration| MigrationStatus {
            name: migration.name.to_owned(),
            applied: applied.contains(migration.name),
        });
        Ok(status.collect())
    }

    async fn migrate(&self, direction: Direction) -> Result<(), StoreError> {
        // On SQLite the write transaction is the lock.
        let (tx, _place) = self.begin().await?.open.into_inner()?;
        match tx.get_database_backend() {
            DbBackend::MySql => {
                // DDL commits at once there, so the lock belongs to the session and the migration
                // runs beside it.
                wait_for_lock(&tx).await?;
                let result = run(&self.write.current(), direction).await;
                tx.execute_unprepared(&format!("SELECT RELEASE_LOCK({LOCK_NAME})"))
                    .await?;
                tx.rollback().await?;
                result
            }
            backend => {
                if backend == DbBackend::Postgres {
                    // Waiting for another server's migration, and a long one of our own, are no
                    // slow statements.
                    tx.execute_unprepared("SET LOCAL statement_timeout = 0")
                        .await?;
                    let lock = Expr::cust(format!("pg_advisory_xact_lock({LOCK})"));
                    tx.query_one(Query::select().expr(lock)).await?;
                }
                run(&tx, direction).await?;
                tx.commit().await?;
                Ok(())
            }
        }
    }
}

/// Asks again every second: the limit on the time of a statement is shorter than a migration may
/// be.
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
    Err(StoreError::Unavailable(format!(
        "another server migrates for more than {WAIT_SECONDS} s"
    )))
}

async fn run(connection: &impl ConnectionTrait, direction: Direction) -> Result<(), StoreError> {
    match direction {
        Direction::Up => migration::up(connection).await?,
        Direction::Down(steps) => migration::down(connection, steps).await?,
    }
    Ok(())
}
