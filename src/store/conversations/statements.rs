//! Statements that read conversations. In all of them `c` is the conversation, `ch` its channel,
//! and `own` the user's sender mark.

use entity::conversation::{Column, Entity};
use entity::{channel, sender_mark, user_cursor};
use sea_orm::DbBackend;
use sea_orm::sea_query::{
    Alias, CaseStatement, ColumnRef, Condition, Expr, ExprTrait, IntoColumnRef, JoinType, Order,
    Query, SelectStatement, Value,
};

use super::super::bulk::{is_one_of, join_values, lateral_join, values_table};
use super::COLUMNS;
use crate::model::{ChannelPk, ChannelType, Membership, Uid, Version};

fn with_columns(mut select: SelectStatement) -> SelectStatement {
    for (table, column, name) in COLUMNS {
        let stored = Expr::col((table, Alias::new(column)));
        let value = match name {
            "membership" => {
                let is_untold = Expr::col(("ch", channel::Column::ClearedRevision))
                    .gt(Expr::col(("c", Column::StampedRevision)));
                let removed =
                    CaseStatement::new().case(is_cleared().and(is_untold), Membership::REMOVED);
                removed
                    .case(is_cleared(), Membership::Left.stored())
                    .finally(stored)
                    .into()
            }
            "left_seq" => {
                let cleared_seq = Expr::col(("ch", channel::Column::ClearedSeq));
                CaseStatement::new()
                    .case(is_cleared(), cleared_seq)
                    .finally(stored)
                    .into()
            }
            _ => stored,
        };
        select.expr_as(value, name);
    }
    select
}

/// The condition that all members were removed since the user joined, and the row does not contain
/// it yet.
fn is_cleared() -> Expr {
    let joined_before = Expr::col(("ch", channel::Column::ClearedRemovals))
        .gt(Expr::col(("c", Column::JoinedRemovals)));
    joined_before.and(Expr::col(("c", Column::Membership)).eq(Membership::Member.stored()))
}

/// Selects conversations with their heads.
fn select_conversations(backend: DbBackend) -> SelectStatement {
    // The mark of a conversation that has seen the current revision is above every own message. The
    // NULL of the CASE then matches no row.
    let channel_id = CaseStatement::new().case(
        Expr::col(("ch", channel::Column::Revision)).gt(Expr::col(("c", Column::MarkedRevision))),
        Expr::col(("c", Column::ChannelId)),
    );
    let mut select = from_conversations_with_channels();
    join_own_mark(
        backend,
        &mut select,
        channel_id.into(),
        ("c", Column::Uid).into_column_ref(),
    );
    with_columns(select)
}

/// Left-joins a user's mark in a channel. PostgreSQL would rather read all marks of the user in all
/// channels; the OFFSET forces one look-up for each row.
fn join_own_mark(
    backend: DbBackend,
    select: &mut SelectStatement,
    channel_id: Expr,
    uid: ColumnRef,
) {
    let is_own = |table: &'static str| {
        Condition::all()
            .add(Expr::col((table, sender_mark::Column::ChannelId)).eq(channel_id))
            .add(Expr::col((table, sender_mark::Column::Uid)).eq(Expr::col(uid)))
    };
    if backend == DbBackend::Postgres {
        let columns = [
            sender_mark::Column::Seq,
            sender_mark::Column::RedDots,
            sender_mark::Column::Revision,
        ];
        let own = Query::select()
            .columns(columns.map(|column| ("mark", column)))
            .from_as(sender_mark::Entity, "mark")
            .cond_where(is_own("mark"))
            .offset(0)
            .to_owned();
        select.join_lateral(JoinType::LeftJoin, own, "own", Condition::all());
    } else {
        select.join_as(
            JoinType::LeftJoin,
            sender_mark::Entity,
            "own",
            is_own("own"),
        );
    }
}

/// Joins conversations with their channels, without columns.
fn from_conversations_with_channels() -> SelectStatement {
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

/// The condition that the channel has a listed type. The types are constants: with placeholders
/// PostgreSQL assumes that nearly all channels have these types, and scans all channels to find the
/// remaining few.
fn has_listable_type() -> Expr {
    let never = ChannelType::NEVER_LISTED.map(|never| Expr::Constant(never.stored().into()));
    Expr::col(("ch", channel::Column::ChannelType)).is_not_in(never)
}

fn is_not_left() -> Expr {
    Expr::col(("c", Column::Membership)).ne(Membership::Left.stored())
}

fn is_stale() -> Expr {
    Expr::col(("ch", channel::Column::Revision))
        .gt(Expr::col(("c", Column::StampedRevision)))
        .and(is_not_left())
}

/// Selects conversations by user and channel; the uid follows the columns of the row.
pub(super) fn select_by_ids(backend: DbBackend, pairs: &[(&Uid, ChannelPk)]) -> SelectStatement {
    let found = select_conversations(backend)
        .column(("c", Column::Uid))
        .and_where(Expr::col(("c", Column::Uid)).equals(("w", "uid")))
        .and_where(Expr::col(("c", Column::ChannelId)).equals(("w", "channel_id")))
        .to_owned();
    join_values(backend, pair_columns(pairs), found)
}

fn pair_columns(pairs: &[(&Uid, ChannelPk)]) -> [(&'static str, Vec<Value>); 2] {
    let (uids, ids) = pairs
        .iter()
        .map(|(uid, id)| (Value::from(uid.as_str()), Value::from(*id)))
        .unzip();
    [("uid", uids), ("channel_id", ids)]
}

/// Like [`select_by_ids`], but also for users without a conversation in the channel, and always
/// with the own mark. After the uid follow the time of the last removal of all members and the
/// number of bulk removals.
pub(super) fn select_member_views(
    backend: DbBackend,
    pairs: &[(&Uid, ChannelPk)],
) -> SelectStatement {
    let wanted = values_table(backend, pair_columns(pairs));
    let is_channel = Expr::col(("ch", channel::Column::Id)).equals(("w", "channel_id"));
    let mut select = Query::select();
    if backend == DbBackend::Postgres {
        select.from_as(channel::Entity, "ch").and_where(is_channel);
    } else {
        select.from_subquery(wanted.clone(), "w").join_as(
            JoinType::InnerJoin,
            channel::Entity,
            "ch",
            is_channel,
        );
    }
    let is_conversation = Condition::all()
        .add(Expr::col(("c", Column::Uid)).equals(("w", "uid")))
        .add(Expr::col(("c", Column::ChannelId)).equals(("ch", channel::Column::Id)));
    select.join_as(JoinType::LeftJoin, Entity, "c", is_conversation);
    let channel_id = Expr::col(("ch", channel::Column::Id));
    join_own_mark(
        backend,
        &mut select,
        channel_id,
        ("w", "uid").into_column_ref(),
    );
    let mut select = with_columns(select);
    select
        .column(("w", "uid"))
        .column(("ch", channel::Column::ClearedAt))
        .column(("ch", channel::Column::Removals));
    if backend == DbBackend::Postgres {
        lateral_join(wanted, select)
    } else {
        select
    }
}

pub(super) fn select_channel_ids(uid: &Uid) -> SelectStatement {
    Query::select()
        .column(Column::ChannelId)
        .from(Entity)
        .and_where(Expr::col(Column::Uid).eq(uid.as_str()))
        .and_where(Expr::col(Column::Membership).ne(Membership::Left.stored()))
        .to_owned()
}

/// Selects those users who have a change without a version.
pub(super) fn select_stale_users(backend: DbBackend, uids: &[&str]) -> SelectStatement {
    from_conversations_with_channels()
        .distinct()
        .column(("c", Column::Uid))
        .and_where(is_one_of(backend, ("c", Column::Uid), uids.iter().copied()))
        .and_where(has_listable_type())
        .and_where(is_stale())
        .to_owned()
}

/// Selects a user's conversations of a listed type that changed since `version`, or are stale; 0
/// selects all.
pub(super) fn select_changed(backend: DbBackend, uid: &Uid, version: Version) -> SelectStatement {
    let mut select = select_conversations(backend);
    select
        .and_where(Expr::col(("c", Column::Uid)).eq(uid.as_str()))
        .and_where(has_listable_type());
    if version > Version::ZERO {
        let newer = Expr::col(("c", Column::Version)).gt(version);
        select.cond_where(Condition::any().add(newer).add(is_stale()));
    }
    select
}

/// [`select_changed`] for several users; the uid follows the columns of the row.
pub(super) fn select_changed_of_users(
    backend: DbBackend,
    wanted: &[(&Uid, Version)],
) -> SelectStatement {
    let newer = Expr::col(("c", Column::Version)).gt(Expr::col(("w", "version")));
    let found = select_conversations(backend)
        .column(("c", Column::Uid))
        .and_where(Expr::col(("c", Column::Uid)).equals(("w", "uid")))
        .and_where(has_listable_type())
        // With version 0 every row matches: rows without a version are stale.
        .cond_where(Condition::any().add(newer).add(is_stale()))
        .to_owned();
    let uids = wanted.iter().map(|(uid, _)| uid.as_str().into()).collect();
    let versions = wanted
        .iter()
        .map(|(_, version)| (*version).into())
        .collect();
    join_values(backend, [("uid", uids), ("version", versions)], found)
}

/// [`select_changed`] with the user's cursor, which is returned even if no conversation is.
pub(super) fn select_changed_with_cursor(
    backend: DbBackend,
    uid: &Uid,
    version: Version,
) -> SelectStatement {
    let mut select = Query::select();
    for (_, _, name) in COLUMNS {
        select.column(("found", name));
    }
    select
        .column(("cursor", user_cursor::Column::Version))
        .from_as(user_cursor::Entity, "cursor")
        .join_subquery(
            JoinType::LeftJoin,
            select_changed(backend, uid, version),
            "found",
            Expr::val(1).eq(1),
        )
        .and_where(Expr::col(("cursor", user_cursor::Column::Uid)).eq(uid.as_str()));
    select.to_owned()
}

pub(super) fn select_members(channel_id: ChannelPk) -> SelectStatement {
    let cleared = Query::select()
        .column(channel::Column::ClearedRemovals)
        .from(channel::Entity)
        .and_where(Expr::col(channel::Column::Id).eq(channel_id))
        .to_owned();
    let cleared = Expr::SubQuery(None, Box::new(cleared.into()));
    select_stored_members(channel_id)
        .and_where(Expr::col(Column::JoinedRemovals).gte(cleared))
        .to_owned()
}

fn select_stored_members(channel_id: ChannelPk) -> SelectStatement {
    Query::select()
        .column(Column::Uid)
        .from(Entity)
        .and_where(Expr::col(Column::ChannelId).eq(channel_id))
        .and_where(Expr::col(Column::Membership).ne(Membership::Left.stored()))
        .to_owned()
}

/// Selects users after `after`, in order, whose rows still say member although a removal of all
/// members has a higher number.
pub(super) fn select_removed_members(
    channel_id: ChannelPk,
    number: i64,
    after: &str,
    limit: u64,
) -> SelectStatement {
    select_stored_members(channel_id)
        .and_where(Expr::col(Column::JoinedRemovals).lt(number))
        .and_where(Expr::col(Column::Uid).gt(after))
        .order_by(Column::Uid, Order::Asc)
        .limit(limit)
        .to_owned()
}

/// See [`super::super::hot_statements`].
pub(in super::super) fn hot_statements(
    backend: DbBackend,
    uid: &str,
    channel_id: ChannelPk,
) -> Vec<(&'static str, SelectStatement, &'static [&'static str])> {
    let (Ok(uid), Ok(nobody)) = (Uid::parse("uid", uid), Uid::parse("uid", "nobody")) else {
        return Vec::new();
    };
    let pairs = [(&uid, channel_id), (&nobody, channel_id)];
    let of_user: &[&str] = &["conversation", "c", "message", "sender_mark", "own", "mark"];
    let several: &[&str] = &[
        "conversation",
        "c",
        "channel",
        "ch",
        "sender_mark",
        "own",
        "mark",
    ];
    vec![
        (
            "a full list",
            select_changed_with_cursor(backend, &uid, Version::ZERO),
            of_user,
        ),
        (
            "what changed",
            select_changed_with_cursor(backend, &uid, Version(1)),
            of_user,
        ),
        (
            "changes, under the lock",
            select_changed(backend, &uid, Version(1)),
            of_user,
        ),
        (
            "changes of several users",
            select_changed_of_users(backend, &[(&uid, Version(1)), (&nobody, Version(1))]),
            of_user,
        ),
        (
            "several conversations",
            select_by_ids(backend, &pairs),
            several,
        ),
        (
            "one conversation",
            select_by_ids(backend, &pairs[..1]),
            several,
        ),
        (
            "member views",
            select_member_views(backend, &pairs),
            several,
        ),
        (
            "members",
            select_members(channel_id),
            &["conversation", "channel"],
        ),
        (
            "removed members",
            select_removed_members(channel_id, 1, uid.as_str(), 500),
            &["conversation"],
        ),
        (
            "channels of a user",
            select_channel_ids(&uid),
            &["conversation"],
        ),
        (
            "users with stale conversations",
            select_stale_users(backend, &[uid.as_str(), "nobody"]),
            &["conversation", "c"],
        ),
        (
            "counts",
            super::counts::example(&uid, channel_id),
            &["message", "m", "late_message", "l", "channel", "ch"],
        ),
    ]
}
