//! Messages: sent here, or handed on by a `WuKongIM`; stored once, never changed.

mod answer_bytes;
mod find;
mod history;
mod ingest;
mod newest;
mod send;

pub use self::answer_bytes::AnswerBytes;
pub(crate) use self::answer_bytes::{MESSAGE_BYTES, Weigh, fitting};
pub use self::find::find_messages;
pub(crate) use self::history::list_after;
pub use self::history::{HistoryPage, HistoryRequest, list_history};
pub use self::ingest::{Incoming, IncomingMessage, Receivers, Report, ingest};
pub use self::newest::{Newest, NewestCache, Recents};
pub(crate) use self::send::Draft;
pub use self::send::{SendRequest, Sent, send};

use std::ops::RangeInclusive;

use crate::channel::ChannelKey;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Seq, check_key};
use crate::store::ConversationRow;
pub use crate::store::HeadState;

/// The seqs that this conversation's user may see: above the deletion watermark, and up to where a
/// former member left.
pub(crate) fn seqs_seen_by(row: &ConversationRow) -> RangeInclusive<Seq> {
    let highest = if row.is_member() {
        row.last_seq
    } else {
        row.left_seq.min(row.last_seq)
    };
    row.deleted_to_seq + 1..=highest
}

/// A message as the store holds it.
pub(crate) type StoredMessage = entity::message::Model;

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The channel as the sender names it: in a person channel the recipient's uid, whoever looks
    /// at it.
    pub channel: ChannelRef,
    /// The global id (snowflake).
    pub message_id: i64,
    /// The number in the channel.
    pub seq: Seq,
    /// The sender's deduplication key.
    pub client_msg_no: String,
    /// Who sent it.
    pub from_uid: String,
    /// When, epoch ms.
    pub sent_at: i64,
    /// Whether it counts as unread.
    pub red_dot: bool,
    /// What else it carries.
    pub content: Content,
}

/// What a message carries, untouched by us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// `WuKongIM`'s setting bits.
    pub setting: u8,
    /// A topic inside the channel, or empty.
    pub topic: String,
    /// Seconds until it expires, 0 for never.
    pub expire: u32,
    /// Stream number, or empty.
    pub stream_no: String,
    /// Position in the stream.
    pub stream_seq: u32,
    /// Stream state.
    pub stream_flag: u8,
    /// The bytes as sent.
    pub payload: Vec<u8>,
}

impl Content {
    /// # Errors
    /// [`Error::BadInput`] naming what is too long or holds control characters.
    pub(crate) fn check(&self, payload_bytes: usize) -> Result<(), Error> {
        check_key("topic", &self.topic)?;
        check_key("stream_no", &self.stream_no)?;
        if self.payload.len() > payload_bytes {
            return Err(Error::bad_input(
                "payload",
                format!("must be at most {payload_bytes} bytes long"),
            ));
        }
        Ok(())
    }
}

impl Message {
    pub(crate) fn new(stored: StoredMessage, key: &ChannelKey) -> Self {
        Self {
            channel: key.seen_by(&stored.from_uid),
            message_id: stored.message_id,
            seq: stored.seq,
            client_msg_no: stored.client_msg_no,
            from_uid: stored.from_uid,
            sent_at: stored.sent_at,
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

    /// The channel as it is stored. In a person channel the sender is one of the two.
    #[must_use]
    pub fn channel_key(&self) -> ChannelKey {
        if self.channel.channel_type == ChannelType::PERSON {
            ChannelKey::person(&self.from_uid, &self.channel.channel_id)
        } else {
            ChannelKey {
                channel_type: self.channel.channel_type,
                key: self.channel.channel_id.clone(),
            }
        }
    }

    /// About how many bytes its texts take, as they are and as JSON.
    fn bytes(&self) -> usize {
        let Content {
            topic,
            stream_no,
            payload,
            ..
        } = &self.content;
        let texts = [
            &self.channel.channel_id,
            &self.client_msg_no,
            &self.from_uid,
            topic,
            stream_no,
        ];
        payload.len() * 7 / 3 + texts.iter().map(|text| text.len() * 2).sum::<usize>()
    }

    fn into_stored(self, channel_id: i64) -> StoredMessage {
        StoredMessage {
            channel_id,
            seq: self.seq,
            message_id: self.message_id,
            client_msg_no: self.client_msg_no,
            from_uid: self.from_uid,
            sent_at: self.sent_at,
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
