//! Counts that the mark and the head of a conversation do not contain: messages that were read
//! before they arrived, and messages that arrived late. Both are rare, so a separate statement
//! counts them and reads the head again: a row is valid with any newer head, but a head and counts
//! must come from the same snapshot.
//!
//! The bounds are constants in the statement: MySQL and MariaDB cannot use a range on the second
//! column of a key if its bounds come from a joined table.

use entity::{channel, late_message, message, sender_mark};
use sea_orm::DbBackend;
use sea_orm::sea_query::{
    Condition, Expr, ExprTrait, Func, JoinType, Query, SelectStatement, UnionType,
};

use super::super::bulk::pad_to_power_of_two;
use super::super::{RunQuery, StoreError};
use super::Columns;
use crate::model::{
    ChannelKey, ChannelPk, ChannelType, ConversationRow, Counts, Revision, SenderMark, Seq, Uid,
};

/// Maximum number of conversations in one statement.
const ROWS_PER_STATEMENT: usize = 64;

/// A conversation that may need counts, and the seq up to which its user wants to read, if given.
pub(crate) struct CountRequest<'a> {
    pub(crate) uid: &'a Uid,
    pub(crate) row: &'a mut ConversationRow,
    pub(crate) up_to: Option<Seq>,
}

/// Counts for the rows that need it. They get the current head with the counts.
pub(super) async fn count(
    connection: &impl RunQuery,
    rows: &mut [CountRequest<'_>],
) -> Result<(), StoreError> {
    let mut open: Vec<&mut CountRequest> = rows
        .iter_mut()
        .filter(|counted| counted.row.needs_counts(counted.up_to))
        .collect();
    while !open.is_empty() {
        let mut again = Vec::new();
        for some in chunks(&mut open) {
            let statement = heads_and_counts(connection.backend(), &some);
            let mut some: Vec<Option<&mut CountRequest>> = some.into_iter().map(Some).collect();
            for found in connection.run_query(&statement).await? {
                let columns = &mut Columns::new(&found);
                let at = usize::try_from(columns.next::<i64>()?).unwrap_or(usize::MAX);
                let Some(counted) = some.get_mut(at).and_then(Option::take) else {
                    continue;
                };
                if !take_over(counted.row, columns)? {
                    again.push(counted);
                }
            }
        }
        open = again;
    }
    Ok(())
}

fn chunks<'a, 'b>(open: &mut Vec<&'b mut CountRequest<'a>>) -> Vec<Vec<&'b mut CountRequest<'a>>> {
    let mut chunks = Vec::with_capacity(open.len().div_ceil(ROWS_PER_STATEMENT));
    while !open.is_empty() {
        chunks.push(open.drain(..open.len().min(ROWS_PER_STATEMENT)).collect());
    }
    chunks
}

/// Sets the head and the counts. Returns false if a newer own message moved the position, and with
/// it the bounds.
fn take_over(row: &mut ConversationRow, columns: &mut Columns<'_>) -> Result<bool, StoreError> {
    row.last_seq = columns.next()?;
    row.revision = columns.next()?;
    row.red_dots = columns.next()?;
    row.last_message_at = columns.next()?;
    row.late_revision = columns.next()?;
    let own = SenderMark {
        seq: columns.number()?,
        red_dots: columns.number()?,
        revision: columns.number()?,
    };
    let is_same = own == row.own || own.seq <= row.read_seq;
    row.own = own;
    row.counts = Counts {
        ahead: columns.next()?,
        late: columns.next()?,
        late_own: columns.next()?,
        above: columns.next()?,
    };
    Ok(is_same)
}

fn heads_and_counts(backend: DbBackend, rows: &[&mut CountRequest<'_>]) -> SelectStatement {
    let of = |at: usize| head_and_counts(at, rows[at].uid, rows[at].row, rows[at].up_to);
    let mut all = pad_to_power_of_two((0..rows.len()).collect()).into_iter();
    let mut statement = of(all.next().unwrap_or_default());
    if backend == DbBackend::MySql {
        statement.unions(all.map(|at| (UnionType::All, of(at))));
    } else {
        statement.unions((1..rows.len()).map(|at| (UnionType::All, of(at))));
    }
    statement
}

/// Selects the head and all counts, even those that are not needed, because the head may have
/// moved. Ranges that are not needed are empty.
fn head_and_counts(
    at: usize,
    uid: &Uid,
    row: &ConversationRow,
    up_to: Option<Seq>,
) -> SelectStatement {
    let position = Ord::max(
        Ord::max(row.read_seq, row.own.seq),
        up_to.unwrap_or_default(),
    );
    let own_revision = if row.own.seq > row.read_seq {
        row.own.revision
    } else {
        Revision(i64::MAX)
    };
    let seq = || Expr::col(("m", message::Column::Seq));
    let messages = |seqs: Condition| {
        let red = Expr::col(("m", message::Column::RedDot)).eq(true);
        let all = Condition::all()
            .add(Expr::col(("m", message::Column::ChannelId)).eq(row.channel_id))
            .add(seqs)
            .add(red);
        number(
            Query::select()
                .from_as(message::Entity, "m")
                .expr(Func::count(seq()))
                .cond_where(all)
                .to_owned(),
        )
    };
    let late = |revision: Revision, up_to: Seq| {
        let all = Condition::all()
            .add(Expr::col(("l", late_message::Column::ChannelId)).eq(row.channel_id))
            .add(Expr::col(("l", late_message::Column::Revision)).gt(revision))
            .add(Expr::col(("l", late_message::Column::Seq)).lte(up_to));
        let count = Func::count(Expr::col(("l", late_message::Column::Seq)));
        number(
            Query::select()
                .from_as(late_message::Entity, "l")
                .expr(count)
                .cond_where(all)
                .to_owned(),
        )
    };
    let of_others = Expr::col(("m", message::Column::FromUid)).ne(uid.as_str());
    let above = if up_to.is_some() { position } else { Seq::MAX };
    let head = [
        channel::Column::LastSeq,
        channel::Column::Revision,
        channel::Column::RedDots,
        channel::Column::LastMessageAt,
        channel::Column::LateRevision,
    ];
    let own = [
        sender_mark::Column::Seq,
        sender_mark::Column::RedDots,
        sender_mark::Column::Revision,
    ];
    Query::select()
        .expr(Expr::val(i64::try_from(at).unwrap_or(i64::MAX)))
        .columns(head.map(|column| ("ch", column)))
        .columns(own.map(|column| ("own", column)))
        .expr(messages(
            Condition::all()
                .add(seq().gt(row.marked_seq))
                .add(seq().lte(row.read_seq)),
        ))
        .expr(late(
            row.marked_revision,
            Ord::min(row.marked_seq, position),
        ))
        .expr(late(own_revision, row.own.seq))
        .expr(messages(
            Condition::all().add(seq().gt(above)).add(of_others),
        ))
        .from_as(channel::Entity, "ch")
        .join_as(
            JoinType::LeftJoin,
            sender_mark::Entity,
            "own",
            Condition::all()
                .add(
                    Expr::col(("own", sender_mark::Column::ChannelId))
                        .equals(("ch", channel::Column::Id)),
                )
                .add(Expr::col(("own", sender_mark::Column::Uid)).eq(uid.as_str())),
        )
        .and_where(Expr::col(("ch", channel::Column::Id)).eq(row.channel_id))
        .to_owned()
}

fn number(select: SelectStatement) -> Expr {
    Expr::SubQuery(None, Box::new(select.into()))
}

/// The statement for two conversations that need all counts.
pub(super) fn example(uid: &Uid, channel_id: ChannelPk) -> SelectStatement {
    let key = ChannelKey {
        channel_type: ChannelType::GROUP,
        key: String::new(),
    };
    let empty = ConversationRow::empty(channel_id, key);
    let row = ConversationRow {
        read_seq: Seq(395),
        marked_seq: Seq(390),
        marked_revision: Revision(390),
        ..empty
    };
    let mut statement = head_and_counts(0, uid, &row, Some(Seq(395)));
    statement
        .unions([(
            UnionType::All,
            head_and_counts(1, uid, &row, Some(Seq(395))),
        )])
        .to_owned()
}
