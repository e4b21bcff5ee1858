//! The progress of imports of recordings.

use sea_orm::entity::prelude::*;

/// Progress of one recording.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "import_progress")]
pub struct Model {
    /// The SHA-256 of the file, in hexadecimal.
    #[sea_orm(primary_key, auto_increment = false)]
    pub recording: String,
    /// Number of committed lines.
    pub lines: i64,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
