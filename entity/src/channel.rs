//! Channels.

use sea_orm::entity::prelude::*;

/// A channel: its identity and its head.
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
    /// Grows with every change that members can see.
    pub revision: i64,
    /// Number of red-dot messages so far.
    pub red_dots: i64,
    /// When the message with `last_seq` was sent.
    pub last_message_at: i64,
    /// The revision of the newest late message with a red dot; 0 for none.
    pub late_revision: i64,
    /// Bits: 1 large, 2 banned, 4 disbanded.
    pub flags: i64,
    /// Messages up to this seq were deleted with the channel: nobody sees them.
    pub cleared_to_seq: i64,
    /// When all members were last removed, epoch ms: users without a conversation were not members
    /// then.
    pub cleared_at: i64,
    /// Up to this seq no message is expected any more.
    pub complete_to_seq: i64,
    /// Number of seqs above that and below `last_seq` without a message.
    pub missing: i64,
    /// The first message that arrived, if earlier ones were not asked for yet; otherwise 0.
    pub begins_at_seq: i64,
    /// Since when messages are missing or earlier ones were not asked for, epoch ms; otherwise 0.
    pub gaps_since: i64,
    /// Number of bulk removals of members so far; each has a number.
    pub removals: i64,
    /// The number of the newest removal of all members; 0 for none. Users who joined before it are
    /// not members, whatever their row contains.
    pub cleared_removals: i64,
    /// The channel's revision at that removal.
    pub cleared_revision: i64,
    /// The channel's `last_seq` at that removal.
    pub cleared_seq: i64,
}

/// No relations: `channel` and `conversation` may live on different shards.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
