//! How far recordings have been imported: a change of members must not be repeated by the next attempt.

use sea_orm_migration::prelude::*;

use crate::columns::{integer, text};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let recording = text("recording", 64, manager.get_database_backend()).primary_key().to_owned();
        let mut table = Table::create();
        table.table("import_progress").if_not_exists().col(recording).col(integer("lines", 0));
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("import_progress").if_exists().to_owned()).await
    }
}
