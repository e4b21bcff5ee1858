//! Numbers of stored messages.

use std::collections::HashMap;

use entity::message::{Column, Entity};
use sea_orm::sea_query::{Expr, Func, Query};

use super::SeqRange;
use super::statements::in_windows;
use crate::model::ChannelPk;
use crate::store::{Store, StoreError};

/// Maximum number of ranges in one statement.
const RANGES_PER_STATEMENT: usize = 200;

impl Store {
    /// Counts the stored messages of ranges, one for each channel. Channels without any are
    /// missing.
    pub(crate) async fn count_stored(
        &self,
        ranges: &[SeqRange],
    ) -> Result<HashMap<ChannelPk, i64>, StoreError> {
        let mut counts = HashMap::with_capacity(ranges.len());
        for ranges in ranges.chunks(RANGES_PER_STATEMENT) {
            let select = Query::select()
                .column((Entity, Column::ChannelId))
                .expr_as(Func::count(Expr::col((Entity, Column::Seq))), "count")
                .from(Entity)
                .group_by_col((Entity, Column::ChannelId))
                .to_owned();
            let statement = in_windows(self.backend(), select, ranges);
            for row in self.query_all(&statement).await? {
                counts.insert(row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            }
        }
        Ok(counts)
    }
}
