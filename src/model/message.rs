//! A message and its content.

use super::{
    ChannelKey, ChannelRef, ChannelType, EpochMs, InvalidValue, MessageId, Seq, Stream, check_key,
};

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The channel as the sender names it: in a person channel the recipient's uid, whoever reads
    /// it.
    pub channel: ChannelRef,
    /// The global id (snowflake).
    pub message_id: MessageId,
    /// The message's number in the channel.
    pub seq: Seq,
    /// The sender's deduplication key.
    pub client_msg_no: String,
    /// The sender's uid.
    pub from_uid: String,
    /// When the message was sent.
    pub sent_at: EpochMs,
    /// True if it counts as unread.
    pub red_dot: bool,
    /// Content, set by the sender.
    pub content: Content,
}

/// The content of a message, which the server does not change, except that a repeat may complete
/// the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// `WuKongIM`'s setting bits.
    pub setting: u8,
    /// A topic within the channel, or empty.
    pub topic: String,
    /// Seconds until the message expires; 0 for never.
    pub expire: u32,
    /// The stream that the message begins.
    pub stream: Stream,
    /// The payload as sent.
    pub payload: Vec<u8>,
}

impl Content {
    /// # Errors
    /// [`InvalidValue`] for a field that is too long or contains control characters.
    pub(crate) fn check(&self, payload_bytes: usize) -> Result<(), InvalidValue> {
        check_key("topic", &self.topic)?;
        check_key("stream_no", &self.stream.no)?;
        if self.payload.len() > payload_bytes {
            return Err(InvalidValue::new(
                "payload",
                format!("must be at most {payload_bytes} bytes long"),
            ));
        }
        Ok(())
    }
}

impl Message {
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
    pub(crate) fn bytes(&self) -> usize {
        let Content {
            topic,
            stream,
            payload,
            ..
        } = &self.content;
        let texts = [
            &self.channel.channel_id,
            &self.client_msg_no,
            &self.from_uid,
            topic,
            &stream.no,
        ];
        (payload.len() + stream.state.len()) * 7 / 3
            + texts.iter().map(|text| text.len() * 2).sum::<usize>()
    }
}
