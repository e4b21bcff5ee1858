//! Migrations under a lock: two servers may start at once on an empty database.

use migration::{Migrator, MigratorTrait};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, SqliteTransactionMode, TransactionOptions, TransactionTrait};

use super::{Store, StoreError};

/// How long one server waits for another's migration.
const WAIT_SECONDS: u32 = 60;
/// The lock's number where locks have numbers, and the last part of its name where they have names.
const LOCK: i64 = 5_001_001;

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
    /// # Errors
    /// What the database says.
    pub async fn migrate_up(&self) -> Result<(), StoreError> {
        self.migrate(Direction::Up).await
    }

    /// Takes back the last `steps` migrations, or all of them.
    ///
    /// # Errors
    /// What the database says.
    pub async fn migrate_down(&self, steps: Option<u32>) -> Result<(), StoreError> {
        self.migrate(Direction::Down(steps)).await
    }

    /// All migrations in order.
    ///
    /// # Errors
    /// What the database says.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, StoreError> {
        let migrations = Migrator::get_migration_with_status_read_only(&self.read).await?;
        Ok(migrations
            .iter()
            .map(|migration| MigrationStatus {
                name: migration.name().to_owned(),
                applied: migration.status() == migration::Status::Applied,
            })
            .collect())
    }

    async fn migrate(&self, direction: Direction) -> Result<(), StoreError> {
        // On SQLite the write transaction is the lock.
        let options =
            TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
        let tx = self.write.begin_with_options(options).await?;
        match tx.get_database_backend() {
            DbBackend::MySql => {
                // DDL commits at once there, so the lock belongs to the session and the migration runs beside it.
                wait_for_lock(&tx).await?;
                let result = run(&self.write, direction).await;
                let unlock = format!("SELECT RELEASE_LOCK(CONCAT('recents ', DATABASE(), ' {LOCK}'))");
                tx.execute_unprepared(&unlock).await?;
                tx.rollback().await?;
                result
            }
            backend => {
                if backend == DbBackend::Postgres {
                    // Waiting for another server's migration, and a long one of our own, are no slow statements.
                    tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
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

/// Asks again every second: the limit on the time of a statement is shorter than a migration may be.
async fn wait_for_lock(tx: &DatabaseTransaction) -> Result<(), StoreError> {
    let lock = format!("GET_LOCK(CONCAT('recents ', DATABASE(), ' {LOCK}'), 1)");
    for _ in 0..WAIT_SECONDS {
        let row = tx.query_one(Query::select().expr(Expr::cust(lock.clone()))).await?;
        if row.is_some_and(|row| matches!(row.try_get_by_index::<Option<i64>>(0), Ok(Some(1)))) {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable(format!("another server migrates for more than {WAIT_SECONDS} s")))
}

async fn run<'c, C>(connection: C, direction: Direction) -> Result<(), StoreError>
where
    C: migration::IntoSchemaManagerConnection<'c>,
{
    match direction {
        Direction::Up => Migrator::up(connection, None).await?,
        Direction::Down(steps) => Migrator::down(connection, steps).await?,
    }
    Ok(())
}
