//! `message`: stored messages.

mod count;
mod read;
mod statements;
mod write;

use entity::message::{Column, Model};
use sea_orm::{DbErr, QueryResult};

pub(crate) use self::read::FindMessages;
pub(super) use self::statements::hot_statements;
use crate::model::{ChannelKey, ChannelPk, Content, EpochMs, Message, MessageId, Seq, Stream};

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

/// The position of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessagePosition {
    /// Internal id of the channel.
    pub channel_id: ChannelPk,
    /// The seq in the channel.
    pub seq: Seq,
}

/// A message in the form of the store.
pub(crate) type MessageRow = Model;

impl Message {
    pub(crate) fn from_stored(stored: MessageRow, key: &ChannelKey) -> Self {
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
                stream: stream(
                    stored.stream_no,
                    stored.stream_seq,
                    stored.stream_flag,
                    stored.stream_state,
                ),
                payload: stored.payload,
            },
        }
    }

    pub(crate) fn into_stored(self, channel_id: ChannelPk) -> MessageRow {
        MessageRow {
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
            stream_no: self.content.stream.no,
            stream_seq: i64::from(self.content.stream.seq),
            stream_flag: i16::from(self.content.stream.flag),
            stream_state: self.content.stream.state,
            payload: self.content.payload,
        }
    }
}

fn stream(no: String, seq: i64, flag: i16, state: Vec<u8>) -> Stream {
    Stream {
        no,
        seq: u32::try_from(seq).unwrap_or_default(),
        flag: u8::try_from(flag).unwrap_or_default(),
        state,
    }
}

const COLUMNS: [Column; 15] = [
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
    Column::StreamState,
    Column::Payload,
];

fn model(row: &QueryResult) -> Result<MessageRow, DbErr> {
    Ok(MessageRow {
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
        stream_state: row
            .try_get_by_index::<Option<Vec<u8>>>(13)?
            .unwrap_or_default(),
        payload: row
            .try_get_by_index::<Option<Vec<u8>>>(14)?
            .unwrap_or_default(),
    })
}

/// A message with the length of its payload, in which its stream's state is included. If they are
/// long, they may not have been read yet.
#[derive(Clone, Debug)]
pub(crate) struct PartialMessage {
    pub(crate) message: MessageRow,
    /// Length of the payload and the stream's state in bytes.
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
        self.message.payload.len() + self.message.stream_state.len() < self.payload_bytes
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
