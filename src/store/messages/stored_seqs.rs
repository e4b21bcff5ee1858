//! Which seqs of a channel are stored.

use std::collections::HashMap;

use entity::message::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, Func, Order, Query};

use super::SeqRange;
use super::statements::in_windows;
use crate::model::{ChannelPk, Seq};
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

    /// Returns the first stored seqs of a range, in ascending order.
    pub(crate) async fn list_stored_seqs(
        &self,
        range: SeqRange,
        limit: u64,
    ) -> Result<Vec<Seq>, StoreError> {
        let select = Query::select()
            .column(Column::Seq)
            .from(Entity)
            .and_where(Expr::col(Column::ChannelId).eq(range.channel_id))
            .and_where(Expr::col(Column::Seq).between(range.from, range.to))
            .order_by(Column::Seq, Order::Asc)
            .limit(limit)
            .to_owned();
        let rows = self.query_all(&select).await?;
        let seqs = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(seqs.collect::<Result<_, _>>()?)
    }
}
