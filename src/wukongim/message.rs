//! Messages as a `WuKongIM` stored them: in its webhooks, and in its answers to an import.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::{Base64, Checked, Flag, SourceDialect, parse_timestamp};
use crate::clock::Clock;
use crate::config::Limits;
use crate::message::IncomingMessage;
use crate::model::{
    COMMAND_SUFFIX, ChannelRef, ChannelType, Content, Message, MessageId, SYSTEM_UID, Seq, Stream,
    StreamState, Uid, check_key,
};

/// The setting bits of messages of streams: v2's and v1's.
const STREAM_SETTINGS: u8 = 1 << 1 | 1 << 2;

/// Why a message is skipped; also the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    Transient,
    Command,
    /// A piece of a stream's text, which has no place in the channel.
    StreamChunk,
    /// A message of the system in which v2 names the system as the recipient, too: its `msg.offline`
    /// names the user.
    NoRecipient,
    Shape,
    ChannelType,
    Channel,
    Sender,
    Seq,
    MessageId,
    Payload,
    Text,
}

impl SkipReason {
    /// Returns the reason as one word.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Command => "command",
            Self::StreamChunk => "stream_chunk",
            Self::NoRecipient => "no_recipient",
            Self::Shape => "shape",
            Self::ChannelType => "channel_type",
            Self::Channel => "channel_id",
            Self::Sender => "from_uid",
            Self::Seq => "message_seq",
            Self::MessageId => "message_id",
            Self::Payload => "payload",
            Self::Text => "text",
        }
    }

    /// Returns whether such messages are not stored on purpose; the others are invalid.
    pub(crate) fn is_intended(self) -> bool {
        matches!(
            self,
            Self::Transient | Self::Command | Self::StreamChunk | Self::NoRecipient
        )
    }
}

/// A message as a server stored it. A wrong value costs only this message, and is skipped with a
/// reason of its own.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StoredMessage {
    header: Checked<StoredHeader>,
    channel_id: Checked<String>,
    channel_type: Checked<i64>,
    from_uid: Checked<String>,
    message_seq: Checked<i64>,
    message_id: Checked<i64>,
    client_msg_no: Checked<String>,
    setting: Checked<u8>,
    topic: Checked<String>,
    expire: Checked<u32>,
    stream_no: Checked<String>,
    stream_seq: Checked<u32>,
    stream_flag: Checked<u8>,
    end: Checked<u8>,
    end_reason: Checked<u8>,
    error: Checked<String>,
    stream_data: Checked<Base64>,
    event_meta: Checked<Value>,
    event_sync_hint: Checked<Value>,
    streams: Checked<Value>,
    payload: Checked<Base64>,
    timestamp: Checked<i64>,
}

#[derive(Clone, Debug, Deserialize)]
struct StoredHeader {
    no_persist: Checked<Flag>,
    sync_once: Checked<Flag>,
    red_dot: Checked<Flag>,
}

impl StoredMessage {
    /// Returns the seq, also if other fields are wrong.
    pub(crate) fn seq(&self) -> Option<Seq> {
        self.message_seq.as_ref().copied().map(Seq)
    }
}

/// Decodes the messages of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageDecoder<'a> {
    /// The dialect of the server.
    pub(crate) dialect: SourceDialect,
    /// `[limits]`
    pub(crate) limits: &'a Limits,
    /// The clock, for messages without a time.
    pub(crate) clock: &'a Clock,
}

impl MessageDecoder<'_> {
    /// Decodes a message as the server stored it.
    ///
    /// # Errors
    /// Returns the reason if the message is skipped.
    pub(crate) fn decode(self, mut stored: StoredMessage) -> Result<IncomingMessage, SkipReason> {
        let state = self.decode_stream_state(&mut stored);
        let header = stored.header.or(SkipReason::Shape)?;
        if header.no_persist.or(SkipReason::Shape)?.0 || header.sync_once.or(SkipReason::Shape)?.0 {
            return Err(SkipReason::Transient);
        }
        let channel_id = stored.channel_id.or(SkipReason::Shape)?;
        if channel_id.ends_with(COMMAND_SUFFIX) {
            return Err(SkipReason::Command);
        }
        let channel_type = stored.channel_type.or(SkipReason::ChannelType)?;
        let channel_type = ChannelType::parse("channel_type", channel_type)
            .map_err(|_| SkipReason::ChannelType)?;
        let channel = ChannelRef::parse(channel_id, i64::from(channel_type.number()))
            .map_err(|_| SkipReason::Channel)?;
        let from_uid = stored.from_uid.or(SkipReason::Sender)?;
        let from = if from_uid.is_empty() {
            Uid::system()
        } else {
            Uid::parse("from_uid", from_uid).map_err(|_| SkipReason::Sender)?
        };
        let key = self
            .dialect
            .channel_key(&from, &channel)
            .ok_or(SkipReason::Channel)?;
        if channel.channel_type == ChannelType::PERSON
            && from.is_system()
            && channel.channel_id == SYSTEM_UID
        {
            return Err(SkipReason::NoRecipient);
        }
        let setting = stored.setting.or(SkipReason::Shape)?;
        let stream = Stream {
            no: stored.stream_no.or(SkipReason::Shape)?,
            seq: stored.stream_seq.or(SkipReason::Shape)?,
            flag: stored.stream_flag.or(SkipReason::Shape)?,
            state,
        };
        let seq = stored.message_seq.or(SkipReason::Seq)?;
        if seq == 0 && (setting & STREAM_SETTINGS != 0 || !stream.is_empty()) {
            return Err(SkipReason::StreamChunk);
        }
        if !(1..=i64::from(u32::MAX)).contains(&seq) {
            return Err(SkipReason::Seq);
        }
        let message_id = stored.message_id.or(SkipReason::MessageId)?;
        if message_id < 1 {
            return Err(SkipReason::MessageId);
        }
        let client_msg_no = stored.client_msg_no.or(SkipReason::Shape)?;
        check_key("client_msg_no", &client_msg_no).map_err(|_| SkipReason::Text)?;
        let content = Content {
            setting,
            topic: stored.topic.or(SkipReason::Shape)?,
            expire: stored.expire.or(SkipReason::Shape)?,
            stream,
            payload: stored.payload.or(SkipReason::Payload)?.0,
        };
        content
            .check(self.limits.payload_bytes)
            .map_err(|error| match error.field {
                "payload" => SkipReason::Payload,
                _ => SkipReason::Text,
            })?;
        let sent_at = match stored.timestamp.or(SkipReason::Shape)? {
            ..=0 => self.clock.now_ms(),
            timestamp => parse_timestamp(timestamp),
        };
        let red_dot = header.red_dot.or(SkipReason::Shape)?.0 || self.dialect.loses_red_dots;
        let message = Message {
            channel: key.seen_by(from.as_str()),
            message_id: MessageId(message_id),
            seq: Seq(seq),
            client_msg_no,
            from_uid: from.as_str().to_owned(),
            sent_at,
            red_dot,
            content,
        };
        Ok(IncomingMessage { key, message })
    }

    /// Takes the state of a stream out of a message. Parts with a wrong value are left out: they
    /// are not worth losing the message.
    fn decode_stream_state(self, stored: &mut StoredMessage) -> Vec<u8> {
        let json = |part: &mut Checked<Value>| std::mem::take(part).or(()).unwrap_or_default();
        let data = std::mem::take(&mut stored.stream_data).or(());
        let state = StreamState {
            end: stored.end.as_ref().copied().unwrap_or_default(),
            end_reason: stored.end_reason.as_ref().copied().unwrap_or_default(),
            error: std::mem::take(&mut stored.error).or(()).unwrap_or_default(),
            stream_data: STANDARD.encode(data.unwrap_or_default().0),
            event_meta: json(&mut stored.event_meta),
            event_sync_hint: json(&mut stored.event_sync_hint),
            streams: json(&mut stored.streams),
        }
        .to_json();
        if state.len() > self.limits.payload_bytes {
            tracing::warn!(
                bytes = state.len(),
                message_id = stored.message_id.as_ref(),
                "the text and the events of a stream are longer than limits.payload_bytes: the message is stored without them"
            );
            return Vec::new();
        }
        state
    }
}
