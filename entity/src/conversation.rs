//! One user's view of one channel. A row is membership.

use sea_orm::entity::prelude::*;

/// One conversation.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "conversation")]
pub struct Model {
    /// Whose view.
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: String,
    /// The channel's internal id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub channel_id: i64,
    /// The value of `channel.red_dots` at which unread is 0.
    pub read_mark: i64,
    /// The deletion watermark: messages up to it never show again.
    pub deleted_to_seq: i64,
    /// The channel's `last_seq` when the user joined.
    pub joined_seq: i64,
    /// The channel's `last_seq` when the user left.
    pub left_seq: i64,
    /// 0 live, 1 deleted, 2 left.
    pub state: i16,
    /// The user's version of the last visible change, 0 before the first stamp.
    pub version: i64,
    /// The channel revision that `version` stands for, −1 for none.
    pub stamped_revision: i64,
    /// When it was pinned, 0 when it is not.
    pub pinned_at: i64,
    /// Whether the user muted it.
    pub muted: bool,
}

/// No relations: conversations shard by uid.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
