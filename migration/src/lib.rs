//! The schema of recents, step by step, for SQLite, PostgreSQL and MySQL/MariaDB.
//!
//! How to add a step:
//! 1. A new file `mYYYYMMDD_what.rs` with `up` and `down`. It imports no entities: they move on, a migration does not. It can be
//!    run again from its beginning: MySQL commits every statement of it, so a server that dies leaves it half done.
//! 2. Its line at the end of [`Migrator::migrations`].
//! 3. `tests/migrations.rs` runs all of them up, down and up again on every database; it lists the tables there are.

use sea_orm_migration::prelude::*;

pub use sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait, SchemaManager};

mod columns;
mod m20261101_tables;
mod m20261102_import_progress;
mod m20261123_channel_guard;
mod m20261125_cleared_channels;

/// All steps in order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261101_tables::Migration),
            Box::new(m20261102_import_progress::Migration),
            Box::new(m20261123_channel_guard::Migration),
            Box::new(m20261125_cleared_channels::Migration),
        ]
    }
}
