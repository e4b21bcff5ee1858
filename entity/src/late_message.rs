//! Red-dot messages that were stored below the head of their channel.

use sea_orm::entity::prelude::*;

/// One late message.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "late_message")]
pub struct Model {
    /// Internal id of the channel.
    #[sea_orm(primary_key, auto_increment = false)]
    pub channel_id: i64,
    /// The channel's revision after the message was stored.
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
    /// The message's number in the channel.
    pub seq: i64,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
