//! The schema of recents, step by step, for SQLite, PostgreSQL and MySQL/MariaDB.
//!
//! How to add a step:
//! 1. A new file `mYYYYMMDD_what.rs` with `up` and `down`. It imports no entities: they move on, a migration does not.
//! 2. Its line at the end of [`Migrator::migrations`].
//! 3. `tests/migrations.rs` runs all of them up, down and up again on every database; it lists the tables there are.

use sea_orm_migration::prelude::*;

pub use sea_orm_migration::migrator::MigrationStatus as Status;
pub use sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait};

mod columns;
mod m20261101_tables;

/// All steps in order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261101_tables::Migration)]
    }
}
