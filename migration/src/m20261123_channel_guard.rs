//! What transactions write that rely on a channel's lock, where nodes do not see each other's locks.

use sea_orm_migration::prelude::*;

use crate::columns::integer;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.has_column("channel", "guard").await? {
            return Ok(());
        }
        manager.alter_table(Table::alter().table("channel").add_column(integer("guard", 0)).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if !manager.has_column("channel", "guard").await? {
            return Ok(());
        }
        manager.alter_table(Table::alter().table("channel").drop_column("guard").to_owned()).await
    }
}
