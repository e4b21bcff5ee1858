//! Removals of many members that are not written to all of their rows yet.

use sea_orm::entity::prelude::*;

/// All members of a channel, or some of those that a request named.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pending_removal")]
pub struct Model {
    /// The channel's internal id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub channel_id: i64,
    /// The removal's number in its channel: who joined after it stays.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    /// Which part of those that were named.
    #[sea_orm(primary_key, auto_increment = false)]
    pub part: i64,
    /// When they were removed.
    pub removed_at: i64,
    /// The users as a JSON array; empty: all members.
    pub uids: Vec<u8>,
    /// Until when a server works on it; one that died does not renew this.
    pub claimed_until: i64,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
