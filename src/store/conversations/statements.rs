//! The statements that read conversations. In all of them `c` is the conversation, `ch` its
//! channel, `own` the user's sender mark.

use entity::conversation::{Column, Entity};
use entity::{channel, sender_mark, user_cursor};
use sea_orm::DbBackend;
use sea_orm::sea_query::{
    Alias, CaseStatement, ColumnRef, Condition, Expr, ExprTrait, IntoColumnRef, JoinType, Order,
    Query, SelectStatement, Value,
};

use super::super::rows::{for_each, is_one_of, lateral, listed};
use super::{COLUMNS, Membership};
use crate::ids::{ChannelType, Uid, Version};

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

/// All members were removed since the user joined, and the row does not say so yet.
fn is_cleared() -> Expr {
    let joined_before = Expr::col(("ch", channel::Column::ClearedRemovals))
        .gt(Expr::col(("c", Column::JoinedRemovals)));
    joined_before.and(Expr::col(("c", Column::Membership)).eq(Membership::Member.stored()))
}

/// Conversations with their heads.
fn joined(backend: DbBackend) -> SelectStatement {
    // The mark of a conversation that has seen the present revision is above every own message:
    // then no row is looked for, because NULL is equal to nothing.
    let channel_id = CaseStatement::new().case(
        Expr::col(("ch", channel::Column::Revision)).gt(Expr::col(("c", Column::MarkedRevision))),
        Expr::col(("c", Column::ChannelId)),
    );
    let mut select = from_joined();
    join_own_mark(
        backend,
        &mut select,
        channel_id.into(),
        ("c", Column::Uid).into_column_ref(),
    );
    with_columns(select)
}

/// Joins a user's mark in a channel, where there is one. PostgreSQL would rather read all marks of
/// the user in all channels; behind an OFFSET it looks up each.
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

/// Conversations with their channels: no columns yet.
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

/// The channel is of a type that shows in lists. The types stand in the text: of placeholders
/// PostgreSQL assumes that nearly all channels are of these types, and reads every channel there is
/// to find the few that are left.
fn can_be_listed() -> Expr {
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

/// Conversations by user and channel, with the user, for `with_uids`.
pub(super) fn of_pairs(backend: DbBackend, pairs: &[(&Uid, i64)]) -> SelectStatement {
    let found = joined(backend)
        .column(("c", Column::Uid))
        .and_where(Expr::col(("c", Column::Uid)).equals(("w", "uid")))
        .and_where(Expr::col(("c", Column::ChannelId)).equals(("w", "channel_id")))
        .to_owned();
    for_each(backend, pair_columns(pairs), found)
}

fn pair_columns(pairs: &[(&Uid, i64)]) -> [(&'static str, Vec<Value>); 2] {
    let (uids, ids) = pairs
        .iter()
        .map(|(uid, id)| (Value::from(uid.as_str()), Value::from(*id)))
        .unzip();
    [("uid", uids), ("channel_id", ids)]
}

/// As [`of_pairs`], also of users who have no conversation there yet, and always with the own mark.
/// Behind the user: when all members of the channel were removed last, and how many removals there
/// have been.
pub(super) fn views(backend: DbBackend, pairs: &[(&Uid, i64)]) -> SelectStatement {
    let wanted = listed(backend, pair_columns(pairs));
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
        lateral(wanted, select)
    } else {
        select
    }
}

pub(super) fn channel_ids_of(uid: &Uid) -> SelectStatement {
    Query::select()
        .column(Column::ChannelId)
        .from(Entity)
        .and_where(Expr::col(Column::Uid).eq(uid.as_str()))
        .and_where(Expr::col(Column::Membership).ne(Membership::Left.stored()))
        .to_owned()
}

/// Those of these users who have a conversation with something new that has no version yet.
pub(super) fn stale_of(backend: DbBackend, uids: &[&str]) -> SelectStatement {
    from_joined()
        .distinct()
        .column(("c", Column::Uid))
        .and_where(is_one_of(backend, ("c", Column::Uid), uids.iter().copied()))
        .and_where(can_be_listed())
        .and_where(is_stale())
        .to_owned()
}

/// Those that can show in a list and changed since `version`, or are stale; 0: all of them.
pub(super) fn changed(backend: DbBackend, uid: &Uid, version: Version) -> SelectStatement {
    let mut select = joined(backend);
    select
        .and_where(Expr::col(("c", Column::Uid)).eq(uid.as_str()))
        .and_where(can_be_listed());
    if version > 0 {
        let newer = Expr::col(("c", Column::Version)).gt(version);
        select.cond_where(Condition::any().add(newer).add(is_stale()));
    }
    select
}

/// [`changed`] for several users, with the user.
pub(super) fn changed_of(backend: DbBackend, wanted: &[(&Uid, Version)]) -> SelectStatement {
    let newer = Expr::col(("c", Column::Version)).gt(Expr::col(("w", "version")));
    let found = joined(backend)
        .column(("c", Column::Uid))
        .and_where(Expr::col(("c", Column::Uid)).equals(("w", "uid")))
        .and_where(can_be_listed())
        // A version of 0 wants everything: what has no version yet is stale.
        .cond_where(Condition::any().add(newer).add(is_stale()))
        .to_owned();
    let uids = wanted.iter().map(|(uid, _)| uid.as_str().into()).collect();
    let versions = wanted
        .iter()
        .map(|(_, version)| (*version).into())
        .collect();
    for_each(backend, [("uid", uids), ("version", versions)], found)
}

/// [`changed`] with the user's cursor, which comes back also when no conversation does.
pub(super) fn list_changed(backend: DbBackend, uid: &Uid, version: Version) -> SelectStatement {
    let mut select = Query::select();
    for (_, _, name) in COLUMNS {
        select.column(("found", name));
    }
    select
        .column(("cursor", user_cursor::Column::Version))
        .from_as(user_cursor::Entity, "cursor")
        .join_subquery(
            JoinType::LeftJoin,
            changed(backend, uid, version),
            "found",
            Expr::val(1).eq(1),
        )
        .and_where(Expr::col(("cursor", user_cursor::Column::Uid)).eq(uid.as_str()));
    select.to_owned()
}

pub(super) fn members_of(channel_id: i64) -> SelectStatement {
    let cleared = Query::select()
        .column(channel::Column::ClearedRemovals)
        .from(channel::Entity)
        .and_where(Expr::col(channel::Column::Id).eq(channel_id))
        .to_owned();
    let cleared = Expr::SubQuery(None, Box::new(cleared.into()));
    stored_members_of(channel_id)
        .and_where(Expr::col(Column::JoinedRemovals).gte(cleared))
        .to_owned()
}

fn stored_members_of(channel_id: i64) -> SelectStatement {
    Query::select()
        .column(Column::Uid)
        .from(Entity)
        .and_where(Expr::col(Column::ChannelId).eq(channel_id))
        .and_where(Expr::col(Column::Membership).ne(Membership::Left.stored()))
        .to_owned()
}

/// Users after `after` whose rows say member, although a removal of all members has a higher
/// number, in order.
pub(super) fn removed_of(channel_id: i64, number: i64, after: &str, limit: u64) -> SelectStatement {
    stored_members_of(channel_id)
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
    channel_id: i64,
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
        ("a full list", list_changed(backend, &uid, 0), of_user),
        ("what changed", list_changed(backend, &uid, 1), of_user),
        (
            "what changed, under the lock",
            changed(backend, &uid, 1),
            of_user,
        ),
        (
            "what changed for several",
            changed_of(backend, &[(&uid, 1), (&nobody, 1)]),
            of_user,
        ),
        ("several conversations", of_pairs(backend, &pairs), several),
        ("one conversation", of_pairs(backend, &pairs[..1]), several),
        (
            "conversations and those that are not there",
            views(backend, &pairs),
            several,
        ),
        (
            "members",
            members_of(channel_id),
            &["conversation", "channel"],
        ),
        (
            "removed members",
            removed_of(channel_id, 1, uid.as_str(), 500),
            &["conversation"],
        ),
        (
            "channels of a subscriber",
            channel_ids_of(&uid),
            &["conversation"],
        ),
        (
            "subscribers who are behind",
            stale_of(backend, &[uid.as_str(), "nobody"]),
            &["conversation", "c"],
        ),
        (
            "counts",
            super::counts::example(&uid, channel_id),
            &["message", "m", "late_message", "l", "channel", "ch"],
        ),
    ]
}
