//! Bulk removals of members that are not yet written to all of their rows.

use sea_orm::entity::prelude::*;

/// A removal of all members of a channel, or of one part of the named users.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pending_removal")]
pub struct Model {
    /// Internal id of the channel.
    #[sea_orm(primary_key, auto_increment = false)]
    pub channel_id: i64,
    /// Number of the removal in its channel: members who joined after it stay.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    /// Part of the list of named users.
    #[sea_orm(primary_key, auto_increment = false)]
    pub part: i64,
    /// When the users were removed, epoch ms.
    pub removed_at: i64,
    /// The uids as a JSON array; empty for all members.
    pub uids: Vec<u8>,
    /// Until when a server has claimed this removal, epoch ms. A server that died does not renew
    /// its claim.
    pub claimed_until: i64,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
