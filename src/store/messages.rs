//! `message`: stored messages.

use std::collections::HashMap;

use entity::channel;
use entity::message::{Column, Entity, Model};
use sea_orm::sea_query::{
    CaseStatement, Condition, Expr, ExprTrait, Func, JoinType, Order, Query, SelectStatement,
};
use sea_orm::{DbBackend, DbErr, QueryResult, Value};

use super::bulk::{self, UpsertSpec, is_one_of, join_values, pad_to_power_of_two};
use super::{ROWS_PER_STATEMENT, RunQuery, Store, StoreError, Tx};
use crate::model::{ChannelKey, ChannelPk, Content, EpochMs, Message, MessageId, Seq};

/// Maximum number of channels in one statement that reads ranges: the planners of MySQL and MariaDB
/// fall back to full scans for longer lists.
const RANGES_PER_STATEMENT: usize = 1000;
/// Maximum number of branches in one CASE: more are slow to plan.
const HEADS_PER_STATEMENT: usize = 200;
/// Maximum number of messages that one statement selects by channel and id: longer lists of
/// alternatives are slow to plan on MySQL and MariaDB.
const IDS_PER_STATEMENT: usize = 256;
/// Maximum payload bytes in one statement: below MySQL's default packet size.
const BYTES_PER_STATEMENT: usize = 4 << 20;
/// Maximum number of messages in one insert: a message row has many parameters, so the limit is
/// lower than [`ROWS_PER_STATEMENT`].
const MESSAGES_PER_STATEMENT: usize = 500;

/// A range of seqs in one channel, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// Internal id of the channel.
    pub channel_id: ChannelPk,
    /// The first seq.
    pub from: Seq,
    /// The last seq.
    pub to: Seq,
}

/// Place of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessagePosition {
    /// Internal id of the channel.
    pub channel_id: ChannelPk,
    /// The seq in the channel.
    pub seq: Seq,
}

/// A message in the form of the store.
pub(crate) type StoredMessage = Model;

impl Message {
    pub(crate) fn from_stored(stored: StoredMessage, key: &ChannelKey) -> Self {
        Self {
            channel: key.seen_by(&stored.from_uid),
            message_id: MessageId(stored.message_id),
            seq: Seq(stored.seq),
            client_msg_no: stored.client_msg_no,
            from_uid: stored.from_uid,
            sent_at: EpochMs(stored.sent_at),
            red_dot: stored.red_dot,
            content: Content {
                setting: u8::try_from(stored.setting).unwrap_or_default(),
                topic: stored.topic,
                expire: u32::try_from(stored.expire).unwrap_or_default(),
                stream_no: stored.stream_no,
                stream_seq: u32::try_from(stored.stream_seq).unwrap_or_default(),
                stream_flag: u8::try_from(stored.stream_flag).unwrap_or_default(),
                payload: stored.payload,
            },
        }
    }

    pub(crate) fn into_stored(self, channel_id: ChannelPk) -> StoredMessage {
        StoredMessage {
            channel_id: channel_id.0,
            seq: self.seq.0,
            message_id: self.message_id.0,
            client_msg_no: self.client_msg_no,
            from_uid: self.from_uid,
            sent_at: self.sent_at.0,
            red_dot: self.red_dot,
            setting: i16::from(self.content.setting),
            topic: self.content.topic,
            expire: i64::from(self.content.expire),
            stream_no: self.content.stream_no,
            stream_seq: i64::from(self.content.stream_seq),
            stream_flag: i16::from(self.content.stream_flag),
            payload: self.content.payload,
        }
    }
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

fn model(row: &QueryResult) -> Result<StoredMessage, DbErr> {
    Ok(StoredMessage {
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

/// A message with the length of its payload. A long payload may not have been read yet.
#[derive(Clone, Debug)]
pub(crate) struct PartialMessage {
    pub(crate) message: StoredMessage,
    /// Length of the payload in bytes.
    pub(crate) payload_bytes: usize,
}

impl PartialMessage {
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

    pub(crate) fn seq(&self) -> Seq {
        Seq(self.message.seq)
    }

    fn position(&self) -> MessagePosition {
        MessagePosition {
            channel_id: ChannelPk(self.message.channel_id),
            seq: self.seq(),
        }
    }
}

fn models(rows: &[QueryResult]) -> Result<Vec<StoredMessage>, StoreError> {
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

/// Selects the columns of [`PartialMessage`]: payloads of at most `up_to` bytes, and the lengths of
/// all payloads. A length is read without its payload.
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

/// Selects ranges in the form that each planner can use: if the ranges are a joined table, MySQL
/// and MariaDB read the whole channel for each range; they need constants.
fn in_windows(
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

fn newest_bounds(heads: &[MessagePosition], count: u64) -> SelectStatement {
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
fn by_message_ids(
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

/// Selects the payloads of ranges with their positions.
fn payloads(backend: DbBackend, windows: &[SeqRange]) -> SelectStatement {
    let columns = [Column::ChannelId, Column::Seq, Column::Payload].map(|column| (Entity, column));
    in_windows(
        backend,
        Query::select().columns(columns).from(Entity).to_owned(),
        windows,
    )
}

fn page(
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

fn by_client_msg_nos(backend: DbBackend, named: &[(ChannelPk, &str, &str)]) -> SelectStatement {
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

async fn find_by_client_msg_nos(
    connection: &impl RunQuery,
    named: &[(ChannelPk, &str, &str)],
) -> Result<Vec<StoredMessage>, StoreError> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = models(
        &connection
            .run_query(&by_client_msg_nos(connection.backend(), named))
            .await?,
    )?;
    found.sort_unstable_by_key(|message| message.seq);
    Ok(found)
}

async fn find_positions(
    connection: &impl RunQuery,
    positions: &[MessagePosition],
) -> Result<HashMap<MessagePosition, MessageId>, StoreError> {
    let mut found = HashMap::new();
    for positions in positions.chunks(ROWS_PER_STATEMENT / 4) {
        let mut channels: HashMap<ChannelPk, Vec<Seq>> = HashMap::new();
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
        for row in connection.run_query(&statement).await? {
            let position = MessagePosition {
                channel_id: row.try_get_by_index(1)?,
                seq: row.try_get_by_index(2)?,
            };
            found.insert(position, row.try_get_by_index(0)?);
        }
    }
    Ok(found)
}

async fn find_message_ids(
    connection: &impl RunQuery,
    ids: &[(ChannelPk, MessageId)],
) -> Result<HashMap<(ChannelPk, MessageId), Seq>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(IDS_PER_STATEMENT) {
        let columns =
            [Column::ChannelId, Column::MessageId, Column::Seq].map(|column| (Entity, column));
        let select = Query::select().columns(columns).from(Entity).to_owned();
        for row in connection
            .run_query(&by_message_ids(connection.backend(), select, ids))
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
    /// Returns the messages of ranges by channel, newest first, with payloads of at most `up_to`
    /// bytes.
    pub(crate) async fn list_windows(
        &self,
        windows: &[SeqRange],
        up_to: usize,
    ) -> Result<HashMap<ChannelPk, Vec<PartialMessage>>, StoreError> {
        let mut by_channel: HashMap<ChannelPk, Vec<PartialMessage>> =
            HashMap::with_capacity(windows.len());
        for windows in windows.chunks(RANGES_PER_STATEMENT) {
            let statement =
                in_windows(self.backend(), select_up_to(self.backend(), up_to), windows);
            for row in self.query_all(&statement).await? {
                let partial = PartialMessage::read(&row)?;
                by_channel
                    .entry(ChannelPk(partial.message.channel_id))
                    .or_default()
                    .push(partial);
            }
        }
        for messages in by_channel.values_mut() {
            messages.sort_unstable_by_key(|partial| std::cmp::Reverse(partial.message.seq));
        }
        Ok(by_channel)
    }

    /// Reads the payloads that were too long to be read with their messages.
    pub(crate) async fn read_payloads(
        &self,
        messages: Vec<&mut PartialMessage>,
    ) -> Result<(), StoreError> {
        let mut lacking: HashMap<MessagePosition, &mut PartialMessage> = messages
            .into_iter()
            .filter(|partial| partial.lacks_payload())
            .map(|partial| (partial.position(), partial))
            .collect();
        let windows: Vec<SeqRange> = lacking
            .keys()
            .map(|at| SeqRange {
                channel_id: at.channel_id,
                from: at.seq,
                to: at.seq,
            })
            .collect();
        for windows in windows.chunks(RANGES_PER_STATEMENT) {
            for row in self.query_all(&payloads(self.backend(), windows)).await? {
                let position = MessagePosition {
                    channel_id: row.try_get_by_index(0)?,
                    seq: row.try_get_by_index(1)?,
                };
                if let Some(partial) = lacking.get_mut(&position) {
                    partial.message.payload = row.try_get_by_index(2)?;
                }
            }
        }
        Ok(())
    }

    /// Returns for each channel the first seq of the newest `count` messages up to a head, even if
    /// its seqs have gaps. Channels with fewer messages are missing.
    pub(crate) async fn list_newest_bounds(
        &self,
        heads: &[MessagePosition],
        count: u64,
    ) -> Result<HashMap<ChannelPk, Seq>, StoreError> {
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

    /// Returns messages by the internal ids of their channels and their global ids, with payloads
    /// of at most `up_to` bytes.
    pub(crate) async fn list_messages(
        &self,
        ids: &[(ChannelPk, MessageId)],
        up_to: usize,
    ) -> Result<Vec<PartialMessage>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let statement =
                by_message_ids(self.backend(), select_up_to(self.backend(), up_to), ids);
            for row in self.query_all(&statement).await? {
                found.push(PartialMessage::read(&row)?);
            }
        }
        Ok(found)
    }

    /// Returns the seqs of stored messages by the internal ids of their channels and their global
    /// ids.
    pub(crate) async fn find_message_ids(
        &self,
        ids: &[(ChannelPk, MessageId)],
    ) -> Result<HashMap<(ChannelPk, MessageId), Seq>, StoreError> {
        find_message_ids(self, ids).await
    }

    /// Returns the global ids of the messages at these positions, if any.
    pub(crate) async fn find_positions(
        &self,
        positions: &[MessagePosition],
    ) -> Result<HashMap<MessagePosition, MessageId>, StoreError> {
        find_positions(self, positions).await
    }

    /// Returns the messages with these keys of (channel, sender, `client_msg_no`), oldest first.
    pub(crate) async fn find_by_client_msg_nos(
        &self,
        named: &[(ChannelPk, &str, &str)],
    ) -> Result<Vec<StoredMessage>, StoreError> {
        find_by_client_msg_nos(self, named).await
    }

    /// Returns at most `limit` messages of a range in one channel, from its end (`newest`) or its
    /// beginning, with payloads of at most `up_to` bytes.
    pub(crate) async fn list_page(
        &self,
        window: SeqRange,
        limit: u64,
        newest: bool,
        up_to: usize,
    ) -> Result<Vec<PartialMessage>, StoreError> {
        let statement = page(select_up_to(self.backend(), up_to), window, limit, newest);
        let rows = self.query_all(&statement).await?;
        rows.iter()
            .map(|row| PartialMessage::read(row).map_err(StoreError::from))
            .collect()
    }
}

impl Tx {
    /// Like [`Store::find_by_client_msg_nos`], for locked channels.
    pub(crate) async fn find_by_client_msg_nos(
        &self,
        named: &[(ChannelPk, &str, &str)],
    ) -> Result<Vec<StoredMessage>, StoreError> {
        find_by_client_msg_nos(self, named).await
    }

    /// Like [`Store::find_message_ids`], for locked channels.
    pub(crate) async fn find_message_ids(
        &self,
        ids: &[(ChannelPk, MessageId)],
    ) -> Result<HashMap<(ChannelPk, MessageId), Seq>, StoreError> {
        find_message_ids(self, ids).await
    }

    /// Like [`Store::find_positions`], for locked channels.
    pub(crate) async fn find_positions(
        &self,
        positions: &[MessagePosition],
    ) -> Result<HashMap<MessagePosition, MessageId>, StoreError> {
        find_positions(self, positions).await
    }

    /// Counts the red-dot messages above `seq` in a locked channel that `uid` did not send.
    pub(crate) async fn count_red_dots_above(
        &self,
        channel_id: ChannelPk,
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
        let row = self.inner.query_one(&statement).await?;
        Ok(row
            .map(|row| row.try_get_by_index(0))
            .transpose()?
            .unwrap_or_default())
    }

    /// Inserts messages into locked channels.
    pub(crate) async fn insert_messages(
        &self,
        messages: &[StoredMessage],
    ) -> Result<(), StoreError> {
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
            let spec = UpsertSpec {
                columns: &COLUMNS,
                key: &[],
                update: &[],
                unchanged: Column::RedDot,
            };
            bulk::upsert::<Entity>(&self.inner, &spec, rows.collect()).await?;
            rest = &rest[fit..];
        }
        Ok(())
    }
}

/// See [`super::hot_statements`].
pub(super) fn hot_statements(
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
    ]
}
