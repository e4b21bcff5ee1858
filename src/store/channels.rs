//! `channel`: identity and head.
//!
//! A channel's id is derived from its type and key, so a name needs no look-up. Two names may share
//! a derived id; the row that is there tells, and the other one takes the next id of its sequence.
//! Rows are never removed, so a name keeps its id for good.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use entity::channel::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Order, Query, SelectStatement};
use sea_orm::{DbBackend, DbErr, QueryResult};

use super::conversations::person_conversations;
use super::rows::{self, Target, is_one_of};
use super::{ATTEMPTS, Locks, ROWS_PER_STATEMENT, Store, StoreError, Tx};
use crate::channel::ChannelKey;
use crate::error::Error;
use crate::ids::{ChannelType, Seq};

/// The head of a channel, as read under its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The channel's internal id.
    pub id: i64,
    /// Who it is.
    pub key: ChannelKey,
    /// The largest message seq, 0 before the first.
    pub last_seq: Seq,
    /// Grows with every change that members see.
    pub revision: i64,
    /// Red-dot messages so far.
    pub red_dots: i64,
    /// When the message with `last_seq` was sent, epoch ms.
    pub last_message_at: i64,
    /// The revision of the newest late message with a red dot.
    pub late_revision: i64,
    /// Bits: 1 large, 2 banned, 4 disbanded.
    pub flags: i64,
    /// Messages up to this seq went when the channel was deleted.
    pub cleared_to_seq: Seq,
    /// When all members were removed last, epoch ms.
    pub cleared_at: i64,
}

/// A state of a channel, as far as its messages go. The revision alone would do, but for a database
/// that was restored to an earlier state under a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadState {
    /// The channel's revision.
    pub revision: i64,
    /// The channel's last seq.
    pub last_seq: Seq,
    /// When the message with `last_seq` was sent, epoch ms.
    pub last_message_at: i64,
}

impl Head {
    /// As far as its messages go.
    pub(crate) fn state(&self) -> HeadState {
        HeadState {
            revision: self.revision,
            last_seq: self.last_seq,
            last_message_at: self.last_message_at,
        }
    }
}

const HEAD: [Column; 11] = [
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
];

fn head(row: &QueryResult) -> Result<Head, DbErr> {
    Ok(Head {
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
    })
}

/// Channels by their internal ids, with their keys.
fn by_id(backend: DbBackend, ids: impl IntoIterator<Item = i64>) -> SelectStatement {
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

/// Internal ids of channels, as far as they are known without asking the database.
struct Search<'a> {
    found: HashMap<ChannelKey, i64>,
    /// Channels that are not there, with the ids that they would get.
    missing: Vec<(&'a ChannelKey, i64)>,
}

impl Store {
    /// The internal id of a channel, if it exists.
    pub(crate) async fn find_channel(&self, key: &ChannelKey) -> Result<Option<i64>, StoreError> {
        Ok(self.find_channels(&[key]).await?.remove(key))
    }

    /// A channel's internal id, and the seqs of its messages but for those that went when it was
    /// deleted.
    pub(crate) async fn find_seqs(
        &self,
        key: &ChannelKey,
    ) -> Result<Option<(i64, RangeInclusive<Seq>)>, StoreError> {
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
        Ok(Some((channel_id, cleared + 1..=row.try_get_by_index(1)?)))
    }

    /// The heads of channels, read without a lock.
    pub(crate) async fn list_heads(&self, ids: &[i64]) -> Result<Vec<Head>, StoreError> {
        let mut heads = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ROWS_PER_STATEMENT) {
            let id = is_one_of(self.backend(), Column::Id, ids.iter().copied());
            let select = Query::select()
                .columns(HEAD)
                .from(Entity)
                .and_where(id)
                .to_owned();
            for row in self.query_all(&select).await? {
                heads.push(head(&row)?);
            }
        }
        Ok(heads)
    }

    /// The internal ids of those of these channels that there are.
    pub(crate) async fn find_channels(
        &self,
        keys: &[&ChannelKey],
    ) -> Result<HashMap<ChannelKey, i64>, StoreError> {
        Ok(self.search_channels(keys).await?.found)
    }

    /// The id under which a channel is, or would be, if no other channel has it; no statement.
    pub(super) fn likely_id(&self, key: &ChannelKey) -> i64 {
        self.channel_ids
            .get(key)
            .unwrap_or_else(|| key.derived_id(0))
    }

    async fn search_channels<'a>(&self, keys: &[&'a ChannelKey]) -> Result<Search<'a>, StoreError> {
        let mut search = Search {
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
        // Two that make the same ones wait for each other in one order.
        open.sort_unstable();
        open.dedup();
        let mut attempt = 0;
        while !open.is_empty() {
            let mut stored: HashMap<i64, ChannelKey> = HashMap::new();
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

    /// The internal ids of channels; those that are missing are made before. Both sides of a person
    /// channel have their conversation before the channel is there, so that its first message needs
    /// no other row.
    pub(crate) async fn ensure_channels(
        &self,
        keys: &[&ChannelKey],
    ) -> Result<HashMap<ChannelKey, i64>, Error> {
        for _ in 0..ATTEMPTS {
            let Search { found, missing } = self.search_channels(keys).await?;
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
        Err(StoreError::Contended("channels could not be made".to_owned()).into())
    }

    /// A channel is not where it was: the database was restored to an earlier state. The next
    /// request looks again.
    pub(crate) fn forget_channels<'a>(
        &self,
        keys: impl Iterator<Item = &'a ChannelKey>,
    ) -> StoreError {
        for key in keys {
            self.channel_ids.invalidate(key);
        }
        StoreError::Unavailable("a channel that was found is gone".to_owned())
    }

    async fn insert_channels(&self, missing: &[(&ChannelKey, i64)]) -> Result<(), Error> {
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
        // Another server may have made it just now, or another channel with that id; the next
        // search tells.
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
    pub(crate) async fn lock_channel(&self, id: i64) -> Result<Option<Head>, StoreError> {
        Ok(self.lock_channels(&[id], Locks::Wait).await?.pop())
    }

    /// Locks channels in the order of their ids and reads their heads; those that somebody else
    /// holds are missing, where nobody waits.
    pub(crate) async fn lock_channels(
        &self,
        ids: &[i64],
        locks: Locks,
    ) -> Result<Vec<Head>, StoreError> {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut heads = Vec::with_capacity(sorted.len());
        for ids in sorted.chunks(ROWS_PER_STATEMENT) {
            let select = Query::select()
                .columns(HEAD)
                .from(Entity)
                .and_where(is_one_of(self.backend(), Column::Id, ids.iter().copied()))
                .order_by(Column::Id, Order::Asc)
                .to_owned();
            for row in self.lock(select, locks).await? {
                heads.push(head(&row)?);
            }
        }
        Ok(heads)
    }

    /// Writes the heads of locked channels.
    pub(crate) async fn write_heads(&self, heads: &[&Head]) -> Result<(), StoreError> {
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
                ])
                .and_where(Expr::col(Column::Id).eq(head.id))
                .to_owned();
            self.open.execute(&update).await?;
            return Ok(());
        }
        // All of them exist and are locked: the conflict is the update.
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
            ]
        });
        let target = Target {
            columns: &HEAD,
            key: &[Column::Id],
            update: &HEAD[3..],
            unchanged: Column::Flags,
        };
        rows::write::<Entity>(&self.open, &target, rows.collect()).await
    }
}
