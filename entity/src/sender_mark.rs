//! How far each sender has read a channel by sending messages.

use sea_orm::entity::prelude::*;

/// The newest own message of one user in one channel.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sender_mark")]
pub struct Model {
    /// Internal id of the channel.
    #[sea_orm(primary_key, auto_increment = false)]
    pub channel_id: i64,
    /// The sender.
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: String,
    /// The seq of the message.
    pub seq: i64,
    /// The value of `channel.red_dots` at which no message of others above it was unread.
    pub red_dots: i64,
    /// The channel's revision after the message was stored.
    pub revision: i64,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
