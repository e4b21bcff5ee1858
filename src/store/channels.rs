//! `channel`: identity and head.
//!
//! The id of a channel is derived from its type and key, so no look-up by name is needed. Two
//! channels may have the same derived id; the stored row shows the conflict, and the other channel
//! takes the next id of its sequence. Rows are never deleted, so a channel keeps its id.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use entity::channel::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Order, Query, SelectStatement};
use sea_orm::{DbBackend, DbErr, QueryResult};

use super::bulk::{self, UpsertSpec, is_one_of};
use super::conversations::person_conversations;
use super::{LockPolicy, MAX_ATTEMPTS, ROWS_PER_STATEMENT, Store, StoreError, Tx};
use crate::model::{ChannelGaps, ChannelHead, ChannelKey, ChannelPk, ChannelType, Seq};

pub(super) const HEAD_COLUMNS: [Column; 15] = [
    Column::Id,
    Column::ChannelType,
    Column::ChannelKey,
    Column::LastSeq,
    Column::Revision,
    Column::RedDots,
    Column::LastMessageAt,
    Column::LateRevision,
    Column::Flags,
    Column::ClearedToSeq,
    Column::ClearedAt,
    Column::CompleteToSeq,
    Column::Missing,
    Column::BeginsAtSeq,
    Column::GapsSince,
];

pub(super) fn head(row: &QueryResult) -> Result<ChannelHead, DbErr> {
    Ok(ChannelHead {
        id: row.try_get_by_index(0)?,
        key: ChannelKey {
            channel_type: ChannelType::from_stored(row.try_get_by_index(1)?),
            key: row.try_get_by_index(2)?,
        },
        last_seq: row.try_get_by_index(3)?,
        revision: row.try_get_by_index(4)?,
        red_dots: row.try_get_by_index(5)?,
        last_message_at: row.try_get_by_index(6)?,
        late_revision: row.try_get_by_index(7)?,
        flags: row.try_get_by_index(8)?,
        cleared_to_seq: row.try_get_by_index(9)?,
        cleared_at: row.try_get_by_index(10)?,
        gaps: ChannelGaps {
            complete_to: row.try_get_by_index(11)?,
            missing: row.try_get_by_index(12)?,
            begins_at: row.try_get_by_index(13)?,
            since: row.try_get_by_index(14)?,
        },
    })
}

/// Selects channels by their internal ids, with their keys.
fn by_id(backend: DbBackend, ids: impl IntoIterator<Item = ChannelPk>) -> SelectStatement {
    let id = is_one_of(backend, Column::Id, ids);
    Query::select()
        .columns([Column::Id, Column::ChannelType, Column::ChannelKey])
        .from(Entity)
        .and_where(id)
        .to_owned()
}

fn key_from(row: &QueryResult) -> Result<ChannelKey, DbErr> {
    Ok(ChannelKey {
        channel_type: ChannelType::from_stored(row.try_get_by_index(1)?),
        key: row.try_get_by_index(2)?,
    })
}

/// Result of a search for channels by key.
struct ChannelSearch<'a> {
    found: HashMap<ChannelKey, ChannelPk>,
    /// Channels that do not exist, with the ids that they would get.
    missing: Vec<(&'a ChannelKey, ChannelPk)>,
}

impl Store {
    /// Returns the internal id of a channel, if it exists.
    pub(crate) async fn find_channel(
        &self,
        key: &ChannelKey,
    ) -> Result<Option<ChannelPk>, StoreError> {
        Ok(self.find_channels(&[key]).await?.remove(key))
    }

    /// Returns a channel's internal id and the range of its seqs, without the messages that were
    /// deleted with the channel.
    pub(crate) async fn find_channel_seqs(
        &self,
        key: &ChannelKey,
    ) -> Result<Option<(ChannelPk, RangeInclusive<Seq>)>, StoreError> {
        let Some(channel_id) = self.find_channel(key).await? else {
            return Ok(None);
        };
        let select = Query::select()
            .columns([Column::ClearedToSeq, Column::LastSeq])
            .from(Entity)
            .and_where(Expr::col(Column::Id).eq(channel_id))
            .to_owned();
        let Some(row) = self.query_one(&select).await? else {
            return Ok(None);
        };
        let cleared: Seq = row.try_get_by_index(0)?;
        Ok(Some((
            channel_id,
            cleared.next()..=row.try_get_by_index(1)?,
        )))
    }

    /// Reads the heads of channels without a lock.
    pub(crate) async fn list_heads(
        &self,
        ids: &[ChannelPk],
    ) -> Result<Vec<ChannelHead>, StoreError> {
        let mut heads = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ROWS_PER_STATEMENT) {
            let id = is_one_of(self.backend(), Column::Id, ids.iter().copied());
            let select = Query::select()
                .columns(HEAD_COLUMNS)
                .from(Entity)
                .and_where(id)
                .to_owned();
            for row in self.query_all(&select).await? {
                heads.push(head(&row)?);
            }
        }
        Ok(heads)
    }

    /// Returns the internal ids of the channels that exist.
    pub(crate) async fn find_channels(
        &self,
        keys: &[&ChannelKey],
    ) -> Result<HashMap<ChannelKey, ChannelPk>, StoreError> {
        Ok(self.search_channels(keys).await?.found)
    }

    /// Returns the id that a channel has, or would get if no other channel has it. Runs no
    /// statement.
    pub(super) fn probable_id(&self, key: &ChannelKey) -> ChannelPk {
        self.channel_ids
            .get(key)
            .unwrap_or_else(|| key.derived_id(0))
    }

    async fn search_channels<'a>(
        &self,
        keys: &[&'a ChannelKey],
    ) -> Result<ChannelSearch<'a>, StoreError> {
        let mut search = ChannelSearch {
            found: HashMap::with_capacity(keys.len()),
            missing: Vec::new(),
        };
        let mut open: Vec<&ChannelKey> = Vec::new();
        for key in keys {
            match self.channel_ids.get(*key) {
                Some(id) => {
                    search.found.insert((*key).clone(), id);
                }
                None => open.push(key),
            }
        }
        // Servers that create the same channels at the same time lock them in the same order.
        open.sort_unstable();
        open.dedup();
        let mut attempt = 0;
        while !open.is_empty() {
            let mut stored: HashMap<ChannelPk, ChannelKey> = HashMap::new();
            for keys in open.chunks(ROWS_PER_STATEMENT) {
                let ids = keys.iter().map(|key| key.derived_id(attempt));
                for row in self.query_all(&by_id(self.backend(), ids)).await? {
                    stored.insert(row.try_get_by_index(0)?, key_from(&row)?);
                }
            }
            open.retain(|key| {
                let id = key.derived_id(attempt);
                match stored.get(&id) {
                    Some(other) if other != *key => return true,
                    Some(_) => {
                        self.channel_ids.insert((*key).clone(), id);
                        search.found.insert((*key).clone(), id);
                    }
                    None => search.missing.push((key, id)),
                }
                false
            });
            attempt += 1;
        }
        Ok(search)
    }

    /// Returns the internal ids of channels and creates the missing ones. Both users of a person
    /// channel get their conversations before the channel exists, so that its first message needs
    /// no other row.
    pub(crate) async fn ensure_channels(
        &self,
        keys: &[&ChannelKey],
    ) -> Result<HashMap<ChannelKey, ChannelPk>, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let ChannelSearch { found, missing } = self.search_channels(keys).await?;
            if missing.is_empty() {
                return Ok(found);
            }
            for missing in missing.chunks(ROWS_PER_STATEMENT) {
                let conversations = missing
                    .iter()
                    .flat_map(|(key, id)| person_conversations(key, *id));
                self.insert_conversations(&conversations.collect::<Vec<_>>())
                    .await?;
                self.insert_channels(missing).await?;
            }
        }
        Err(StoreError::Conflict("channels could not be created".into()))
    }

    /// Removes channels from the cache of ids and returns an error. Called if a known channel is
    /// missing because the database was restored to an earlier state; the next request searches
    /// again.
    pub(crate) fn forget_channels<'a>(
        &self,
        keys: impl Iterator<Item = &'a ChannelKey>,
    ) -> StoreError {
        for key in keys {
            self.channel_ids.invalidate(key);
        }
        StoreError::Unavailable("a known channel does not exist any more".into())
    }

    async fn insert_channels(
        &self,
        missing: &[(&ChannelKey, ChannelPk)],
    ) -> Result<(), StoreError> {
        let columns = [Column::Id, Column::ChannelType, Column::ChannelKey];
        let mut insert = Query::insert()
            .into_table(Entity)
            .columns(columns)
            .to_owned();
        for (key, id) in missing {
            insert.values_panic([
                (*id).into(),
                key.channel_type.stored().into(),
                key.key.as_str().into(),
            ]);
        }
        // Another server may have created the channel just now, or another channel may have the id;
        // the next search shows it.
        insert.on_conflict(
            OnConflict::column(Column::Id)
                .do_nothing_on([Column::Flags])
                .to_owned(),
        );
        self.insert(&insert).await
    }
}

impl Tx {
    /// Locks one channel and reads its head.
    pub(crate) async fn lock_channel(
        &self,
        id: ChannelPk,
    ) -> Result<Option<ChannelHead>, StoreError> {
        Ok(self.lock_channels(&[id], LockPolicy::Wait).await?.pop())
    }

    /// Locks channels in the order of their ids and reads their heads. With
    /// [`LockPolicy::SkipLocked`] channels locked by other transactions are missing.
    pub(crate) async fn lock_channels(
        &self,
        ids: &[ChannelPk],
        lock_policy: LockPolicy,
    ) -> Result<Vec<ChannelHead>, StoreError> {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut heads = Vec::with_capacity(sorted.len());
        for ids in sorted.chunks(ROWS_PER_STATEMENT) {
            let select = Query::select()
                .columns(HEAD_COLUMNS)
                .from(Entity)
                .and_where(is_one_of(self.backend(), Column::Id, ids.iter().copied()))
                .order_by(Column::Id, Order::Asc)
                .to_owned();
            for row in self.lock(select, lock_policy).await? {
                heads.push(head(&row)?);
            }
        }
        Ok(heads)
    }

    /// Writes the heads of locked channels.
    pub(crate) async fn write_heads(&self, heads: &[&ChannelHead]) -> Result<(), StoreError> {
        if let [head] = heads {
            let update = Query::update()
                .table(Entity)
                .values([
                    (Column::LastSeq, head.last_seq.into()),
                    (Column::Revision, head.revision.into()),
                    (Column::RedDots, head.red_dots.into()),
                    (Column::LastMessageAt, head.last_message_at.into()),
                    (Column::LateRevision, head.late_revision.into()),
                    (Column::Flags, head.flags.into()),
                    (Column::ClearedToSeq, head.cleared_to_seq.into()),
                    (Column::ClearedAt, head.cleared_at.into()),
                    (Column::CompleteToSeq, head.gaps.complete_to.into()),
                    (Column::Missing, head.gaps.missing.into()),
                    (Column::BeginsAtSeq, head.gaps.begins_at.into()),
                    (Column::GapsSince, head.gaps.since.into()),
                ])
                .and_where(Expr::col(Column::Id).eq(head.id))
                .to_owned();
            self.inner.execute(&update).await?;
            return Ok(());
        }
        // All channels exist and are locked, so every insert becomes an update.
        let rows = heads.iter().map(|head| {
            vec![
                head.id.into(),
                head.key.channel_type.stored().into(),
                head.key.key.as_str().into(),
                head.last_seq.into(),
                head.revision.into(),
                head.red_dots.into(),
                head.last_message_at.into(),
                head.late_revision.into(),
                head.flags.into(),
                head.cleared_to_seq.into(),
                head.cleared_at.into(),
                head.gaps.complete_to.into(),
                head.gaps.missing.into(),
                head.gaps.begins_at.into(),
                head.gaps.since.into(),
            ]
        });
        let spec = UpsertSpec {
            columns: &HEAD_COLUMNS,
            key: &[Column::Id],
            update: &HEAD_COLUMNS[3..],
            unchanged: Column::Flags,
        };
        bulk::upsert::<Entity>(&self.inner, &spec, rows.collect()).await
    }
}
