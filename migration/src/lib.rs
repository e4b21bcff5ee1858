//! The schema of recents as a list of migrations, for SQLite, PostgreSQL and MySQL/MariaDB.
//!
//! How to add a migration:
//! 1. Create a file `mYYYYMMDD_subject.rs` with `up` and `down`: lists of statements. It imports no
//!    entities, because entities change and a migration does not. Every statement must be
//!    repeatable (`IF NOT EXISTS`): MySQL commits each statement, so a server that dies leaves a
//!    migration half done; and on two nodes of a Galera cluster two servers may run a migration at
//!    the same time.
//! 2. Add a line at the end of [`MIGRATIONS`].
//! 3. `tests/it/storage/migrations.rs` runs all migrations up, down and up again on every database;
//!    update its list of tables.
//!
//! The table of applied migrations has the format of sea-orm-migration, which this crate replaces:
//! that library enables features of its dependencies that must stay disabled (see `Cargo.toml`).

use std::collections::HashSet;

use sea_orm::sea_query::{ColumnDef, Expr, ExprTrait, Query, Table};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

mod columns;
mod m20261101_tables;

/// A migration.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The name in the table of applied migrations.
    pub name: &'static str,
    up: fn(DbBackend) -> Vec<Statement>,
    down: fn(DbBackend) -> Vec<Statement>,
}

/// All migrations in order.
pub const MIGRATIONS: [Migration; 1] = [Migration {
    name: "m20261101_tables",
    up: m20261101_tables::up,
    down: m20261101_tables::down,
}];

const TABLE: &str = "seaql_migrations";

/// Returns the names of the applied migrations.
///
/// # Errors
/// Any database error.
pub async fn list_applied(connection: &impl ConnectionTrait) -> Result<HashSet<String>, DbErr> {
    let backend = connection.get_database_backend();
    let exists = match backend {
        DbBackend::Sqlite => {
            format!("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{TABLE}'")
        }
        DbBackend::Postgres => format!("SELECT 1 WHERE to_regclass('{TABLE}') IS NOT NULL"),
        _ => format!(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '{TABLE}'"
        ),
    };
    if connection
        .query_one_raw(Statement::from_string(backend, exists))
        .await?
        .is_none()
    {
        return Ok(HashSet::new());
    }
    let rows = connection
        .query_all(Query::select().column("version").from(TABLE))
        .await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Applies the missing migrations.
///
/// # Errors
/// Any database error.
pub async fn up(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    let table = Table::create()
        .table(TABLE)
        .if_not_exists()
        .col(
            ColumnDef::new("version")
                .string_len(255)
                .not_null()
                .primary_key(),
        )
        .col(ColumnDef::new("applied_at").big_integer().not_null())
        .to_owned();
    let backend = connection.get_database_backend();
    connection.execute(&table).await?;
    let applied = list_applied(connection).await?;
    for migration in MIGRATIONS
        .iter()
        .filter(|migration| !applied.contains(migration.name))
    {
        run(connection, (migration.up)(backend)).await?;
        let now = Expr::cust(match backend {
            DbBackend::Sqlite => "unixepoch()",
            DbBackend::Postgres => "extract(epoch from now())::bigint",
            _ => "unix_timestamp()",
        });
        let mut insert = Query::insert()
            .into_table(TABLE)
            .columns(["version", "applied_at"])
            .to_owned();
        connection
            .execute(insert.values_panic([migration.name.into(), now]))
            .await?;
    }
    Ok(())
}

/// Reverts the last `steps` applied migrations, or all of them.
///
/// # Errors
/// Any database error.
pub async fn down(connection: &impl ConnectionTrait, steps: Option<u32>) -> Result<(), DbErr> {
    let applied = list_applied(connection).await?;
    let steps = steps.map_or(usize::MAX, |steps| {
        usize::try_from(steps).unwrap_or(usize::MAX)
    });
    for migration in MIGRATIONS
        .iter()
        .rev()
        .filter(|migration| applied.contains(migration.name))
        .take(steps)
    {
        run(
            connection,
            (migration.down)(connection.get_database_backend()),
        )
        .await?;
        let delete = Query::delete()
            .from_table(TABLE)
            .and_where(Expr::col("version").eq(migration.name))
            .to_owned();
        connection.execute(&delete).await?;
    }
    Ok(())
}

async fn run(connection: &impl ConnectionTrait, statements: Vec<Statement>) -> Result<(), DbErr> {
    for statement in statements {
        connection.execute_raw(statement).await?;
    }
    Ok(())
}
