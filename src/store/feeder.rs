//! `feeder`: since when webhooks arrive, and the work on messages that they did not bring.

use entity::feeder::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query, UpdateStatement};

use super::{Store, StoreError};
use crate::model::EpochMs;

/// The id of the only row.
const FEEDER: i64 = 1;

/// The state of the repair, which servers on one database share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Feeder {
    /// When the first webhook arrived.
    pub(crate) began_at: EpochMs,
    /// How many searches of all channels were requested so far.
    pub(crate) search_requests: i64,
    /// How many of these requests the newest completed search answered.
    pub(crate) answered_requests: i64,
    /// When the newest completed search of all channels began.
    pub(crate) searched_at: EpochMs,
    /// Until when a server has claimed the repair.
    pub(crate) claimed_until: EpochMs,
}

fn update() -> UpdateStatement {
    Query::update()
        .table(Entity)
        .and_where(Expr::col(Column::Id).eq(FEEDER))
        .to_owned()
}

impl Store {
    /// Returns the state of the repair, if a webhook has ever arrived.
    pub(crate) async fn find_feeder(&self) -> Result<Option<Feeder>, StoreError> {
        let columns = [
            Column::BeganAt,
            Column::SearchRequests,
            Column::AnsweredRequests,
            Column::SearchedAt,
            Column::ClaimedUntil,
        ];
        let select = Query::select()
            .columns(columns)
            .from(Entity)
            .and_where(Expr::col(Column::Id).eq(FEEDER))
            .to_owned();
        let Some(row) = self.query_one(&select).await? else {
            return Ok(None);
        };
        Ok(Some(Feeder {
            began_at: row.try_get_by_index(0)?,
            search_requests: row.try_get_by_index(1)?,
            answered_requests: row.try_get_by_index(2)?,
            searched_at: row.try_get_by_index(3)?,
            claimed_until: row.try_get_by_index(4)?,
        }))
    }

    /// Stores when the first webhook arrived, unless it is known.
    pub(crate) async fn record_feeder(&self, began_at: EpochMs) -> Result<(), StoreError> {
        if self.find_feeder().await?.is_some() {
            return Ok(());
        }
        let mut insert = Query::insert()
            .into_table(Entity)
            .columns([Column::Id, Column::BeganAt])
            .to_owned();
        insert.values_panic([FEEDER.into(), began_at.into()]);
        let conflict = OnConflict::column(Column::Id)
            .do_nothing_on([Column::BeganAt])
            .to_owned();
        self.insert(insert.on_conflict(conflict)).await
    }

    /// Requests a search of all channels, by whichever server repairs.
    pub(crate) async fn request_search(&self) -> Result<(), StoreError> {
        let requests = Expr::col(Column::SearchRequests).add(1);
        self.update_feeder(update().value(Column::SearchRequests, requests))
            .await
            .map(|_| ())
    }

    /// Records a completed search: when it began, and how many requests there were then.
    pub(crate) async fn record_search(
        &self,
        began_at: EpochMs,
        answered: i64,
    ) -> Result<(), StoreError> {
        let values = [
            (Column::SearchedAt, began_at.into()),
            (Column::AnsweredRequests, answered.into()),
        ];
        self.update_feeder(update().values(values))
            .await
            .map(|_| ())
    }

    /// Claims the repair until the given time, or extends the claim of `feeder`. Returns false if
    /// another server claimed it first.
    pub(crate) async fn claim_repair(
        &self,
        feeder: &mut Feeder,
        until: EpochMs,
    ) -> Result<bool, StoreError> {
        if feeder.claimed_until == until {
            return Ok(true);
        }
        let update = update()
            .value(Column::ClaimedUntil, until)
            .and_where(Expr::col(Column::ClaimedUntil).eq(feeder.claimed_until))
            .to_owned();
        let claimed = self.update_feeder(&update).await? == 1;
        feeder.claimed_until = until;
        Ok(claimed)
    }

    /// Returns the number of changed rows.
    async fn update_feeder(&self, update: &UpdateStatement) -> Result<u64, StoreError> {
        self.transaction(|tx| async move {
            let result = tx.inner.execute(update).await.map_err(StoreError::from)?;
            tx.commit(result.rows_affected()).await
        })
        .await
    }
}

impl Feeder {
    /// Returns whether a server has claimed the repair. A claim far in the future comes from a
    /// clock that was set back since then.
    pub(crate) fn is_claimed(&self, now: EpochMs, longest_claim_ms: i64) -> bool {
        (now..=now.plus(longest_claim_ms)).contains(&self.claimed_until)
    }
}
