//! Inserts messages, and completes their streams.

use entity::message::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, Query};

use super::{COLUMNS, MessagePosition, MessageRow};
use crate::model::Stream;
use crate::store::bulk::{self, UpsertSpec};
use crate::store::{StoreError, Tx};

/// Maximum payload bytes in one statement: below MySQL's default packet size.
const BYTES_PER_STATEMENT: usize = 4 << 20;
/// Maximum number of messages in one insert: a message row has many parameters, so the limit is
/// lower than `ROWS_PER_STATEMENT`.
const MESSAGES_PER_STATEMENT: usize = 500;

impl Tx {
    /// Inserts messages into locked channels.
    pub(crate) async fn insert_messages(&self, messages: &[MessageRow]) -> Result<(), StoreError> {
        let mut rest = messages;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest
                .iter()
                .take(MESSAGES_PER_STATEMENT)
                .take_while(|message| {
                    bytes += message.payload.len() + message.stream_state.len();
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
                    message.stream_state.clone().into(),
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

    /// Writes the stream of the message at this position in a locked channel. The channel's head
    /// must have a new revision, so that the members see the change and caches are renewed.
    pub(crate) async fn write_stream(
        &self,
        position: MessagePosition,
        stream: &Stream,
    ) -> Result<(), StoreError> {
        let update = Query::update()
            .table(Entity)
            .values([
                (Column::StreamNo, stream.no.as_str().into()),
                (Column::StreamSeq, i64::from(stream.seq).into()),
                (Column::StreamFlag, i16::from(stream.flag).into()),
                (Column::StreamState, stream.state.clone().into()),
            ])
            .and_where(Expr::col(Column::ChannelId).eq(position.channel_id))
            .and_where(Expr::col(Column::Seq).eq(position.seq))
            .to_owned();
        self.inner.execute(&update).await?;
        Ok(())
    }
}
