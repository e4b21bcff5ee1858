//! `message`: what was said.

use std::collections::HashMap;

use entity::channel;
use entity::message::{Column, Entity, Model};
use sea_orm::sea_query::{
    CaseStatement, Condition, Expr, ExprTrait, Func, JoinType, Order, Query, SelectStatement,
};
use sea_orm::{DbBackend, DbErr, QueryResult, Value};

use super::rows::{self, Target, for_each, is_one_of, padded};
use super::{Ask, ROWS_PER_STATEMENT, Store, StoreError, Tx};
use crate::ids::Seq;

/// Channels of one statement that reads ranges: the planners of MySQL and MariaDB give up on longer
/// lists.
const RANGES_PER_STATEMENT: usize = 1000;
/// A CASE of more branches is slow to plan.
const HEADS_PER_STATEMENT: usize = 200;
/// Messages that one statement names by channel and id: longer lists of alternatives are slow to
/// plan on MySQL and MariaDB.
const IDS_PER_STATEMENT: usize = 256;
/// Bytes of payload in one statement: below the packet size that MySQL takes by default.
const BYTES_PER_STATEMENT: usize = 4 << 20;
/// The parameters of a message row allow fewer rows than [`ROWS_PER_STATEMENT`].
const MESSAGES_PER_STATEMENT: usize = 500;

/// A range of one channel's messages, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The channel's internal id.
    pub channel_id: i64,
    /// The first seq.
    pub from: Seq,
    /// The last seq.
    pub to: Seq,
}

/// Where a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The channel's internal id.
    pub channel_id: i64,
    /// Its number there.
    pub seq: Seq,
}

const COLUMNS: [Column; 14] = [
    Column::ChannelId,
    Column::Seq,
    Column::MessageId,
    Column::ClientMsgNo,
    Column::FromUid,
    Column::SentAt,
    Column::RedDot,
    Column::Setting,
    Column::Topic,
    Column::Expire,
    Column::StreamNo,
    Column::StreamSeq,
    Column::StreamFlag,
    Column::Payload,
];

fn model(row: &QueryResult) -> Result<Model, DbErr> {
    Ok(Model {
        channel_id: row.try_get_by_index(0)?,
        seq: row.try_get_by_index(1)?,
        message_id: row.try_get_by_index(2)?,
        client_msg_no: row.try_get_by_index(3)?,
        from_uid: row.try_get_by_index(4)?,
        sent_at: row.try_get_by_index(5)?,
        red_dot: row.try_get_by_index(6)?,
        setting: row.try_get_by_index(7)?,
        topic: row.try_get_by_index(8)?,
        expire: row.try_get_by_index(9)?,
        stream_no: row.try_get_by_index(10)?,
        stream_seq: row.try_get_by_index(11)?,
        stream_flag: row.try_get_by_index(12)?,
        payload: row
            .try_get_by_index::<Option<Vec<u8>>>(13)?
            .unwrap_or_default(),
    })
}

/// A message, and how long its payload is: of long ones the payload may not have been read yet.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) message: Model,
    /// Bytes of the payload.
    pub(crate) payload_bytes: usize,
}

impl Measured {
    fn read(row: &QueryResult) -> Result<Self, DbErr> {
        let bytes: i64 = row.try_get_by_index(COLUMNS.len())?;
        Ok(Self {
            message: model(row)?,
            payload_bytes: usize::try_from(bytes).unwrap_or_default(),
        })
    }

    fn lacks_payload(&self) -> bool {
        self.message.payload.len() < self.payload_bytes
    }

    fn position(&self) -> Position {
        Position {
            channel_id: self.message.channel_id,
            seq: self.message.seq,
        }
    }
}

fn models(rows: &[QueryResult]) -> Result<Vec<Model>, StoreError> {
    rows.iter()
        .map(|row| model(row).map_err(StoreError::from))
        .collect()
}

fn select() -> SelectStatement {
    Query::select()
        .columns(COLUMNS.map(|column| (Entity, column)))
        .from(Entity)
        .to_owned()
}

/// The columns of [`Measured`]: payloads of at most `up_to` bytes, and how long all of them are. A
/// length is read without the payload.
fn select_up_to(backend: DbBackend, up_to: usize) -> SelectStatement {
    let payload = || Expr::col((Entity, Column::Payload));
    let length = || Expr::from(Func::cust("LENGTH").arg(payload()));
    let short = CaseStatement::new().case(
        length().lte(i64::try_from(up_to).unwrap_or(i64::MAX)),
        payload(),
    );
    let bytes = if backend == DbBackend::Postgres {
        length().cast_as("bigint")
    } else {
        length()
    };
    let rest = COLUMNS
        .into_iter()
        .filter(|column| !matches!(column, Column::Payload));
    let mut select = Query::select()
        .columns(rest.map(|column| (Entity, column)))
        .from(Entity)
        .to_owned();
    select
        .expr_as(short, "payload")
        .expr_as(bytes, "payload_bytes")
        .to_owned()
}

/// Ranges by the shape that each planner can use: of a list that is joined, MySQL and MariaDB read
/// the whole channel for each range; they need the ranges as constants.
fn in_windows(
    backend: DbBackend,
    mut select: SelectStatement,
    windows: &[Window],
) -> SelectStatement {
    if backend == DbBackend::MySql {
        let any = padded(windows.to_vec())
            .into_iter()
            .fold(Condition::any(), |any, window| {
                let seqs = Expr::col(Column::Seq).between(window.from, window.to);
                any.add(Expr::col(Column::ChannelId).eq(window.channel_id).and(seqs))
            });
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
    for_each(backend, wanted, found)
}

fn newest_bounds(heads: &[Position], count: u64) -> SelectStatement {
    // What came after the head that was read belongs to a later answer.
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

/// Messages by the internal ids of their channels and their global ids. As constants on MySQL and
/// MariaDB, see [`in_windows`].
fn by_message_ids(
    backend: DbBackend,
    mut select: SelectStatement,
    ids: &[(i64, i64)],
) -> SelectStatement {
    if backend == DbBackend::MySql {
        let any = padded(ids.to_vec()).into_iter().fold(
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
    for_each(
        backend,
        [("channel_id", channels), ("message_id", messages)],
        select,
    )
}

/// The payloads of these ranges, and whose they are.
fn payloads(backend: DbBackend, windows: &[Window]) -> SelectStatement {
    let columns = [Column::ChannelId, Column::Seq, Column::Payload].map(|column| (Entity, column));
    in_windows(
        backend,
        Query::select().columns(columns).from(Entity).to_owned(),
        windows,
    )
}

fn page(mut select: SelectStatement, window: Window, limit: u64, newest: bool) -> SelectStatement {
    select
        .and_where(Expr::col(Column::ChannelId).eq(window.channel_id))
        .and_where(Expr::col(Column::Seq).between(window.from, window.to))
        .order_by(Column::Seq, if newest { Order::Desc } else { Order::Asc })
        .limit(limit)
        .to_owned()
}

fn by_client_msg_nos(backend: DbBackend, named: &[(i64, &str, &str)]) -> SelectStatement {
    if backend == DbBackend::MySql {
        // As constants: of a list that is joined they read the whole channel where most messages
        // have the same number, or none.
        let any = padded(named.to_vec()).into_iter().fold(
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
        // SQLite would rather read the whole channel than an index and then a few of its messages;
        // the index alone it reads.
        let same = Condition::all()
            .add(Expr::col((Entity, Column::ChannelId)).equals(("k", Column::ChannelId)))
            .add(Expr::col((Entity, Column::Seq)).equals(("k", Column::Seq)));
        found
            .join_as(JoinType::InnerJoin, Entity, "k", same)
            .cond_where(by_number("k"));
    } else {
        found.cond_where(by_number("message"));
    }
    for_each(backend, wanted, found)
}

async fn find_by_client_msg_nos(
    connection: &impl Ask,
    named: &[(i64, &str, &str)],
) -> Result<Vec<Model>, StoreError> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = models(
        &connection
            .ask(&by_client_msg_nos(connection.backend(), named))
            .await?,
    )?;
    found.sort_unstable_by_key(|message| message.seq);
    Ok(found)
}

async fn find_positions(
    connection: &impl Ask,
    positions: &[Position],
) -> Result<HashMap<Position, i64>, StoreError> {
    let mut found = HashMap::new();
    for positions in positions.chunks(ROWS_PER_STATEMENT / 4) {
        let mut channels: HashMap<i64, Vec<Seq>> = HashMap::new();
        for position in positions {
            channels
                .entry(position.channel_id)
                .or_default()
                .push(position.seq);
        }
        let any = channels
            .into_iter()
            .fold(Condition::any(), |any, (channel_id, seqs)| {
                any.add(Expr::col(Column::ChannelId).eq(channel_id).and(is_one_of(
                    connection.backend(),
                    Column::Seq,
                    seqs,
                )))
            });
        let statement = Query::select()
            .columns([Column::MessageId, Column::ChannelId, Column::Seq])
            .from(Entity)
            .cond_where(any)
            .to_owned();
        for row in connection.ask(&statement).await? {
            let position = Position {
                channel_id: row.try_get_by_index(1)?,
                seq: row.try_get_by_index(2)?,
            };
            found.insert(position, row.try_get_by_index(0)?);
        }
    }
    Ok(found)
}

async fn find_message_ids(
    connection: &impl Ask,
    ids: &[(i64, i64)],
) -> Result<HashMap<(i64, i64), Seq>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(IDS_PER_STATEMENT) {
        let columns =
            [Column::ChannelId, Column::MessageId, Column::Seq].map(|column| (Entity, column));
        let select = Query::select().columns(columns).from(Entity).to_owned();
        for row in connection
            .ask(&by_message_ids(connection.backend(), select, ids))
            .await?
        {
            found.insert(
                (row.try_get_by_index(0)?, row.try_get_by_index(1)?),
                row.try_get_by_index(2)?,
            );
        }
    }
    Ok(found)
}

impl Store {
    /// The messages of ranges, by channel, newest first; payloads of at most `up_to` bytes.
    pub(crate) async fn list_windows(
        &self,
        windows: &[Window],
        up_to: usize,
    ) -> Result<HashMap<i64, Vec<Measured>>, StoreError> {
        let mut by_channel: HashMap<i64, Vec<Measured>> = HashMap::with_capacity(windows.len());
        for windows in windows.chunks(RANGES_PER_STATEMENT) {
            let statement =
                in_windows(self.backend(), select_up_to(self.backend(), up_to), windows);
            for row in self.query_all(&statement).await? {
                let measured = Measured::read(&row)?;
                by_channel
                    .entry(measured.message.channel_id)
                    .or_default()
                    .push(measured);
            }
        }
        for messages in by_channel.values_mut() {
            messages.sort_unstable_by_key(|measured| std::cmp::Reverse(measured.message.seq));
        }
        Ok(by_channel)
    }

    /// Reads the payloads that were too long to be read with their messages.
    pub(crate) async fn read_payloads(
        &self,
        messages: Vec<&mut Measured>,
    ) -> Result<(), StoreError> {
        let mut lacking: HashMap<Position, &mut Measured> = messages
            .into_iter()
            .filter(|measured| measured.lacks_payload())
            .map(|lacks| (lacks.position(), lacks))
            .collect();
        let windows: Vec<Window> = lacking
            .keys()
            .map(|at| Window {
                channel_id: at.channel_id,
                from: at.seq,
                to: at.seq,
            })
            .collect();
        for windows in windows.chunks(RANGES_PER_STATEMENT) {
            for row in self.query_all(&payloads(self.backend(), windows)).await? {
                let position = Position {
                    channel_id: row.try_get_by_index(0)?,
                    seq: row.try_get_by_index(1)?,
                };
                if let Some(measured) = lacking.get_mut(&position) {
                    measured.message.payload = row.try_get_by_index(2)?;
                }
            }
        }
        Ok(())
    }

    /// Where the newest `count` messages up to a head of each channel begin, whatever holes its
    /// seqs have. Channels with fewer are not in the answer.
    pub(crate) async fn list_newest_bounds(
        &self,
        heads: &[Position],
        count: u64,
    ) -> Result<HashMap<i64, Seq>, StoreError> {
        let mut bounds = HashMap::new();
        for heads in heads.chunks(HEADS_PER_STATEMENT) {
            for row in self.query_all(&newest_bounds(heads, count)).await? {
                if let Some(seq) = row.try_get_by_index::<Option<Seq>>(1)? {
                    bounds.insert(row.try_get_by_index(0)?, seq);
                }
            }
        }
        Ok(bounds)
    }

    /// Messages by the internal ids of their channels and their global ids; payloads of at most
    /// `up_to` bytes.
    pub(crate) async fn list_messages(
        &self,
        ids: &[(i64, i64)],
        up_to: usize,
    ) -> Result<Vec<Measured>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let statement =
                by_message_ids(self.backend(), select_up_to(self.backend(), up_to), ids);
            for row in self.query_all(&statement).await? {
                found.push(Measured::read(&row)?);
            }
        }
        Ok(found)
    }

    /// The seqs of those of these messages that are stored, by their channels' internal ids and
    /// their global ids.
    pub(crate) async fn find_message_ids(
        &self,
        ids: &[(i64, i64)],
    ) -> Result<HashMap<(i64, i64), Seq>, StoreError> {
        find_message_ids(self, ids).await
    }

    /// Which of these positions are taken, and by which message.
    pub(crate) async fn find_positions(
        &self,
        positions: &[Position],
    ) -> Result<HashMap<Position, i64>, StoreError> {
        find_positions(self, positions).await
    }

    /// The messages that these senders sent to these channels under these numbers: (channel,
    /// sender, number). The oldest first.
    pub(crate) async fn find_by_client_msg_nos(
        &self,
        named: &[(i64, &str, &str)],
    ) -> Result<Vec<Model>, StoreError> {
        find_by_client_msg_nos(self, named).await
    }

    /// At most `limit` messages of a range of one channel, from its end (`newest`) or its
    /// beginning; payloads of at most `up_to` bytes.
    pub(crate) async fn list_page(
        &self,
        window: Window,
        limit: u64,
        newest: bool,
        up_to: usize,
    ) -> Result<Vec<Measured>, StoreError> {
        let statement = page(select_up_to(self.backend(), up_to), window, limit, newest);
        let rows = self.query_all(&statement).await?;
        rows.iter()
            .map(|row| Measured::read(row).map_err(StoreError::from))
            .collect()
    }
}

impl Tx {
    /// As [`Store::find_by_client_msg_nos`], of locked channels.
    pub(crate) async fn find_by_client_msg_nos(
        &self,
        named: &[(i64, &str, &str)],
    ) -> Result<Vec<Model>, StoreError> {
        find_by_client_msg_nos(self, named).await
    }

    /// As [`Store::find_message_ids`], of locked channels.
    pub(crate) async fn find_message_ids(
        &self,
        ids: &[(i64, i64)],
    ) -> Result<HashMap<(i64, i64), Seq>, StoreError> {
        find_message_ids(self, ids).await
    }

    /// As [`Store::find_positions`], of locked channels.
    pub(crate) async fn find_positions(
        &self,
        positions: &[Position],
    ) -> Result<HashMap<Position, i64>, StoreError> {
        find_positions(self, positions).await
    }

    /// How many red-dot messages of others than `uid` there are above `seq` in a locked channel.
    pub(crate) async fn count_red_dots_above(
        &self,
        channel_id: i64,
        seq: Seq,
        uid: &str,
    ) -> Result<i64, StoreError> {
        let statement = Query::select()
            .expr(Func::count(Expr::col(Column::Seq)))
            .from(Entity)
            .and_where(Expr::col(Column::ChannelId).eq(channel_id))
            .and_where(Expr::col(Column::Seq).gt(seq))
            .and_where(Expr::col(Column::RedDot).eq(true))
            .and_where(Expr::col(Column::FromUid).ne(uid))
            .to_owned();
        let row = self.open.query_one(&statement).await?;
        Ok(row
            .map(|row| row.try_get_by_index(0))
            .transpose()?
            .unwrap_or_default())
    }

    /// Stores messages. Their channels are locked.
    pub(crate) async fn insert_messages(&self, messages: &[Model]) -> Result<(), StoreError> {
        let mut rest = messages;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest
                .iter()
                .take(MESSAGES_PER_STATEMENT)
                .take_while(|message| {
                    bytes += message.payload.len();
                    bytes <= BYTES_PER_STATEMENT
                })
                .count()
                .max(1);
            let rows = rest[..fit].iter().map(|message| {
                vec![
                    message.channel_id.into(),
                    message.seq.into(),
                    message.message_id.into(),
                    message.client_msg_no.as_str().into(),
                    message.from_uid.as_str().into(),
                    message.sent_at.into(),
                    message.red_dot.into(),
                    message.setting.into(),
                    message.topic.as_str().into(),
                    message.expire.into(),
                    message.stream_no.as_str().into(),
                    message.stream_seq.into(),
                    message.stream_flag.into(),
                    message.payload.clone().into(),
                ]
            });
            let target = Target {
                columns: &COLUMNS,
                key: &[],
                update: &[],
                unchanged: Column::RedDot,
            };
            rows::write::<Entity>(&self.open, &target, rows.collect()).await?;
            rest = &rest[fit..];
        }
        Ok(())
    }
}

/// See [`super::hot_statements`].
pub(super) fn hot_statements(
    backend: DbBackend,
    channel_id: i64,
) -> Vec<(&'static str, SelectStatement, &'static [&'static str])> {
    let windows: Vec<Window> = (0..20)
        .map(|_| Window {
            channel_id,
            from: 380,
            to: 400,
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
            "where the newest begin",
            newest_bounds(
                &[Position {
                    channel_id,
                    seq: 400,
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
                &[(channel_id, 1), (channel_id, 2)],
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
    ]
}
