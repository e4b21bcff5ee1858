//! `user_cursor`: the largest version given to a user. The row is also the user's lock.

use std::collections::{BTreeMap, HashMap, HashSet};

use entity::user_cursor::{Column, Entity};
use sea_orm::DbBackend;
use sea_orm::sea_query::{OnConflict, Order, Query};

use super::bulk::{self, UpsertSpec, is_one_of};
use super::{LockPolicy, ROWS_PER_STATEMENT, Store, StoreError, Tx};
use crate::model::{Uid, Version};

impl Store {
    /// Creates missing cursors in a transaction of their own: a missing row cannot be locked, and
    /// inserting it in the transaction that locks it deadlocks on MySQL.
    pub(crate) async fn ensure_cursors(&self, uids: &[Uid]) -> Result<(), StoreError> {
        if self.backend() == DbBackend::MySql && !uids.is_empty() {
            // On MySQL, inserting a row that exists waits for its lock.
            return self
                .insert_cursors(&self.list_without_cursor(uids).await?)
                .await;
        }
        self.insert_cursors(uids).await
    }

    /// Creates cursors that are known to be missing.
    pub(crate) async fn insert_cursors(&self, uids: &[Uid]) -> Result<(), StoreError> {
        for uids in uids.chunks(ROWS_PER_STATEMENT) {
            let mut insert = Query::insert()
                .into_table(Entity)
                .columns([Column::Uid, Column::Version])
                .to_owned();
            for uid in uids {
                insert.values_panic([uid.as_str().into(), 0_i64.into()]);
            }
            let conflict = OnConflict::column(Column::Uid)
                .do_nothing_on([Column::Version])
                .to_owned();
            insert.on_conflict(conflict);
            self.insert(&insert).await?;
        }
        Ok(())
    }
}

impl Store {
    async fn list_without_cursor(&self, uids: &[Uid]) -> Result<Vec<Uid>, StoreError> {
        let mut known: HashSet<String> = HashSet::with_capacity(uids.len());
        for uids in uids.chunks(ROWS_PER_STATEMENT) {
            let select = Query::select()
                .column(Column::Uid)
                .from(Entity)
                .and_where(is_one_of(
                    self.backend(),
                    Column::Uid,
                    uids.iter().map(Uid::as_str),
                ))
                .to_owned();
            for row in self.query_all(&select).await? {
                known.insert(row.try_get_by_index(0)?);
            }
        }
        Ok(uids
            .iter()
            .filter(|uid| !known.contains(uid.as_str()))
            .cloned()
            .collect())
    }
}

impl Tx {
    /// Locks users in the order of their uids and reads their cursors. With
    /// [`LockPolicy::SkipLocked`] users locked by other transactions are missing.
    pub(crate) async fn lock_users(
        &self,
        uids: &[Uid],
        lock_policy: LockPolicy,
    ) -> Result<HashMap<String, Version>, StoreError> {
        let mut sorted: Vec<&str> = uids.iter().map(Uid::as_str).collect();
        sorted.sort_unstable();
        let mut cursors = HashMap::with_capacity(sorted.len());
        for uids in sorted.chunks(ROWS_PER_STATEMENT) {
            let select = Query::select()
                .columns([Column::Uid, Column::Version])
                .from(Entity)
                .and_where(is_one_of(self.backend(), Column::Uid, uids.iter().copied()))
                .order_by(Column::Uid, Order::Asc)
                .to_owned();
            for row in self.lock(select, lock_policy).await? {
                cursors.insert(row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            }
        }
        Ok(cursors)
    }

    /// Writes the new cursors of locked users.
    pub(super) async fn write_cursors<'a>(
        &self,
        given: impl Iterator<Item = (&'a str, Version)>,
    ) -> Result<(), StoreError> {
        let mut largest: BTreeMap<&str, Version> = BTreeMap::new();
        for (uid, version) in given {
            let cursor = largest.entry(uid).or_insert(version);
            *cursor = version.max(*cursor);
        }
        let spec = UpsertSpec {
            columns: &[Column::Uid, Column::Version],
            key: &[Column::Uid],
            update: &[Column::Version],
            unchanged: Column::Version,
        };
        let rows = largest
            .into_iter()
            .map(|(uid, version)| vec![uid.into(), version.into()]);
        bulk::upsert::<Entity>(&self.inner, &spec, rows.collect()).await
    }
}
