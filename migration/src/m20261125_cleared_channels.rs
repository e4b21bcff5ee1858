//! Up to where a channel's messages went when it was deleted.

use sea_orm_migration::prelude::*;

use crate::columns::integer;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.has_column("channel", "cleared_to_seq").await? {
            return Ok(());
        }
        manager.alter_table(Table::alter().table("channel").add_column(integer("cleared_to_seq", 0)).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if !manager.has_column("channel", "cleared_to_seq").await? {
            return Ok(());
        }
        manager.alter_table(Table::alter().table("channel").drop_column("cleared_to_seq").to_owned()).await
    }
}
