//! Inserts messages.

use entity::message::{Column, Entity};

use super::{COLUMNS, MessageRow};
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
