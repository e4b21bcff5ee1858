//! The largest version given to each user. The row is also the user's lock.

use sea_orm::entity::prelude::*;

/// One user's cursor.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "user_cursor")]
pub struct Model {
    /// The user.
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: String,
    /// The largest version given so far; 0 before the first.
    pub version: i64,
}

/// No relations: cursors shard by uid.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
