//! Reading conversations.

use std::collections::{HashMap, HashSet};

use entity::conversation::{Column, Entity};
use entity::user_cursor;
use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{DbErr, QueryResult};

use super::super::rows::is_one_of;
use super::super::{Ask, ROWS_PER_STATEMENT, Store, StoreError, Tx};
use super::counts::{Counted, count};
use super::statements::{
    changed, changed_of, channel_ids_of, list_changed, members_of, of_pairs, removed_of, stale_of,
    views,
};
use super::{COLUMNS, Changed, ConversationRow, PAIRS_PER_STATEMENT, row_from};
use crate::channel::ChannelKey;
use crate::ids::{Uid, Version};

/// What a user is to a channel, member or not.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) uid: Uid,
    pub(crate) row: ConversationRow,
    /// When all members of the channel were removed last, epoch ms.
    pub(crate) cleared_at: i64,
    /// Removals of many members of the channel so far.
    pub(crate) removals: i64,
}

fn rows_from(found: &[QueryResult]) -> Result<Vec<ConversationRow>, StoreError> {
    found
        .iter()
        .map(|row| row_from(row).map_err(StoreError::from))
        .collect()
}

fn uid_at(row: &QueryResult, index: usize) -> Result<Uid, StoreError> {
    let uid: String = row.try_get_by_index(index)?;
    Uid::parse("uid", uid).map_err(|_| StoreError::Broken("a stored uid cannot be read".to_owned()))
}

async fn count_all(
    connection: &impl Ask,
    uid: &Uid,
    rows: &mut [ConversationRow],
) -> Result<(), StoreError> {
    let mut counted: Vec<Counted> = rows
        .iter_mut()
        .map(|row| Counted {
            uid,
            row,
            up_to: None,
        })
        .collect();
    count(connection, &mut counted).await
}

async fn find_pairs(
    connection: &impl Ask,
    pairs: &[(&Uid, i64)],
) -> Result<Vec<(Uid, ConversationRow)>, StoreError> {
    let mut found = Vec::with_capacity(pairs.len());
    for pairs in pairs.chunks(PAIRS_PER_STATEMENT) {
        for row in connection
            .ask(&of_pairs(connection.backend(), pairs))
            .await?
        {
            found.push((uid_at(&row, COLUMNS.len())?, row_from(&row)?));
        }
    }
    Ok(found)
}

async fn find_views(connection: &impl Ask, pairs: &[(&Uid, i64)]) -> Result<Vec<View>, StoreError> {
    let mut found = Vec::with_capacity(pairs.len());
    for pairs in pairs.chunks(PAIRS_PER_STATEMENT) {
        for row in connection.ask(&views(connection.backend(), pairs)).await? {
            found.push(View {
                uid: uid_at(&row, COLUMNS.len())?,
                row: row_from(&row)?,
                cleared_at: row.try_get_by_index(COLUMNS.len() + 1)?,
                removals: row.try_get_by_index(COLUMNS.len() + 2)?,
            });
        }
    }
    Ok(found)
}

impl Store {
    /// The user's cursor and the conversations that changed since `version` (0: all), of one
    /// moment: one statement. Where nothing is stale the rows have their counts; where something
    /// is, they will be read again under the user's lock.
    pub(crate) async fn list_changed(
        &self,
        uid: &Uid,
        version: Version,
    ) -> Result<Changed, StoreError> {
        let found = self
            .query_all(&list_changed(self.backend(), uid, version))
            .await?;
        let Some(first) = found.first() else {
            return Ok(Changed {
                cursor: None,
                rows: Vec::new(),
            });
        };
        let cursor = first.try_get_by_index(COLUMNS.len())?;
        if first.try_get_by_index::<Option<i64>>(0)?.is_none() {
            return Ok(Changed {
                cursor,
                rows: Vec::new(),
            });
        }
        let mut rows = rows_from(&found)?;
        if !rows
            .iter()
            .any(|row| row.is_member() && row.revision > row.stamped_revision)
        {
            count_all(self, uid, &mut rows).await?;
        }
        Ok(Changed { cursor, rows })
    }

    /// All conversations of a user that can show in a list.
    pub(crate) async fn list_conversations(
        &self,
        uid: &Uid,
    ) -> Result<Vec<ConversationRow>, StoreError> {
        let mut rows = rows_from(&self.query_all(&changed(self.backend(), uid, 0)).await?)?;
        count_all(self, uid, &mut rows).await?;
        Ok(rows)
    }

    /// Whether the user is or was in any channel.
    pub(crate) async fn has_conversations(&self, uid: &Uid) -> Result<bool, StoreError> {
        let select = Query::select()
            .column(Column::ChannelId)
            .from(Entity)
            .and_where(Expr::col(Column::Uid).eq(uid.as_str()))
            .limit(1)
            .to_owned();
        Ok(self.query_one(&select).await?.is_some())
    }

    /// Those of these conversations that there are, with their users and their counts.
    pub(crate) async fn find_conversations(
        &self,
        names: &[(&Uid, &ChannelKey)],
    ) -> Result<Vec<(Uid, ConversationRow)>, StoreError> {
        let mut rows = self.find_uncounted(names).await?;
        let mut counted: Vec<Counted> = rows
            .iter_mut()
            .map(|(uid, row)| Counted {
                uid,
                row,
                up_to: None,
            })
            .collect();
        count(self, &mut counted).await?;
        Ok(rows)
    }

    /// As [`Store::find_conversations`], without counts.
    pub(crate) async fn find_uncounted(
        &self,
        names: &[(&Uid, &ChannelKey)],
    ) -> Result<Vec<(Uid, ConversationRow)>, StoreError> {
        let pairs: Vec<(&Uid, i64)> = names
            .iter()
            .map(|(uid, key)| (*uid, self.likely_id(key)))
            .collect();
        let mut found = find_pairs(self, &pairs).await?;
        let wanted: HashSet<(&Uid, &ChannelKey)> = names.iter().copied().collect();
        found.retain(|(uid, row)| wanted.contains(&(uid, &row.key)));
        if found.len() < wanted.len() {
            // Of a name that was not found another channel may have the likely id.
            let there: HashSet<(&Uid, &ChannelKey)> =
                found.iter().map(|(uid, row)| (uid, &row.key)).collect();
            let missing: Vec<(&Uid, &ChannelKey)> = wanted
                .into_iter()
                .filter(|name| !there.contains(name))
                .collect();
            let keys: Vec<&ChannelKey> = missing.iter().map(|(_, key)| *key).collect();
            let ids = self.find_channels(&keys).await?;
            let moved: Vec<(&Uid, i64)> = missing
                .into_iter()
                .filter_map(|(uid, key)| {
                    Some((uid, *ids.get(key).filter(|id| **id != key.derived_id(0))?))
                })
                .collect();
            found.extend(find_pairs(self, &moved).await?);
        }
        Ok(found)
    }

    /// What these users are to these channels, in no order; channels that are not there are left
    /// out.
    pub(crate) async fn find_views(&self, pairs: &[(&Uid, i64)]) -> Result<Vec<View>, StoreError> {
        find_views(self, pairs).await
    }

    /// Counts what these rows need.
    pub(crate) async fn count(&self, rows: &mut [Counted<'_>]) -> Result<(), StoreError> {
        count(self, rows).await
    }

    /// The channels that a user is in, by their internal ids.
    pub(crate) async fn list_channel_ids(&self, uid: &Uid) -> Result<Vec<i64>, StoreError> {
        let rows = self.query_all(&channel_ids_of(uid)).await?;
        Ok(rows
            .iter()
            .map(|row| row.try_get_by_index(0))
            .collect::<Result<_, DbErr>>()?)
    }

    /// Those of these users for whom there is something above the version beside them, or something
    /// that has no version yet. Two statements for each 500 of them.
    pub(crate) async fn list_behind(
        &self,
        known: &[(&Uid, Version)],
    ) -> Result<HashSet<String>, StoreError> {
        let mut behind = HashSet::new();
        let versions: HashMap<&str, Version> = known
            .iter()
            .map(|(uid, version)| (uid.as_str(), *version))
            .collect();
        for known in known.chunks(ROWS_PER_STATEMENT / 2) {
            let uids: Vec<&str> = known.iter().map(|(uid, _)| uid.as_str()).collect();
            let cursors = Query::select()
                .columns([user_cursor::Column::Uid, user_cursor::Column::Version])
                .from(user_cursor::Entity)
                .and_where(is_one_of(
                    self.backend(),
                    user_cursor::Column::Uid,
                    uids.iter().copied(),
                ))
                .to_owned();
            for row in self.query_all(&cursors).await? {
                let (uid, version): (String, Version) =
                    (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
                if versions
                    .get(uid.as_str())
                    .is_some_and(|known| *known < version)
                {
                    behind.insert(uid);
                }
            }
            for row in self.query_all(&stale_of(self.backend(), &uids)).await? {
                behind.insert(row.try_get_by_index(0)?);
            }
        }
        Ok(behind)
    }

    /// The members of a channel.
    pub(crate) async fn list_members(&self, channel_id: i64) -> Result<Vec<String>, StoreError> {
        let found = self.query_all(&members_of(channel_id)).await?;
        found
            .iter()
            .map(|row| row.try_get_by_index(0).map_err(StoreError::from))
            .collect()
    }

    /// Some members of a channel, if there are more than `limit`; all otherwise.
    pub(crate) async fn list_some_members(
        &self,
        channel_id: i64,
        limit: usize,
    ) -> Result<Vec<Uid>, StoreError> {
        let found = self
            .query_all(members_of(channel_id).limit(limit as u64))
            .await?;
        found.iter().map(|row| uid_at(row, 0)).collect()
    }

    /// The next users after `after` whose rows do not say yet that they were removed with all
    /// members by this removal.
    pub(crate) async fn list_removed(
        &self,
        channel_id: i64,
        number: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Uid>, StoreError> {
        let found = self
            .query_all(&removed_of(channel_id, number, after, limit as u64))
            .await?;
        found.iter().map(|row| uid_at(row, 0)).collect()
    }
}

impl Tx {
    /// What changed since the version beside each user (0: all), by user, under the users' locks,
    /// with counts.
    pub(crate) async fn list_changed(
        &self,
        wanted: &[(&Uid, Version)],
    ) -> Result<HashMap<Uid, Vec<ConversationRow>>, StoreError> {
        let mut found: HashMap<Uid, Vec<ConversationRow>> = HashMap::with_capacity(wanted.len());
        if let [(uid, version)] = wanted {
            found.insert(
                (*uid).clone(),
                rows_from(
                    &self
                        .open
                        .query_all(&changed(self.backend(), uid, *version))
                        .await?,
                )?,
            );
        } else {
            for wanted in wanted.chunks(ROWS_PER_STATEMENT / 4) {
                for row in self
                    .open
                    .query_all(&changed_of(self.backend(), wanted))
                    .await?
                {
                    found
                        .entry(uid_at(&row, COLUMNS.len())?)
                        .or_default()
                        .push(row_from(&row)?);
                }
            }
        }
        let counted = found.iter_mut().flat_map(|(uid, rows)| {
            rows.iter_mut().map(move |row| Counted {
                uid,
                row,
                up_to: None,
            })
        });
        count(self, &mut counted.collect::<Vec<_>>()).await?;
        Ok(found)
    }

    /// Reads conversations of locked users: those that there are, without counts.
    pub(crate) async fn find_conversations(
        &self,
        pairs: &[(&Uid, i64)],
    ) -> Result<Vec<(Uid, ConversationRow)>, StoreError> {
        find_pairs(self, pairs).await
    }

    /// As [`Store::find_views`], of locked users.
    pub(crate) async fn find_views(&self, pairs: &[(&Uid, i64)]) -> Result<Vec<View>, StoreError> {
        find_views(self, pairs).await
    }

    /// Counts what these rows need.
    pub(crate) async fn count(&self, rows: &mut [Counted<'_>]) -> Result<(), StoreError> {
        count(self, rows).await
    }
}
