//! The `WuKongIM` whose webhooks bring the messages.

use sea_orm::entity::prelude::*;

/// The only row: since when webhooks arrive, and how far missing messages were looked for.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "feeder")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    /// When the first webhook arrived, epoch ms.
    pub began_at: i64,
    /// How many searches of all channels were requested so far.
    pub search_requests: i64,
    /// How many of these requests the newest completed search answered.
    pub answered_requests: i64,
    /// When the newest completed search of all channels began, epoch ms; 0 for never.
    pub searched_at: i64,
    /// Until when a server has claimed the repair, epoch ms.
    pub claimed_until: i64,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
