//! `conversation`: users' views of channels, read together with the channel's head.

use std::collections::{HashMap, HashSet};

use entity::conversation::{Column, Entity};
use entity::{channel, user_cursor};
use sea_orm::sea_query::{Alias, Condition, Expr, ExprTrait, JoinType, Query, SelectStatement};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Value};

use super::rows::{self, Target, for_each, is_one_of};
use super::{ROWS_PER_STATEMENT, Store, StoreError, Tx};
use crate::channel::ChannelKey;
use crate::ids::{ChannelType, Seq, Uid, Version};

/// Conversations that one statement names by user and channel: all that are changed at once.
const PAIRS_PER_STATEMENT: usize = 512;

/// Where a conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A member, never deleted it.
    Live,
    /// A member who deleted the conversation once; newer messages show.
    Deleted,
    /// No member any more.
    Left,
}

impl State {
    pub(crate) fn stored(self) -> i16 {
        match self {
            Self::Live => 0,
            Self::Deleted => 1,
            Self::Left => 2,
        }
    }

    fn from_stored(number: i16) -> Self {
        match number {
            0 => Self::Live,
            1 => Self::Deleted,
            _ => Self::Left,
        }
    }
}

/// One user's view of one channel, joined with the channel's head as it was read in the same statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationRow {
    /// The channel's internal id.
    pub channel_id: i64,
    /// Who the channel is.
    pub key: ChannelKey,
    /// The channel's largest message seq.
    pub last_seq: Seq,
    /// The channel's revision.
    pub revision: i64,
    /// The channel's red-dot messages so far.
    pub red_dots: i64,
    /// When the channel's last message was sent, epoch ms.
    pub last_message_at: i64,
    /// The value of `red_dots` at which unread is 0.
    pub read_mark: i64,
    /// The deletion watermark: the user's, or the channel's where that is higher.
    pub deleted_to_seq: Seq,
    /// The channel's `last_seq` when the user joined.
    pub joined_seq: Seq,
    /// The channel's `last_seq` when the user left.
    pub left_seq: Seq,
    /// Where it stands.
    pub state: State,
    /// The user's version of the last stamped change, 0 before the first.
    pub version: Version,
    /// The revision that `version` stands for.
    pub stamped_revision: i64,
    /// When it was pinned, 0 when it is not.
    pub pinned_at: i64,
    /// Whether it is muted.
    pub muted: bool,
}

/// What a sync reads in one statement.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The user's cursor; `None` when the user has none yet.
    pub cursor: Option<Version>,
    /// The conversations asked for.
    pub rows: Vec<ConversationRow>,
}

/// A new version for a row, and the revision it stands for: the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which row.
    pub channel_id: i64,
    /// The new version.
    pub version: Version,
    /// The revision that was read.
    pub revision: i64,
}

/// A membership that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewConversation {
    /// Whose.
    pub uid: Uid,
    /// In which channel.
    pub channel_id: i64,
    /// Messages up to here do not make it show.
    pub joined_seq: Seq,
    /// Red dots up to here are read.
    pub read_mark: i64,
}

/// A read mark that a sender's own message sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadMark {
    /// Whose.
    pub uid: String,
    /// In which channel.
    pub channel_id: i64,
    /// The new read mark.
    pub read_mark: i64,
}

/// The columns of a [`ConversationRow`], in the order in which [`row_from`] reads them.
fn columns() -> [(&'static str, &'static str); 17] {
    [
        ("c", "channel_id"),
        ("ch", "channel_type"),
        ("ch", "channel_key"),
        ("ch", "last_seq"),
        ("ch", "revision"),
        ("ch", "red_dots"),
        ("ch", "last_message_at"),
        ("c", "read_mark"),
        ("c", "deleted_to_seq"),
        ("c", "joined_seq"),
        ("c", "left_seq"),
        ("c", "state"),
        ("c", "version"),
        ("c", "stamped_revision"),
        ("c", "pinned_at"),
        ("c", "muted"),
        ("ch", "cleared_to_seq"),
    ]
}

fn row_from(row: &QueryResult) -> Result<ConversationRow, DbErr> {
    Ok(ConversationRow {
        channel_id: row.try_get_by_index(0)?,
        key: ChannelKey { channel_type: ChannelType::from_stored(row.try_get_by_index(1)?), key: row.try_get_by_index(2)? },
        last_seq: row.try_get_by_index(3)?,
        revision: row.try_get_by_index(4)?,
        red_dots: row.try_get_by_index(5)?,
        last_message_at: row.try_get_by_index(6)?,
        read_mark: row.try_get_by_index(7)?,
        deleted_to_seq: Ord::max(row.try_get_by_index::<Seq>(8)?, row.try_get_by_index(16)?),
        joined_seq: row.try_get_by_index(9)?,
        left_seq: row.try_get_by_index(10)?,
        state: State::from_stored(row.try_get_by_index(11)?),
        version: row.try_get_by_index(12)?,
        stamped_revision: row.try_get_by_index(13)?,
        pinned_at: row.try_get_by_index(14)?,
        muted: row.try_get_by_index(15)?,
    })
}

/// Conversations joined with their channels.
fn joined() -> SelectStatement {
    let mut select = from_joined();
    for (table, column) in columns() {
        select.column((table, Alias::new(column)));
    }
    select
}

/// Of conversations, "c", with their channels, "ch": no columns yet.
fn from_joined() -> SelectStatement {
    Query::select()
        .from_as(Entity, "c")
        .join_as(
            JoinType::InnerJoin,
            channel::Entity,
            "ch",
            Expr::col(("ch", channel::Column::Id)).equals(("c", Column::ChannelId)),
        )
        .to_owned()
}

/// The channel is of a type that shows in lists. The types stand in the text: of placeholders PostgreSQL assumes that nearly all channels
/// are of these types, and reads every channel there is to find the few that are left.
fn can_be_listed() -> Expr {
    let never = ChannelType::NEVER_LISTED.map(|never| Expr::Constant(never.stored().into()));
    Expr::col(("ch", channel::Column::ChannelType)).is_not_in(never)
}

/// A user's conversations.
fn joined_of(uid: &Uid) -> SelectStatement {
    joined().and_where(Expr::col(("c", Column::Uid)).eq(uid.as_str())).to_owned()
}

/// Conversations by user and the channel's identity, with whose each is, for [`with_whose`]. The channel's id is a subquery's: joined by
/// its name, PostgreSQL and MariaDB may look for it through all conversations of the user.
fn of_names(backend: DbBackend, names: &[(&Uid, &ChannelKey)]) -> SelectStatement {
    let id = Query::select()
        .column(channel::Column::Id)
        .from_as(channel::Entity, "named")
        .and_where(Expr::col(("named", channel::Column::ChannelType)).equals(("w", "type")))
        .and_where(Expr::col(("named", channel::Column::ChannelKey)).equals(("w", "key")))
        .to_owned();
    let found = joined()
        .column(("c", Column::Uid))
        .and_where(Expr::col(("c", Column::Uid)).equals(("w", "uid")))
        .and_where(Expr::col(("c", Column::ChannelId)).eq(Expr::SubQuery(None, Box::new(id.into()))))
        .to_owned();
    let wanted = [
        ("uid", names.iter().map(|(uid, _)| uid.as_str().into()).collect()),
        ("type", names.iter().map(|(_, key)| key.channel_type.stored().into()).collect()),
        ("key", names.iter().map(|(_, key)| key.key.as_str().into()).collect()),
    ];
    for_each(backend, wanted, found)
}

/// Conversations by user and channel, with whose each is, for [`with_whose`].
fn of_pairs(backend: DbBackend, pairs: &[(&Uid, i64)]) -> SelectStatement {
    let found = joined()
        .column(("c", Column::Uid))
        .and_where(Expr::col(("c", Column::Uid)).equals(("w", "uid")))
        .and_where(Expr::col(("c", Column::ChannelId)).equals(("w", "channel_id")))
        .to_owned();
    let (uids, ids) = pairs.iter().map(|(uid, id)| (Value::from(uid.as_str()), Value::from(*id))).unzip();
    for_each(backend, [("uid", uids), ("channel_id", ids)], found)
}

/// The keys of those conversations that there are.
fn keys_of_pairs(backend: DbBackend, marks: &[&ReadMark]) -> SelectStatement {
    let found = Query::select()
        .columns([Column::Uid, Column::ChannelId].map(|column| (Entity, column)))
        .from(Entity)
        .and_where(Expr::col((Entity, Column::Uid)).equals(("w", "uid")))
        .and_where(Expr::col((Entity, Column::ChannelId)).equals(("w", "channel_id")))
        .to_owned();
    let uids = marks.iter().map(|mark| mark.uid.as_str().into()).collect();
    let ids = marks.iter().map(|mark| mark.channel_id.into()).collect();
    for_each(backend, [("uid", uids), ("channel_id", ids)], found)
}

fn with_whose(found: &[QueryResult]) -> Result<Vec<(String, ConversationRow)>, StoreError> {
    found.iter().map(|row| Ok((row.try_get_by_index(17)?, row_from(row)?))).collect()
}

fn channel_ids_of(uid: &Uid) -> SelectStatement {
    Query::select()
        .column(Column::ChannelId)
        .from(Entity)
        .and_where(Expr::col(Column::Uid).eq(uid.as_str()))
        .and_where(Expr::col(Column::State).ne(State::Left.stored()))
        .to_owned()
}

/// Those of these users who have a conversation with something new that has no version yet.
fn stale_of(backend: DbBackend, uids: &[&str]) -> SelectStatement {
    from_joined()
        .distinct()
        .column(("c", Column::Uid))
        .and_where(is_one_of(backend, ("c", Column::Uid), uids.iter().copied()))
        .and_where(Expr::col(("c", Column::State)).ne(State::Left.stored()))
        .and_where(can_be_listed())
        .and_where(Expr::col(("ch", channel::Column::Revision)).gt(Expr::col(("c", Column::StampedRevision))))
        .to_owned()
}

/// Those that can show in a list and changed since `version`, or are stale; 0: all of them.
fn changed(uid: &Uid, version: Version) -> SelectStatement {
    let mut select = joined_of(uid);
    select.and_where(can_be_listed());
    if version > 0 {
        let newer = Expr::col(("c", Column::Version)).gt(version);
        let stale = Expr::col(("ch", channel::Column::Revision)).gt(Expr::col(("c", Column::StampedRevision)));
        let member = Expr::col(("c", Column::State)).ne(State::Left.stored());
        select.cond_where(Condition::any().add(newer).add(stale.and(member)));
    }
    select
}

/// [`changed`] for several users, with whose each is.
fn changed_of(backend: DbBackend, wanted: &[(&Uid, Version)]) -> SelectStatement {
    let newer = Expr::col(("c", Column::Version)).gt(Expr::col(("w", "version")));
    let stale = Expr::col(("ch", channel::Column::Revision)).gt(Expr::col(("c", Column::StampedRevision)));
    let member = Expr::col(("c", Column::State)).ne(State::Left.stored());
    let found = joined()
        .column(("c", Column::Uid))
        .and_where(Expr::col(("c", Column::Uid)).equals(("w", "uid")))
        .and_where(can_be_listed())
        // Who has seen nothing wants everything.
        .cond_where(Condition::any().add(newer).add(stale.and(member)))
        .to_owned();
    let uids = wanted.iter().map(|(uid, _)| uid.as_str().into()).collect();
    let versions = wanted.iter().map(|(_, version)| (*version).into()).collect();
    for_each(backend, [("uid", uids), ("version", versions)], found)
}

/// The same with the user's cursor, which comes back also when no conversation does.
fn list_changed(uid: &Uid, version: Version) -> SelectStatement {
    let mut select = Query::select();
    for (_, column) in columns() {
        select.column(("found", Alias::new(column)));
    }
    select
        .column(("cursor", user_cursor::Column::Version))
        .from_as(user_cursor::Entity, "cursor")
        .join_subquery(JoinType::LeftJoin, changed(uid, version), "found", Expr::val(1).eq(1))
        .and_where(Expr::col(("cursor", user_cursor::Column::Uid)).eq(uid.as_str()));
    select.to_owned()
}

fn members_of(channel_id: i64) -> SelectStatement {
    Query::select()
        .column(Column::Uid)
        .from(Entity)
        .and_where(Expr::col(Column::ChannelId).eq(channel_id))
        .and_where(Expr::col(Column::State).ne(State::Left.stored()))
        .to_owned()
}

fn rows_from(found: &[QueryResult]) -> Result<Vec<ConversationRow>, StoreError> {
    found.iter().map(|row| row_from(row).map_err(StoreError::from)).collect()
}

impl Store {
    /// The user's cursor and the conversations that changed since `version` (0: all), of one moment: one statement.
    pub(crate) async fn list_changed(&self, uid: &Uid, version: Version) -> Result<Changed, StoreError> {
        let found = self.query_all(&list_changed(uid, version)).await?;
        let Some(first) = found.first() else { return Ok(Changed { cursor: None, rows: Vec::new() }) };
        let cursor = first.try_get_by_index(17)?;
        if first.try_get_by_index::<Option<i64>>(0)?.is_none() {
            return Ok(Changed { cursor, rows: Vec::new() });
        }
        Ok(Changed { cursor, rows: rows_from(&found)? })
    }

    /// All conversations of a user that can show in a list.
    pub(crate) async fn list_conversations(&self, uid: &Uid) -> Result<Vec<ConversationRow>, StoreError> {
        rows_from(&self.query_all(&changed(uid, 0)).await?)
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

    /// One conversation by the channel's identity.
    pub(crate) async fn find_conversation(&self, uid: &Uid, key: &ChannelKey) -> Result<Option<ConversationRow>, StoreError> {
        Ok(self.find_conversations(&[(uid, key)]).await?.pop().map(|(_, row)| row))
    }

    /// Those of these conversations that there are, with whose they are.
    pub(crate) async fn find_conversations(
        &self,
        names: &[(&Uid, &ChannelKey)],
    ) -> Result<Vec<(String, ConversationRow)>, StoreError> {
        let mut found = Vec::with_capacity(names.len());
        for names in names.chunks(PAIRS_PER_STATEMENT) {
            found.extend(with_whose(&self.query_all(&of_names(self.backend(), names)).await?)?);
        }
        Ok(found)
    }

    /// The channels that a user is in, by their internal ids.
    pub(crate) async fn list_channel_ids(&self, uid: &Uid) -> Result<Vec<i64>, StoreError> {
        let rows = self.query_all(&channel_ids_of(uid)).await?;
        Ok(rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, DbErr>>()?)
    }

    /// Those of these users for whom there is something above the version beside them, or something that has no version yet. Two
    /// statements for each 500 of them.
    pub(crate) async fn list_behind(&self, known: &[(&Uid, Version)]) -> Result<HashSet<String>, StoreError> {
        let mut behind = HashSet::new();
        let versions: HashMap<&str, Version> = known.iter().map(|(uid, version)| (uid.as_str(), *version)).collect();
        for known in known.chunks(ROWS_PER_STATEMENT / 2) {
            let uids: Vec<&str> = known.iter().map(|(uid, _)| uid.as_str()).collect();
            let cursors = Query::select()
                .columns([user_cursor::Column::Uid, user_cursor::Column::Version])
                .from(user_cursor::Entity)
                .and_where(is_one_of(self.backend(), user_cursor::Column::Uid, uids.iter().copied()))
                .to_owned();
            for row in self.query_all(&cursors).await? {
                let (uid, version): (String, Version) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
                if versions.get(uid.as_str()).is_some_and(|known| *known < version) {
                    behind.insert(uid);
                }
            }
            for row in self.query_all(&stale_of(self.backend(), &uids)).await? {
                behind.insert(row.try_get_by_index(0)?);
            }
        }
        Ok(behind)
    }

    /// Whether anybody is in a channel just now.
    pub(crate) async fn has_members(&self, channel_id: i64) -> Result<bool, StoreError> {
        Ok(self.query_one(&members_of(channel_id).limit(1).to_owned()).await?.is_some())
    }

    /// Those of `uids` who are in a channel just now.
    pub(crate) async fn list_members_of(&self, channel_id: i64, uids: &[Uid]) -> Result<HashSet<String>, StoreError> {
        let mut members = HashSet::new();
        for uids in uids.chunks(ROWS_PER_STATEMENT) {
            let select =
                members_of(channel_id).and_where(is_one_of(self.backend(), Column::Uid, uids.iter().map(Uid::as_str))).to_owned();
            for row in self.query_all(&select).await? {
                members.insert(row.try_get_by_index(0)?);
            }
        }
        Ok(members)
    }

    /// Who is in a channel just now.
    pub(crate) async fn list_members(&self, channel_id: i64) -> Result<Vec<String>, StoreError> {
        let found = self.query_all(&members_of(channel_id)).await?;
        found.iter().map(|row| row.try_get_by_index(0).map_err(StoreError::from)).collect()
    }
}

impl Tx {
    /// What changed since the version beside each user (0: all), by user, under the users' locks.
    pub(crate) async fn list_changed(
        &self,
        wanted: &[(&Uid, Version)],
    ) -> Result<HashMap<String, Vec<ConversationRow>>, StoreError> {
        if let [(uid, version)] = wanted {
            return Ok([(uid.to_string(), rows_from(&self.open.query_all(&changed(uid, *version)).await?)?)].into());
        }
        let mut found: HashMap<String, Vec<ConversationRow>> = HashMap::with_capacity(wanted.len());
        for wanted in wanted.chunks(ROWS_PER_STATEMENT / 4) {
            for row in self.open.query_all(&changed_of(self.backend(), wanted)).await? {
                found.entry(row.try_get_by_index(17)?).or_default().push(row_from(&row)?);
            }
        }
        Ok(found)
    }

    /// Locks channels in the order of their ids, and reads conversations as they are under the locks: those that there are, with whose
    /// they are.
    pub(crate) async fn lock_conversations(&self, pairs: &[(&Uid, i64)]) -> Result<Vec<(String, ConversationRow)>, StoreError> {
        self.lock_channels(&pairs.iter().map(|(_, channel_id)| *channel_id).collect::<Vec<_>>()).await?;
        self.find_conversations(pairs).await
    }

    /// Reads conversations whose channels are locked: those that there are, with whose they are.
    pub(crate) async fn find_conversations(&self, pairs: &[(&Uid, i64)]) -> Result<Vec<(String, ConversationRow)>, StoreError> {
        let mut found = Vec::with_capacity(pairs.len());
        for pairs in pairs.chunks(PAIRS_PER_STATEMENT) {
            found.extend(with_whose(&self.open.query_all(&of_pairs(self.backend(), pairs)).await?)?);
        }
        Ok(found)
    }

    /// The state of those of `uids` that have a row in the channel, with their `left_seq`.
    pub(crate) async fn list_states(&self, channel_id: i64, uids: &[Uid]) -> Result<Vec<(String, State, Seq)>, StoreError> {
        let mut states = Vec::new();
        for uids in uids.chunks(ROWS_PER_STATEMENT) {
            let select = Query::select()
                .columns([Column::Uid, Column::State, Column::LeftSeq])
                .from(Entity)
                .and_where(Expr::col(Column::ChannelId).eq(channel_id))
                .and_where(is_one_of(self.backend(), Column::Uid, uids.iter().map(Uid::as_str)))
                .to_owned();
            for row in self.open.query_all(&select).await? {
                states.push((row.try_get_by_index(0)?, State::from_stored(row.try_get_by_index(1)?), row.try_get_by_index(2)?));
            }
        }
        Ok(states)
    }

    /// Writes new versions, and the users' cursors: nothing but `version` and `stamped_revision`, rows in the order of channel and
    /// user. The users are locked.
    pub(crate) async fn stamp(&self, mut stamps: Vec<(&Uid, Stamp)>) -> Result<(), StoreError> {
        stamps.sort_unstable_by_key(|(uid, stamp)| (stamp.channel_id, *uid));
        let given = stamps.iter().map(|(uid, stamp)| (uid.as_str(), stamp.version));
        let rows = stamps
            .iter()
            .map(|(uid, stamp)| vec![uid.as_str().into(), stamp.channel_id.into(), stamp.version.into(), stamp.revision.into()]);
        self.upsert_stamped(&[Column::Version, Column::StampedRevision], rows.collect(), given).await
    }

    /// Writes what a mutation of its user may change, its stamp, and the users' cursors: rows in the order of channel and user. The
    /// users and the channels are locked.
    pub(crate) async fn write_conversations(&self, mut rows: Vec<(&str, &ConversationRow)>) -> Result<(), StoreError> {
        let changes = [
            Column::ReadMark,
            Column::DeletedToSeq,
            Column::State,
            Column::Version,
            Column::StampedRevision,
            Column::PinnedAt,
            Column::Muted,
        ];
        rows.sort_unstable_by_key(|(uid, row)| (row.channel_id, *uid));
        let given = rows.iter().map(|(uid, row)| (*uid, row.version));
        let rows = rows.iter().map(|(uid, row)| {
            vec![
                (*uid).into(),
                row.channel_id.into(),
                row.read_mark.into(),
                row.deleted_to_seq.into(),
                row.state.stored().into(),
                row.version.into(),
                row.stamped_revision.into(),
                row.pinned_at.into(),
                row.muted.into(),
            ]
        });
        self.upsert_stamped(&changes, rows.collect(), given).await
    }

    /// Marks members as gone, each stamped with a version of their own, and writes their cursors. The users and the channel are locked.
    pub(crate) async fn write_left(
        &self,
        channel_id: i64,
        left_seq: Seq,
        revision: i64,
        leaving: &[(&str, Version)],
    ) -> Result<(), StoreError> {
        let changes = [Column::State, Column::LeftSeq, Column::Version, Column::StampedRevision];
        let left: Value = State::Left.stored().into();
        let rows = leaving.iter().map(|(uid, version)| {
            vec![(*uid).into(), channel_id.into(), left.clone(), left_seq.into(), (*version).into(), revision.into()]
        });
        self.upsert_stamped(&changes, rows.collect(), leaving.iter().copied()).await
    }

    /// As [`Tx::upsert`], with the cursors of the users to whom versions were given: no version is written without its cursor.
    async fn upsert_stamped<'a>(
        &self,
        changes: &[Column],
        rows: Vec<Vec<Value>>,
        given: impl Iterator<Item = (&'a str, Version)>,
    ) -> Result<(), StoreError> {
        self.upsert(changes, rows).await?;
        self.write_cursors(given).await
    }

    /// Writes conversations by user and channel, and then `changes`, in the order given. Where they exist the conflict is the update.
    async fn upsert(&self, changes: &[Column], rows: Vec<Vec<Value>>) -> Result<(), StoreError> {
        let key = [Column::Uid, Column::ChannelId];
        let columns: Vec<Column> = key.into_iter().chain(changes.iter().copied()).collect();
        let target = Target { columns: &columns, key: &key, update: changes };
        rows::write::<Entity>(&self.open, &target, rows).await
    }

    /// Begins memberships, or begins them anew: who comes back keeps the deletion watermark and the version, and is stale.
    /// The channels are locked.
    pub(crate) async fn write_joined(&self, joining: &[NewConversation]) -> Result<(), StoreError> {
        let changes = [Column::JoinedSeq, Column::ReadMark, Column::State, Column::StampedRevision];
        let live: Value = State::Live.stored().into();
        let rows = joining.iter().map(|new| {
            vec![
                new.uid.as_str().into(),
                new.channel_id.into(),
                new.joined_seq.into(),
                new.read_mark.into(),
                live.clone(),
                (-1_i64).into(),
            ]
        });
        self.upsert(&changes, rows.collect()).await
    }

    /// Sets one sender's read mark; whether the sender has a row in the channel.
    pub(crate) async fn write_read_mark(&self, uid: &str, channel_id: i64, read_mark: i64) -> Result<bool, StoreError> {
        let update = Query::update()
            .table(Entity)
            .value(Column::ReadMark, read_mark)
            .and_where(Expr::col(Column::Uid).eq(uid))
            .and_where(Expr::col(Column::ChannelId).eq(channel_id))
            .to_owned();
        Ok(self.open.execute(&update).await?.rows_affected() > 0)
    }

    /// Sets read marks of senders; who has no row in the channel gets none. The channels are locked.
    pub(crate) async fn write_read_marks(&self, marks: &[ReadMark]) -> Result<(), StoreError> {
        let mut sorted: Vec<&ReadMark> = marks.iter().collect();
        sorted.sort_unstable_by(|a, b| (a.channel_id, &a.uid).cmp(&(b.channel_id, &b.uid)));
        for marks in sorted.chunks(PAIRS_PER_STATEMENT) {
            let select = keys_of_pairs(self.backend(), marks);
            let mut known = HashSet::new();
            for row in self.open.query_all(&select).await? {
                known.insert((row.try_get_by_index::<String>(0)?, row.try_get_by_index::<i64>(1)?));
            }
            let known = marks.iter().filter(|mark| known.contains(&(mark.uid.clone(), mark.channel_id)));
            let rows = known.map(|mark| vec![mark.uid.as_str().into(), mark.channel_id.into(), mark.read_mark.into()]);
            self.upsert(&[Column::ReadMark], rows.collect()).await?;
        }
        Ok(())
    }

    /// A late red-dot message of `from` at `seq` does not count for those who deleted or joined at or above it.
    pub(crate) async fn excuse_from_late_message(&self, channel_id: i64, from: &str, seq: Seq) -> Result<(), StoreError> {
        let update = Query::update()
            .table(Entity)
            .value(Column::ReadMark, Expr::col(Column::ReadMark).add(1))
            .and_where(Expr::col(Column::ChannelId).eq(channel_id))
            .and_where(Expr::col(Column::Uid).ne(from))
            .cond_where(Condition::any().add(Expr::col(Column::DeletedToSeq).gte(seq)).add(Expr::col(Column::JoinedSeq).gte(seq)))
            .to_owned();
        self.open.execute(&update).await?;
        Ok(())
    }
}

/// See [`super::hot_statements`].
pub(super) fn hot_statements(
    backend: DbBackend,
    uid: &str,
    channel_id: i64,
) -> Vec<(&'static str, SelectStatement, &'static [&'static str])> {
    let (Ok(uid), Ok(nobody)) = (Uid::parse("uid", uid), Uid::parse("uid", "nobody")) else { return Vec::new() };
    let one = joined_of(&uid).and_where(Expr::col(("c", Column::ChannelId)).eq(channel_id)).to_owned();
    let pairs = [(&uid, channel_id), (&nobody, channel_id)];
    let several: &[&str] = &["conversation", "c", "channel", "ch"];
    let key = ChannelKey { channel_type: ChannelType::GROUP, key: "small".to_owned() };
    vec![
        ("a full list", list_changed(&uid, 0), &["conversation", "c", "message"]),
        ("what changed", list_changed(&uid, 1), &["conversation", "c", "message"]),
        ("what changed, under the lock", changed(&uid, 1), &["conversation", "c", "message"]),
        ("what changed for several", changed_of(backend, &[(&uid, 1), (&nobody, 1)]), &["conversation", "c", "message"]),
        ("several conversations", of_pairs(backend, &pairs), several),
        ("several conversations by name", of_names(backend, &[(&uid, &key), (&nobody, &key)]), several),
        ("one conversation", one, several),
        ("members", members_of(channel_id), &["conversation"]),
        ("channels of a subscriber", channel_ids_of(&uid), &["conversation"]),
        ("subscribers who are behind", stale_of(backend, &[uid.as_str(), "nobody"]), &["conversation", "c"]),
    ]
}
