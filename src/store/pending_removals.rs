//! `pending_removal`: bulk removals of members that are not yet written to all rows, and the
//! removal counters of `channel`.

use entity::channel::{Column as Channel, Entity as ChannelEntity};
use entity::pending_removal::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, Order, Query, SelectStatement};
use sea_orm::{DbErr, QueryResult};

use super::{Store, StoreError, Tx};
use crate::model::{ChannelHead, ChannelPk, EpochMs};

/// Maximum number of pending removals in one list; the next list contains the others.
const MAX_LISTED: u64 = 1000;

/// A bulk removal that is not yet written to all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingRemoval {
    pub(crate) channel_id: ChannelPk,
    /// Number of the removal in its channel. Members who joined after it are not affected.
    pub(crate) number: i64,
    /// Part of the list of named users.
    pub(crate) part: i64,
    /// When it was accepted.
    pub(crate) removed_at: EpochMs,
    /// Until when a server has claimed this removal.
    pub(crate) claimed_until: EpochMs,
}

fn removal_from(row: &QueryResult) -> Result<PendingRemoval, DbErr> {
    Ok(PendingRemoval {
        channel_id: row.try_get_by_index(0)?,
        number: row.try_get_by_index(1)?,
        part: row.try_get_by_index(2)?,
        removed_at: row.try_get_by_index(3)?,
        claimed_until: row.try_get_by_index(4)?,
    })
}

fn select() -> SelectStatement {
    let columns = [
        Column::ChannelId,
        Column::Number,
        Column::Part,
        Column::RemovedAt,
        Column::ClaimedUntil,
    ];
    Query::select().columns(columns).from(Entity).to_owned()
}

fn is_removal(removal: &PendingRemoval) -> Expr {
    Expr::col(Column::ChannelId)
        .eq(removal.channel_id)
        .and(Expr::col(Column::Number).eq(removal.number))
        .and(Expr::col(Column::Part).eq(removal.part))
}

/// Returns the uids that a removal names; empty if it applies to all members.
fn parse_uids(uids: &[u8]) -> Result<Vec<String>, StoreError> {
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(uids).map_err(|error| {
        StoreError::Internal(format!("a pending removal cannot be read: {error}").into())
    })
}

impl Store {
    /// Returns pending removals in the order of acceptance within each channel.
    pub(crate) async fn list_pending_removals(&self) -> Result<Vec<PendingRemoval>, StoreError> {
        let mut select = select();
        for column in [Column::ChannelId, Column::Number, Column::Part] {
            select.order_by(column, Order::Asc);
        }
        let found = self.query_all(select.limit(MAX_LISTED)).await?;
        Ok(found.iter().map(removal_from).collect::<Result<_, _>>()?)
    }

    /// Returns the uids that a pending removal names; empty if it applies to all members.
    pub(crate) async fn list_removed_uids(
        &self,
        removal: &PendingRemoval,
    ) -> Result<Vec<String>, StoreError> {
        let select = Query::select()
            .column(Column::Uids)
            .from(Entity)
            .and_where(is_removal(removal))
            .to_owned();
        let row = self.query_one(&select).await?;
        row.map_or_else(
            || Ok(Vec::new()),
            |row| parse_uids(&row.try_get_by_index::<Vec<u8>>(0)?),
        )
    }

    /// Returns the pending removals of a channel that name users, with their uids.
    pub(crate) async fn list_named_removals(
        &self,
        channel_id: ChannelPk,
    ) -> Result<Vec<(PendingRemoval, Vec<String>)>, StoreError> {
        let select = select()
            .column(Column::Uids)
            .and_where(Expr::col(Column::ChannelId).eq(channel_id))
            .to_owned();
        let mut removals = Vec::new();
        for row in self.query_all(&select).await? {
            let uids = parse_uids(&row.try_get_by_index::<Vec<u8>>(5)?)?;
            if !uids.is_empty() {
                removals.push((removal_from(&row)?, uids));
            }
        }
        Ok(removals)
    }

    /// Claims a pending removal until the given time, or extends the claim. Returns false if
    /// another server claimed it first.
    pub(crate) async fn claim_removal(
        &self,
        removal: &mut PendingRemoval,
        until: EpochMs,
    ) -> Result<bool, StoreError> {
        let update = &Query::update()
            .table(Entity)
            .value(Column::ClaimedUntil, until)
            .and_where(is_removal(removal))
            .and_where(Expr::col(Column::ClaimedUntil).eq(removal.claimed_until))
            .to_owned();
        if removal.claimed_until == until {
            return Ok(true);
        }
        let claimed = self
            .transaction(|tx| async move {
                let changed = tx
                    .inner
                    .execute(update)
                    .await
                    .map_err(StoreError::from)?
                    .rows_affected();
                tx.commit(changed == 1).await
            })
            .await?;
        removal.claimed_until = until;
        Ok(claimed)
    }

    /// Deletes a removal that is written to all rows.
    pub(crate) async fn finish_removal(&self, removal: &PendingRemoval) -> Result<(), StoreError> {
        let delete = &Query::delete()
            .from_table(Entity)
            .and_where(is_removal(removal))
            .to_owned();
        self.transaction(|tx| async move {
            tx.inner.execute(delete).await.map_err(StoreError::from)?;
            tx.commit(()).await
        })
        .await
    }
}

impl Tx {
    /// Assigns the number of the next removal of a locked channel.
    pub(crate) async fn number_removal(&self, channel_id: ChannelPk) -> Result<i64, StoreError> {
        let is_channel = Expr::col(Channel::Id).eq(channel_id);
        let select = Query::select()
            .column(Channel::Removals)
            .from(ChannelEntity)
            .and_where(is_channel.clone())
            .to_owned();
        let before: i64 = self
            .inner
            .query_one(&select)
            .await?
            .map_or(Ok(0), |row| row.try_get_by_index(0))?;
        let mut update = Query::update()
            .table(ChannelEntity)
            .value(Channel::Removals, before + 1)
            .to_owned();
        self.inner.execute(update.and_where(is_channel)).await?;
        Ok(before + 1)
    }

    /// Ends the membership of all members of a locked channel who joined before the removal with
    /// this number. The head must have a new revision, so that the members see the change.
    pub(crate) async fn clear_members(
        &self,
        head: &ChannelHead,
        number: i64,
    ) -> Result<(), StoreError> {
        let update = Query::update()
            .table(ChannelEntity)
            .values([
                (Channel::ClearedRemovals, number.into()),
                (Channel::ClearedRevision, head.revision.into()),
                (Channel::ClearedSeq, head.last_seq.into()),
            ])
            .and_where(Expr::col(Channel::Id).eq(head.id))
            .and_where(Expr::col(Channel::ClearedRemovals).lt(number))
            .to_owned();
        self.inner.execute(&update).await?;
        Ok(())
    }

    /// Stores a removal: one part for each list of users, or one for all members if there is no
    /// list.
    pub(crate) async fn insert_pending_removal(
        &self,
        channel_id: ChannelPk,
        number: i64,
        removed_at: EpochMs,
        uids: &[Vec<&str>],
    ) -> Result<(), StoreError> {
        let lists = uids
            .iter()
            .map(|uids| serde_json::to_vec(uids).unwrap_or_default());
        let lists = if uids.is_empty() {
            vec![Vec::new()]
        } else {
            lists.collect()
        };
        for (part, list) in (0_i64..).zip(lists) {
            let columns = [
                Column::ChannelId,
                Column::Number,
                Column::Part,
                Column::RemovedAt,
                Column::Uids,
            ];
            let mut insert = Query::insert()
                .into_table(Entity)
                .columns(columns)
                .to_owned();
            insert.values_panic([
                channel_id.into(),
                number.into(),
                part.into(),
                removed_at.into(),
                list.into(),
            ]);
            self.inner.execute(&insert).await?;
        }
        Ok(())
    }
}
