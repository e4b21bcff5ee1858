//! Reads messages: ranges, pages, and messages by their ids.

use std::collections::HashMap;

use entity::message::{Column, Entity};
use sea_orm::QueryResult;
use sea_orm::sea_query::{Condition, Expr, ExprTrait, Func, Query};

use super::statements::{
    by_client_msg_nos, by_message_ids, first_by_client_msg_nos, in_windows, newest_bounds, page,
    payloads, select_up_to,
};
use super::{MessagePosition, MessageRow, PartialMessage, SeqRange, model, stream};
use crate::model::{ChannelPk, MessageId, Seq, Stream};
use crate::store::bulk::is_one_of;
use crate::store::{ROWS_PER_STATEMENT, RunQuery, Store, StoreError, Tx};

/// Maximum number of channels in one statement that reads ranges: the planners of MySQL and MariaDB
/// fall back to full scans for longer lists.
const RANGES_PER_STATEMENT: usize = 1000;
/// Maximum number of branches in one CASE: more are slow to plan.
const HEADS_PER_STATEMENT: usize = 200;
/// Maximum number of messages that one statement selects by channel and id: longer lists of
/// alternatives are slow to plan on MySQL and MariaDB.
const IDS_PER_STATEMENT: usize = 256;

fn models(rows: &[QueryResult]) -> Result<Vec<MessageRow>, StoreError> {
    rows.iter()
        .map(|row| model(row).map_err(StoreError::from))
        .collect()
}

/// Finds messages by their keys: committed messages with a [`Store`], and those of locked channels
/// with a [`Tx`].
pub(crate) trait FindMessages: RunQuery {
    /// Returns the messages with these keys of (channel, sender, `client_msg_no`), oldest first.
    async fn find_by_client_msg_nos(
        &self,
        named: &[(ChannelPk, &str, &str)],
    ) -> Result<Vec<MessageRow>, StoreError> {
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = models(
            &self
                .run_query(&by_client_msg_nos(self.backend(), named))
                .await?,
        )?;
        found.sort_unstable_by_key(|message| message.seq);
        Ok(found)
    }

    /// Returns the global ids of the messages at these positions, if any.
    async fn find_positions(
        &self,
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
                        self.backend(),
                        Column::Seq,
                        seqs,
                    )))
                });
            let statement = Query::select()
                .columns([Column::MessageId, Column::ChannelId, Column::Seq])
                .from(Entity)
                .cond_where(any)
                .to_owned();
            for row in self.run_query(&statement).await? {
                let position = MessagePosition {
                    channel_id: row.try_get_by_index(1)?,
                    seq: row.try_get_by_index(2)?,
                };
                found.insert(position, row.try_get_by_index(0)?);
            }
        }
        Ok(found)
    }

    /// Returns the seqs of stored messages by the internal ids of their channels and their global
    /// ids.
    async fn find_message_ids(
        &self,
        ids: &[(ChannelPk, MessageId)],
    ) -> Result<HashMap<(ChannelPk, MessageId), Seq>, StoreError> {
        let mut found = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let columns =
                [Column::ChannelId, Column::MessageId, Column::Seq].map(|column| (Entity, column));
            let select = Query::select().columns(columns).from(Entity).to_owned();
            for row in self
                .run_query(&by_message_ids(self.backend(), select, ids))
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
}

impl FindMessages for Store {}

impl FindMessages for Tx {}

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

    /// Reads the payloads, and the states of streams, that were too long to be read with their
    /// messages.
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
                    partial.message.stream_state = row.try_get_by_index(2)?;
                    partial.message.payload = row.try_get_by_index(3)?;
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

    /// Returns the seqs of the first messages with these client numbers in one channel, whoever
    /// sent them.
    pub(crate) async fn find_client_msg_nos(
        &self,
        channel_id: ChannelPk,
        numbers: &[&str],
    ) -> Result<HashMap<String, Seq>, StoreError> {
        let mut found = HashMap::with_capacity(numbers.len());
        for numbers in numbers.chunks(ROWS_PER_STATEMENT) {
            let statement = first_by_client_msg_nos(self.backend(), channel_id, numbers);
            for row in self.query_all(&statement).await? {
                found.insert(row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            }
        }
        Ok(found)
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
    /// Returns the stream of the message at this position in a locked channel, if it exists.
    pub(crate) async fn find_stream(
        &self,
        position: MessagePosition,
    ) -> Result<Option<Stream>, StoreError> {
        let columns = [
            Column::StreamNo,
            Column::StreamSeq,
            Column::StreamFlag,
            Column::StreamState,
        ];
        let statement = Query::select()
            .columns(columns)
            .from(Entity)
            .and_where(Expr::col(Column::ChannelId).eq(position.channel_id))
            .and_where(Expr::col(Column::Seq).eq(position.seq))
            .to_owned();
        let Some(row) = self.inner.query_one(&statement).await? else {
            return Ok(None);
        };
        Ok(Some(stream(
            row.try_get_by_index(0)?,
            row.try_get_by_index(1)?,
            row.try_get_by_index(2)?,
            row.try_get_by_index(3)?,
        )))
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
}
