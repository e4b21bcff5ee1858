//! Queries for conversations.

use std::collections::{HashMap, HashSet};

use entity::conversation::{Column, Entity};
use entity::user_cursor;
use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{DbErr, QueryResult};

use super::super::bulk::is_one_of;
use super::super::{ROWS_PER_STATEMENT, RunQuery, Store, StoreError, Tx};
use super::counts::{CountRequest, count};
use super::statements::{
    select_by_ids, select_changed, select_changed_of_users, select_changed_with_cursor,
    select_channel_ids, select_member_views, select_members, select_removed_members,
    select_stale_users,
};
use super::{COLUMNS, ChangedConversations, PAIRS_PER_STATEMENT, row_from};
use crate::model::{ChannelKey, ChannelPk, ConversationRow, EpochMs, Uid, Version};

/// A user's relation to a channel, member or not.
#[derive(Clone, Debug)]
pub(crate) struct MemberView {
    pub(crate) uid: Uid,
    pub(crate) row: ConversationRow,
    /// When all members of the channel were last removed.
    pub(crate) cleared_at: EpochMs,
    /// Number of bulk removals in the channel so far.
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
    Uid::parse("uid", uid).map_err(|_| StoreError::Internal("a stored uid cannot be read".into()))
}

async fn count_all(
    connection: &impl RunQuery,
    uid: &Uid,
    rows: &mut [ConversationRow],
) -> Result<(), StoreError> {
    let mut counted: Vec<CountRequest> = rows
        .iter_mut()
        .map(|row| CountRequest {
            uid,
            row,
            up_to: None,
        })
        .collect();
    count(connection, &mut counted).await
}

async fn find_pairs(
    connection: &impl RunQuery,
    pairs: &[(&Uid, ChannelPk)],
) -> Result<Vec<(Uid, ConversationRow)>, StoreError> {
    let mut found = Vec::with_capacity(pairs.len());
    for pairs in pairs.chunks(PAIRS_PER_STATEMENT) {
        for row in connection
            .run_query(&select_by_ids(connection.backend(), pairs))
            .await?
        {
            found.push((uid_at(&row, COLUMNS.len())?, row_from(&row)?));
        }
    }
    Ok(found)
}

async fn find_member_views(
    connection: &impl RunQuery,
    pairs: &[(&Uid, ChannelPk)],
) -> Result<Vec<MemberView>, StoreError> {
    let mut found = Vec::with_capacity(pairs.len());
    for pairs in pairs.chunks(PAIRS_PER_STATEMENT) {
        for row in connection
            .run_query(&select_member_views(connection.backend(), pairs))
            .await?
        {
            found.push(MemberView {
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
    /// Returns the user's cursor and the conversations that changed since `version` (0: all), from
    /// one statement and therefore one snapshot. If no row is stale, the rows have their counts;
    /// otherwise they will be read again under the user's lock.
    pub(crate) async fn list_changed(
        &self,
        uid: &Uid,
        version: Version,
    ) -> Result<ChangedConversations, StoreError> {
        let found = self
            .query_all(&select_changed_with_cursor(self.backend(), uid, version))
            .await?;
        let Some(first) = found.first() else {
            return Ok(ChangedConversations {
                cursor: None,
                rows: Vec::new(),
            });
        };
        let cursor = first.try_get_by_index(COLUMNS.len())?;
        if first.try_get_by_index::<Option<i64>>(0)?.is_none() {
            return Ok(ChangedConversations {
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
        Ok(ChangedConversations { cursor, rows })
    }

    /// Returns all conversations of a user in channels of a listed type.
    pub(crate) async fn list_conversations(
        &self,
        uid: &Uid,
    ) -> Result<Vec<ConversationRow>, StoreError> {
        let mut rows = rows_from(
            &self
                .query_all(&select_changed(self.backend(), uid, Version::ZERO))
                .await?,
        )?;
        count_all(self, uid, &mut rows).await?;
        Ok(rows)
    }

    /// Returns whether the user is or was a member of any channel.
    pub(crate) async fn has_conversations(&self, uid: &Uid) -> Result<bool, StoreError> {
        let select = Query::select()
            .column(Column::ChannelId)
            .from(Entity)
            .and_where(Expr::col(Column::Uid).eq(uid.as_str()))
            .limit(1)
            .to_owned();
        Ok(self.query_one(&select).await?.is_some())
    }

    /// Returns the conversations that exist, with their users and counts.
    pub(crate) async fn find_conversations(
        &self,
        names: &[(&Uid, &ChannelKey)],
    ) -> Result<Vec<(Uid, ConversationRow)>, StoreError> {
        let mut rows = self.find_without_counts(names).await?;
        let mut counted: Vec<CountRequest> = rows
            .iter_mut()
            .map(|(uid, row)| CountRequest {
                uid,
                row,
                up_to: None,
            })
            .collect();
        count(self, &mut counted).await?;
        Ok(rows)
    }

    /// Like [`Store::find_conversations`], without counts.
    pub(crate) async fn find_without_counts(
        &self,
        names: &[(&Uid, &ChannelKey)],
    ) -> Result<Vec<(Uid, ConversationRow)>, StoreError> {
        let pairs: Vec<(&Uid, ChannelPk)> = names
            .iter()
            .map(|(uid, key)| (*uid, self.probable_id(key)))
            .collect();
        let mut found = find_pairs(self, &pairs).await?;
        let wanted: HashSet<(&Uid, &ChannelKey)> = names.iter().copied().collect();
        found.retain(|(uid, row)| wanted.contains(&(uid, &row.key)));
        if found.len() < wanted.len() {
            // Another channel may have the probable id of a conversation that was not found.
            let there: HashSet<(&Uid, &ChannelKey)> =
                found.iter().map(|(uid, row)| (uid, &row.key)).collect();
            let missing: Vec<(&Uid, &ChannelKey)> = wanted
                .into_iter()
                .filter(|name| !there.contains(name))
                .collect();
            let keys: Vec<&ChannelKey> = missing.iter().map(|(_, key)| *key).collect();
            let ids = self.find_channels(&keys).await?;
            let moved: Vec<(&Uid, ChannelPk)> = missing
                .into_iter()
                .filter_map(|(uid, key)| {
                    Some((uid, *ids.get(key).filter(|id| **id != key.derived_id(0))?))
                })
                .collect();
            found.extend(find_pairs(self, &moved).await?);
        }
        Ok(found)
    }

    /// Returns the relations of users to channels, in no order. Channels that do not exist are
    /// missing.
    pub(crate) async fn find_member_views(
        &self,
        pairs: &[(&Uid, ChannelPk)],
    ) -> Result<Vec<MemberView>, StoreError> {
        find_member_views(self, pairs).await
    }

    /// Fills in the counts that these rows need.
    pub(crate) async fn count(&self, rows: &mut [CountRequest<'_>]) -> Result<(), StoreError> {
        count(self, rows).await
    }

    /// Returns the internal ids of the channels of a user.
    pub(crate) async fn list_channel_ids(&self, uid: &Uid) -> Result<Vec<ChannelPk>, StoreError> {
        let rows = self.query_all(&select_channel_ids(uid)).await?;
        Ok(rows
            .iter()
            .map(|row| row.try_get_by_index(0))
            .collect::<Result<_, DbErr>>()?)
    }

    /// Returns those users who have a change above the given version, or a change that has no
    /// version yet. Runs two statements for each 512 users.
    pub(crate) async fn list_users_behind(
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
                let uid: String = row.try_get_by_index(0)?;
                let version: Version = row.try_get_by_index(1)?;
                if versions
                    .get(uid.as_str())
                    .is_some_and(|known| *known < version)
                {
                    behind.insert(uid);
                }
            }
            for row in self
                .query_all(&select_stale_users(self.backend(), &uids))
                .await?
            {
                behind.insert(row.try_get_by_index(0)?);
            }
        }
        Ok(behind)
    }

    /// Returns the members of a channel.
    pub(crate) async fn list_members(
        &self,
        channel_id: ChannelPk,
    ) -> Result<Vec<String>, StoreError> {
        let found = self.query_all(&select_members(channel_id)).await?;
        found
            .iter()
            .map(|row| row.try_get_by_index(0).map_err(StoreError::from))
            .collect()
    }

    /// Returns at most `limit` members of a channel.
    pub(crate) async fn list_some_members(
        &self,
        channel_id: ChannelPk,
        limit: usize,
    ) -> Result<Vec<Uid>, StoreError> {
        let found = self
            .query_all(select_members(channel_id).limit(limit as u64))
            .await?;
        found.iter().map(|row| uid_at(row, 0)).collect()
    }

    /// Returns the next users after `after` whose rows do not contain this removal of all members
    /// yet.
    pub(crate) async fn list_removed(
        &self,
        channel_id: ChannelPk,
        number: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Uid>, StoreError> {
        let found = self
            .query_all(&select_removed_members(
                channel_id,
                number,
                after,
                limit as u64,
            ))
            .await?;
        found.iter().map(|row| uid_at(row, 0)).collect()
    }
}

impl Tx {
    /// Returns for each locked user the conversations that changed since the given version (0:
    /// all), with counts.
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
                        .inner
                        .query_all(&select_changed(self.backend(), uid, *version))
                        .await?,
                )?,
            );
        } else {
            for wanted in wanted.chunks(ROWS_PER_STATEMENT / 4) {
                for row in self
                    .inner
                    .query_all(&select_changed_of_users(self.backend(), wanted))
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
            rows.iter_mut().map(move |row| CountRequest {
                uid,
                row,
                up_to: None,
            })
        });
        count(self, &mut counted.collect::<Vec<_>>()).await?;
        Ok(found)
    }

    /// Returns the conversations of locked users that exist, without counts.
    pub(crate) async fn find_conversations(
        &self,
        pairs: &[(&Uid, ChannelPk)],
    ) -> Result<Vec<(Uid, ConversationRow)>, StoreError> {
        find_pairs(self, pairs).await
    }

    /// Like [`Store::find_member_views`], for locked users.
    pub(crate) async fn find_member_views(
        &self,
        pairs: &[(&Uid, ChannelPk)],
    ) -> Result<Vec<MemberView>, StoreError> {
        find_member_views(self, pairs).await
    }

    /// Fills in the counts that these rows need.
    pub(crate) async fn count(&self, rows: &mut [CountRequest<'_>]) -> Result<(), StoreError> {
        count(self, rows).await
    }
}
