//! Messages as a `WuKongIM` stored them: in its webhooks, and in its answers to an import.

use super::{LegacyBody, SourceDialect};
use crate::clock::Clock;
use crate::config::Limits;
use crate::error::Error;
use crate::message::IncomingMessage;
use crate::model::{
    COMMAND_SUFFIX, ChannelRef, ChannelType, Content, Message, Seq, Uid, check_key,
};

/// The last second of the year 9999, which is the latest time of a message.
const MAX_UNIX_SECOND: i64 = 253_402_300_799;

/// Why a message is skipped; also the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    Transient,
    Command,
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
    pub(super) fn is_intended(self) -> bool {
        matches!(self, Self::Transient | Self::Command)
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
    pub(crate) fn decode(self, fields: &LegacyBody) -> Result<IncomingMessage, SkipReason> {
        let shape = |_: Error| SkipReason::Shape;
        let header = fields.object("header").map_err(shape)?;
        if header.flag("no_persist").map_err(shape)? || header.flag("sync_once").map_err(shape)? {
            return Err(SkipReason::Transient);
        }
        let channel_id = fields.string("channel_id").map_err(shape)?;
        if channel_id.ends_with(COMMAND_SUFFIX) {
            return Err(SkipReason::Command);
        }
        let channel_type = fields
            .int64("channel_type")
            .map_err(|_| SkipReason::ChannelType)?;
        let channel_type = ChannelType::parse("channel_type", channel_type)
            .map_err(|_| SkipReason::ChannelType)?;
        let channel = ChannelRef::parse(channel_id, i64::from(channel_type.number()))
            .map_err(|_| SkipReason::Channel)?;
        let from_uid = fields.string("from_uid").map_err(|_| SkipReason::Sender)?;
        let from = if from_uid.is_empty() {
            Uid::system()
        } else {
            Uid::parse("from_uid", from_uid).map_err(|_| SkipReason::Sender)?
        };
        let key = self
            .dialect
            .channel_key(&from, &channel)
            .ok_or(SkipReason::Channel)?;
        let seq: Seq = fields
            .integer("message_seq", 1..=i64::from(u32::MAX))
            .map_err(|_| SkipReason::Seq)?;
        let message_id = fields
            .integer("message_id", 1..=i64::MAX)
            .map_err(|_| SkipReason::MessageId)?;
        if seq == 0 {
            return Err(SkipReason::Seq);
        }
        if message_id == 0 {
            return Err(SkipReason::MessageId);
        }
        let client_msg_no = fields.string("client_msg_no").map_err(shape)?;
        check_key("client_msg_no", &client_msg_no).map_err(|_| SkipReason::Text)?;
        let content = Content {
            setting: fields.uint8("setting").map_err(shape)?,
            topic: fields.string("topic").map_err(shape)?,
            expire: fields.uint32("expire").map_err(shape)?,
            stream_no: fields.string("stream_no").map_err(shape)?,
            stream_seq: fields.uint32("stream_seq").map_err(shape)?,
            stream_flag: fields.uint8("stream_flag").map_err(shape)?,
            payload: fields.bytes("payload").map_err(|_| SkipReason::Payload)?,
        };
        content
            .check(self.limits.payload_bytes)
            .map_err(|error| match error.field {
                "payload" => SkipReason::Payload,
                _ => SkipReason::Text,
            })?;
        let sent_at = match fields.int64("timestamp").map_err(shape)? {
            ..=0 => self.clock.now_ms(),
            seconds => seconds.min(MAX_UNIX_SECOND) * 1000,
        };
        let red_dot = header.flag("red_dot").map_err(shape)? || self.dialect.loses_red_dots;
        let message = Message {
            channel: key.seen_by(from.as_str()),
            message_id,
            seq,
            client_msg_no,
            from_uid: from.as_str().to_owned(),
            sent_at,
            red_dot,
            content,
        };
        Ok(IncomingMessage { key, message })
    }
}
