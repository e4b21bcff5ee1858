//! Messages: sent here, or forwarded by a `WuKongIM`; stored once and never changed.

mod answer_size;
mod find;
mod history;
mod ingest;
mod recent_message_cache;
mod send;

pub use self::answer_size::AnswerSizeLimit;
pub(crate) use self::answer_size::{MESSAGE_BYTES, SizedInAnswer, fit_newest_first};
pub use self::find::find_messages;
pub(crate) use self::history::list_after;
pub use self::history::{HistoryPage, HistoryRequest, list_history};
pub(crate) use self::ingest::IngestHandler;
pub use self::ingest::{IncomingMessage, IngestReport, MessageBatch, Recipients, ingest};
pub use self::recent_message_cache::{
    CachedMessages, MessageSlice, RecentMessageCache, RenderMessage,
};
pub(crate) use self::send::SendHandler;
pub use self::send::{SendReceipt, SendRequest, send};

use std::ops::RangeInclusive;

use crate::channel::ChannelKey;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Seq, check_key};
pub use crate::store::ChannelSnapshotId;
use crate::store::ConversationRow;

/// Returns the range of seqs that the conversation's user may see: above the deletion watermark,
/// and for a former member up to the point of leaving.
pub(crate) fn seqs_seen_by(row: &ConversationRow) -> RangeInclusive<Seq> {
    let highest = if row.is_member() {
        row.last_seq
    } else {
        row.left_seq.min(row.last_seq)
    };
    row.deleted_to_seq + 1..=highest
}

/// A message in the form of the store.
pub(crate) type StoredMessage = entity::message::Model;

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The channel as the sender names it: in a person channel the recipient's uid, whoever reads
    /// it.
    pub channel: ChannelRef,
    /// The global id (snowflake).
    pub message_id: i64,
    /// The message's number in the channel.
    pub seq: Seq,
    /// The sender's deduplication key.
    pub client_msg_no: String,
    /// The sender's uid.
    pub from_uid: String,
    /// When the message was sent, epoch ms.
    pub sent_at: i64,
    /// Whether it counts as unread.
    pub red_dot: bool,
    /// Content, set by the sender.
    pub content: Content,
}

/// The content of a message, which the server does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// `WuKongIM`'s setting bits.
    pub setting: u8,
    /// A topic within the channel, or empty.
    pub topic: String,
    /// Seconds until the message expires; 0 for never.
    pub expire: u32,
    /// Stream number, or empty.
    pub stream_no: String,
    /// Position in the stream.
    pub stream_seq: u32,
    /// Stream state.
    pub stream_flag: u8,
    /// The payload as sent.
    pub payload: Vec<u8>,
}

impl Content {
    /// # Errors
    /// [`Error::BadInput`] for a field that is too long or contains control characters.
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

    /// Returns the stored form of the channel. In a person channel the sender is one of the two
    /// users.
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

    /// Estimates the memory of the texts, as values and as JSON.
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
