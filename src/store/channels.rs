//! `channel`: identity and head.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use entity::channel::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, LockType, OnConflict, Order, Query, SelectStatement};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult};

use super::rows::{self, Target, is_one_of};
use super::{ATTEMPTS, ROWS_PER_STATEMENT, Store, StoreError, Tx};
use crate::channel::ChannelKey;
use crate::clock::Ids;
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
    /// Bits: 1 large, 2 banned, 4 disbanded.
    pub flags: i64,
    /// Messages up to here went when the channel was deleted.
    pub cleared_to_seq: Seq,
}

/// A state of a channel, as far as its messages go. The revision alone would do, but for a database that was restored to an earlier
/// state under a running server.
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
        HeadState { revision: self.revision, last_seq: self.last_seq, last_message_at: self.last_message_at }
    }
}

const HEAD: [Column; 9] = [
    Column::Id,
    Column::ChannelType,
    Column::ChannelKey,
    Column::LastSeq,
    Column::Revision,
    Column::RedDots,
    Column::LastMessageAt,
    Column::Flags,
    Column::ClearedToSeq,
];

fn head(row: &QueryResult) -> Result<Head, DbErr> {
    Ok(Head {
        id: row.try_get_by_index(0)?,
        key: ChannelKey { channel_type: ChannelType::from_stored(row.try_get_by_index(1)?), key: row.try_get_by_index(2)? },
        last_seq: row.try_get_by_index(3)?,
        revision: row.try_get_by_index(4)?,
        red_dots: row.try_get_by_index(5)?,
        last_message_at: row.try_get_by_index(6)?,
        flags: row.try_get_by_index(7)?,
        cleared_to_seq: row.try_get_by_index(8)?,
    })
}

fn by_key(backend: DbBackend, keys: &[&ChannelKey]) -> SelectStatement {
    let mut types: HashMap<i16, Vec<&str>> = HashMap::new();
    for key in keys {
        types.entry(key.channel_type.stored()).or_default().push(&key.key);
    }
    let any = types.into_iter().fold(sea_orm::Condition::any(), |any, (channel_type, keys)| {
        any.add(Expr::col(Column::ChannelType).eq(channel_type).and(is_one_of(backend, Column::ChannelKey, keys)))
    });
    Query::select().columns([Column::Id, Column::ChannelType, Column::ChannelKey]).from(Entity).cond_where(any).to_owned()
}

impl Store {
    /// The internal id of a channel, if it exists.
    pub(crate) async fn find_channel(&self, key: &ChannelKey) -> Result<Option<i64>, StoreError> {
        Ok(self.find_channels(&[key]).await?.remove(key))
    }

    /// A channel's internal id, and the seqs of its messages but for those that went when it was deleted.
    pub(crate) async fn find_seqs(&self, key: &ChannelKey) -> Result<Option<(i64, RangeInclusive<Seq>)>, StoreError> {
        let mut select = by_key(self.backend(), &[key]);
        select.columns([Column::ClearedToSeq, Column::LastSeq]);
        let Some(row) = self.query_one(&select).await? else { return Ok(None) };
        let cleared: Seq = row.try_get_by_index(3)?;
        Ok(Some((row.try_get_by_index(0)?, cleared + 1..=row.try_get_by_index(4)?)))
    }

    /// The internal ids of those of these channels that there are.
    pub(crate) async fn find_channels(&self, keys: &[&ChannelKey]) -> Result<HashMap<ChannelKey, i64>, StoreError> {
        let mut found = HashMap::with_capacity(keys.len());
        for keys in keys.chunks(ROWS_PER_STATEMENT) {
            for row in self.query_all(&by_key(self.backend(), keys)).await? {
                let key = ChannelKey {
                    channel_type: ChannelType::from_stored(row.try_get_by_index(1)?),
                    key: row.try_get_by_index(2)?,
                };
                found.insert(key, row.try_get_by_index(0)?);
            }
        }
        Ok(found)
    }

    /// The flags of those of these channels that exist.
    pub(crate) async fn list_flags(&self, keys: &[&ChannelKey]) -> Result<HashMap<ChannelKey, i64>, StoreError> {
        let mut found = HashMap::with_capacity(keys.len());
        for keys in keys.chunks(ROWS_PER_STATEMENT) {
            let mut select = by_key(self.backend(), keys);
            select.column(Column::Flags);
            for row in self.query_all(&select).await? {
                let key = ChannelKey {
                    channel_type: ChannelType::from_stored(row.try_get_by_index(1)?),
                    key: row.try_get_by_index(2)?,
                };
                found.insert(key, row.try_get_by_index(3)?);
            }
        }
        Ok(found)
    }

    /// The internal ids of channels; those that are missing are made, in a transaction of their own.
    pub(crate) async fn ensure_channels(&self, ids: &Ids, keys: &[&ChannelKey]) -> Result<HashMap<ChannelKey, i64>, Error> {
        for _ in 0..ATTEMPTS {
            let found = self.find_channels(keys).await?;
            let mut missing: Vec<&ChannelKey> = keys.iter().copied().filter(|key| !found.contains_key(*key)).collect();
            // Two that make the same ones wait for each other in one order.
            missing.sort_unstable();
            missing.dedup();
            if missing.is_empty() {
                return Ok(found);
            }
            match self.insert_channels(ids, &missing).await {
                // An id that is taken: the next attempt draws others.
                Ok(()) | Err(Error::Store(StoreError::Contended(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Contended("channels could not be made".to_owned()).into())
    }

    async fn insert_channels(&self, ids: &Ids, keys: &[&ChannelKey]) -> Result<(), Error> {
        for keys in keys.chunks(ROWS_PER_STATEMENT) {
            let columns = [Column::Id, Column::ChannelType, Column::ChannelKey];
            let mut insert = Query::insert().into_table(Entity).columns(columns).to_owned();
            for key in keys {
                insert.values_panic([ids.channel_id().into(), key.channel_type.stored().into(), key.key.as_str().into()]);
            }
            // Another server may have made it just now.
            let conflict = OnConflict::columns([Column::ChannelType, Column::ChannelKey]).do_nothing_on([Column::Id]).to_owned();
            insert.on_conflict(conflict);
            self.insert(&insert).await?;
        }
        Ok(())
    }
}

impl Tx {
    /// Locks one channel and reads its head.
    pub(crate) async fn lock_channel(&self, id: i64) -> Result<Option<Head>, StoreError> {
        Ok(self.lock_channels(&[id]).await?.pop())
    }

    /// Locks channels in the order of their ids and reads their heads.
    pub(crate) async fn lock_channels(&self, ids: &[i64]) -> Result<Vec<Head>, StoreError> {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut heads = Vec::with_capacity(sorted.len());
        for ids in sorted.chunks(ROWS_PER_STATEMENT) {
            if self.optimistic {
                self.guard_channels(ids).await?;
            }
            let select = Query::select()
                .columns(HEAD)
                .from(Entity)
                .and_where(is_one_of(self.backend(), Column::Id, ids.iter().copied()))
                .order_by(Column::Id, Order::Asc)
                .lock(LockType::Update)
                .to_owned();
            for row in self.open.query_all(&select).await? {
                heads.push(head(&row)?);
            }
        }
        Ok(heads)
    }

    /// Where nodes do not see each other's locks, two transactions that rely on a channel's lock must write to it, so that one of
    /// them is rolled back when they meet.
    async fn guard_channels(&self, ids: &[i64]) -> Result<(), StoreError> {
        let update = Query::update()
            .table(Entity)
            .value(Column::Guard, Expr::col(Column::Guard).add(1))
            .and_where(is_one_of(self.backend(), Column::Id, ids.iter().copied()))
            .to_owned();
        self.open.execute(&update).await?;
        Ok(())
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
                    (Column::Flags, head.flags.into()),
                    (Column::ClearedToSeq, head.cleared_to_seq.into()),
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
                head.flags.into(),
                head.cleared_to_seq.into(),
            ]
        });
        let target = Target { columns: &HEAD, key: &[Column::Id], update: &HEAD[3..] };
        rows::write::<Entity>(&self.open, &target, rows.collect()).await
    }
}
