//! Where messages go.

use sea_orm::entity::prelude::*;

/// One channel: its identity and its head.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "channel")]
pub struct Model {
    /// Derived from the type and the key: see `ChannelKey::derived_id`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    /// 1 person, 2 group, … up to 255.
    pub channel_type: i16,
    /// The channel's id; for a person channel the unambiguous key of the pair of uids.
    pub channel_key: String,
    /// The largest message seq, 0 before the first message.
    pub last_seq: i64,
    /// Grows with every change of the channel that its members see.
    pub revision: i64,
    /// How many red-dot messages there have been.
    pub red_dots: i64,
    /// When the message with `last_seq` was sent.
    pub last_message_at: i64,
    /// The revision of the newest late message with a red dot, 0 for none.
    pub late_revision: i64,
    /// Bits: 1 large, 2 banned, 4 disbanded.
    pub flags: i64,
    /// Messages up to this seq went when the channel was deleted: nobody sees them.
    pub cleared_to_seq: i64,
    /// When all members were removed last, epoch ms: a user without a conversation was no member
    /// then.
    pub cleared_at: i64,
    /// How many removals of many members there have been: each has a number.
    pub removals: i64,
    /// The number of the newest removal of all members, 0 for none: who joined before it is no
    /// member, whatever the row says.
    pub cleared_removals: i64,
    /// The revision of that removal.
    pub cleared_revision: i64,
    /// The channel's `last_seq` at that removal.
    pub cleared_seq: i64,
}

/// No relations: `channel` and `conversation` may live on different shards.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
