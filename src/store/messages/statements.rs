//! The SELECT statements for messages, in the form that each planner can use.

use entity::channel;
use entity::message::{Column, Entity};
use sea_orm::sea_query::{
    CaseStatement, Condition, Expr, ExprTrait, Func, JoinType, Order, Query, SelectStatement,
};
use sea_orm::{DbBackend, Value};

use super::{COLUMNS, MessagePosition, SeqRange};
use crate::model::{ChannelPk, MessageId, Seq};
use crate::store::bulk::{is_one_of, join_values, pad_to_power_of_two};

fn select() -> SelectStatement {
    Query::select()
        .columns(COLUMNS.map(|column| (Entity, column)))
        .from(Entity)
        .to_owned()
}

/// Selects the columns of [`PartialMessage`](super::PartialMessage): payloads of at most `up_to` bytes, and the lengths of
/// all payloads, each with its stream's state. A length is read without its payload.
pub(super) fn select_up_to(backend: DbBackend, up_to: usize) -> SelectStatement {
    let length_of = |column| Expr::from(Func::cust("LENGTH").arg(Expr::col((Entity, column))));
    let length = || length_of(Column::Payload).add(length_of(Column::StreamState));
    let if_short = |column: Column| {
        CaseStatement::new().case(
            length().lte(i64::try_from(up_to).unwrap_or(i64::MAX)),
            Expr::col((Entity, column)),
        )
    };
    let bytes = if backend == DbBackend::Postgres {
        length().cast_as("bigint")
    } else {
        length()
    };
    let rest = COLUMNS
        .into_iter()
        .filter(|column| !matches!(column, Column::StreamState | Column::Payload));
    let mut select = Query::select()
        .columns(rest.map(|column| (Entity, column)))
        .from(Entity)
        .to_owned();
    select
        .expr_as(if_short(Column::StreamState), "stream_state")
        .expr_as(if_short(Column::Payload), "payload")
        .expr_as(bytes, "payload_bytes")
        .to_owned()
}

/// Selects ranges in the form that each planner can use: if the ranges are a joined table, MySQL
/// and MariaDB read the whole channel for each range; they need constants.
pub(super) fn in_windows(
    backend: DbBackend,
    mut select: SelectStatement,
    windows: &[SeqRange],
) -> SelectStatement {
    if backend == DbBackend::MySql {
        let any = pad_to_power_of_two(windows.to_vec()).into_iter().fold(
            Condition::any(),
            |any, window| {
                let seqs = Expr::col(Column::Seq).between(window.from, window.to);
                any.add(Expr::col(Column::ChannelId).eq(window.channel_id).and(seqs))
            },
        );
        return select.cond_where(any).to_owned();
    }
    let wanted = [
        (
            "channel_id",
            windows
                .iter()
                .map(|window| window.channel_id.into())
                .collect(),
        ),
        (
            "from",
            windows.iter().map(|window| window.from.into()).collect(),
        ),
        (
            "to",
            windows.iter().map(|window| window.to.into()).collect(),
        ),
    ];
    let found = select
        .and_where(Expr::col((Entity, Column::ChannelId)).equals(("w", "channel_id")))
        .and_where(
            Expr::col((Entity, Column::Seq))
                .between(Expr::col(("w", "from")), Expr::col(("w", "to"))),
        )
        .to_owned();
    join_values(backend, wanted, found)
}

pub(super) fn newest_bounds(heads: &[MessagePosition], count: u64) -> SelectStatement {
    // Messages newer than the head that was read belong to a later answer.
    let head = heads.iter().fold(CaseStatement::new(), |case, head| {
        case.case(
            Expr::col((channel::Entity, channel::Column::Id)).eq(head.channel_id),
            head.seq,
        )
    });
    let bound = Query::select()
        .column(Column::Seq)
        .from(Entity)
        .and_where(
            Expr::col((Entity, Column::ChannelId)).equals((channel::Entity, channel::Column::Id)),
        )
        .and_where(Expr::col((Entity, Column::Seq)).lte(head))
        .order_by(Column::Seq, Order::Desc)
        .limit(1)
        .offset(count.saturating_sub(1))
        .to_owned();
    Query::select()
        .column((channel::Entity, channel::Column::Id))
        .expr(Expr::SubQuery(None, Box::new(bound.into())))
        .from(channel::Entity)
        .and_where(
            Expr::col((channel::Entity, channel::Column::Id))
                .is_in(heads.iter().map(|head| head.channel_id)),
        )
        .to_owned()
}

/// Selects messages by the internal ids of their channels and their global ids. MySQL and MariaDB
/// need constants, see [`in_windows`].
pub(super) fn by_message_ids(
    backend: DbBackend,
    mut select: SelectStatement,
    ids: &[(ChannelPk, MessageId)],
) -> SelectStatement {
    if backend == DbBackend::MySql {
        let any = pad_to_power_of_two(ids.to_vec()).into_iter().fold(
            Condition::any(),
            |any, (channel_id, message_id)| {
                any.add(
                    Expr::col(Column::ChannelId)
                        .eq(channel_id)
                        .and(Expr::col(Column::MessageId).eq(message_id)),
                )
            },
        );
        return select.cond_where(any).to_owned();
    }
    let (channels, messages) = ids
        .iter()
        .map(|(channel, message)| (Value::from(*channel), Value::from(*message)))
        .unzip();
    select
        .and_where(Expr::col((Entity, Column::ChannelId)).equals(("w", "channel_id")))
        .and_where(Expr::col((Entity, Column::MessageId)).equals(("w", "message_id")));
    join_values(
        backend,
        [("channel_id", channels), ("message_id", messages)],
        select,
    )
}

/// Selects the payloads and the stream states of ranges with their positions.
pub(super) fn payloads(backend: DbBackend, windows: &[SeqRange]) -> SelectStatement {
    let columns = [
        Column::ChannelId,
        Column::Seq,
        Column::StreamState,
        Column::Payload,
    ]
    .map(|column| (Entity, column));
    in_windows(
        backend,
        Query::select().columns(columns).from(Entity).to_owned(),
        windows,
    )
}

pub(super) fn page(
    mut select: SelectStatement,
    window: SeqRange,
    limit: u64,
    newest: bool,
) -> SelectStatement {
    select
        .and_where(Expr::col(Column::ChannelId).eq(window.channel_id))
        .and_where(Expr::col(Column::Seq).between(window.from, window.to))
        .order_by(Column::Seq, if newest { Order::Desc } else { Order::Asc })
        .limit(limit)
        .to_owned()
}

pub(super) fn by_client_msg_nos(
    backend: DbBackend,
    named: &[(ChannelPk, &str, &str)],
) -> SelectStatement {
    if backend == DbBackend::MySql {
        // Constants: with a joined table MySQL and MariaDB would read the whole channel if most
        // messages have the same number, or none.
        let any = pad_to_power_of_two(named.to_vec()).into_iter().fold(
            Condition::any(),
            |any, (channel_id, from, no)| {
                any.add(
                    Expr::col(Column::ChannelId)
                        .eq(channel_id)
                        .and(Expr::col(Column::ClientMsgNo).eq(no))
                        .and(Expr::col(Column::FromUid).eq(from)),
                )
            },
        );
        return select().cond_where(any).to_owned();
    }
    let wanted = [
        (
            "channel_id",
            named
                .iter()
                .map(|(channel_id, ..)| (*channel_id).into())
                .collect(),
        ),
        (
            "from_uid",
            named.iter().map(|(_, from, _)| (*from).into()).collect(),
        ),
        (
            "client_msg_no",
            named.iter().map(|(.., no)| (*no).into()).collect(),
        ),
    ];
    let by_number = |table: &'static str| {
        Condition::all()
            .add(Expr::col((table, Column::ChannelId)).equals(("w", "channel_id")))
            .add(Expr::col((table, Column::ClientMsgNo)).equals(("w", "client_msg_no")))
    };
    let mut found = select()
        .and_where(Expr::col((Entity, Column::FromUid)).equals(("w", "from_uid")))
        .to_owned();
    if backend == DbBackend::Sqlite {
        // SQLite would read the whole channel instead of the index and the few matching messages;
        // the join on the key makes it read the index alone first.
        let same = Condition::all()
            .add(Expr::col((Entity, Column::ChannelId)).equals(("k", Column::ChannelId)))
            .add(Expr::col((Entity, Column::Seq)).equals(("k", Column::Seq)));
        found
            .join_as(JoinType::InnerJoin, Entity, "k", same)
            .cond_where(by_number("k"));
    } else {
        found.cond_where(by_number("message"));
    }
    join_values(backend, wanted, found)
}

/// Selects the first message with each of these client numbers, whoever sent it.
pub(super) fn first_by_client_msg_nos(
    backend: DbBackend,
    channel_id: ChannelPk,
    numbers: &[&str],
) -> SelectStatement {
    Query::select()
        .column(Column::ClientMsgNo)
        .expr(Func::min(Expr::col(Column::Seq)))
        .from(Entity)
        .and_where(Expr::col(Column::ChannelId).eq(channel_id))
        .and_where(is_one_of(
            backend,
            Column::ClientMsgNo,
            numbers.iter().copied(),
        ))
        .group_by_col(Column::ClientMsgNo)
        .to_owned()
}

/// See [`crate::store::hot_statements`].
pub(in crate::store) fn hot_statements(
    backend: DbBackend,
    channel_id: ChannelPk,
) -> Vec<(&'static str, SelectStatement, &'static [&'static str])> {
    let windows: Vec<SeqRange> = (0..20)
        .map(|_| SeqRange {
            channel_id,
            from: Seq(380),
            to: Seq(400),
        })
        .collect();
    vec![
        (
            "recent messages",
            in_windows(backend, select_up_to(backend, 500), &windows),
            &["message"],
        ),
        ("long payloads", payloads(backend, &windows), &["message"]),
        (
            "first seqs of the newest",
            newest_bounds(
                &[MessagePosition {
                    channel_id,
                    seq: Seq(400),
                }],
                20,
            ),
            &["message"],
        ),
        (
            "messages by their ids",
            by_message_ids(
                backend,
                select_up_to(backend, 500),
                &[(channel_id, MessageId(1)), (channel_id, MessageId(2))],
            ),
            &["message"],
        ),
        (
            "a page of messages",
            page(select_up_to(backend, 500), windows[0], 20, true),
            &["message"],
        ),
        (
            "a repeated send",
            by_client_msg_nos(
                backend,
                &[(channel_id, "bob", "c1"), (channel_id, "cat", "c2")],
            ),
            &["message"],
        ),
        (
            "first messages by client numbers",
            first_by_client_msg_nos(backend, channel_id, &["c1", "c2"]),
            &["message"],
        ),
    ]
}
