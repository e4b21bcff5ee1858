//! Conversations: users' views of channels. A row is a membership.

use sea_orm::entity::prelude::*;

/// One conversation.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "conversation")]
pub struct Model {
    /// The user.
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: String,
    /// Internal id of the channel.
    #[sea_orm(primary_key, auto_increment = false)]
    pub channel_id: i64,
    /// The seq up to which the user has read; an own message (`sender_mark`) may be above it.
    pub read_seq: i64,
    /// The value of `channel.red_dots` at which unread is 0, as of `marked_revision`.
    pub read_mark: i64,
    /// The channel's revision when `read_mark` was set.
    pub marked_revision: i64,
    /// The channel's `last_seq` when `read_mark` was set.
    pub marked_seq: i64,
    /// The deletion watermark: messages up to it never show again.
    pub deleted_to_seq: i64,
    /// The channel's `last_seq` when the user joined, or just below the message that made the user
    /// a member.
    pub joined_seq: i64,
    /// The channel's `last_seq` when the user left.
    pub left_seq: i64,
    /// When the user left, epoch ms.
    pub left_at: i64,
    /// 0 member, 1 left.
    pub membership: i16,
    /// The channel's `removals` when the user joined: a removal with a higher number ends this
    /// membership.
    pub joined_removals: i64,
    /// The user's version of the last visible change, 0 before the first stamp.
    pub version: i64,
    /// The channel revision that `version` covers; −1 for none.
    pub stamped_revision: i64,
    /// When the user pinned it, epoch ms; 0 if it is not pinned.
    pub pinned_at: i64,
    /// Whether the user muted it.
    pub muted: bool,
    /// When the user last opened it (`/conversations/activate`), epoch ms; 0 if never, or after a
    /// deletion.
    pub activated_at: i64,
}

/// No relations: conversations shard by uid.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
