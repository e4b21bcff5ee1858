//! `/webhook?event=…`: receives the messages that a running `WuKongIM` has stored. It counts only
//! status 200 as delivered, and drops the body after five attempts, so one invalid message must not
//! prevent the others from being stored.

use std::io::Read;
use std::sync::{Arc, Once};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::channel::ChannelKey;
use crate::config::WukongimVersion;
use crate::error::Error;
use crate::ids::{COMMAND_SUFFIX, ChannelRef, ChannelType, Seq, Uid, check_key};
use crate::message::{
    Content, IncomingMessage, IngestReport, Message, MessageBatch, Recipients, ingest,
};
use crate::rest::legacy::{LegacyBody, parse_json};
use crate::services::Services;

/// The last second of the year 9999, which is the latest time of a message.
const MAX_UNIX_SECOND: i64 = 253_402_300_799;

/// The result of a webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookResult {
    /// The result of ingesting the valid messages.
    pub report: IngestReport,
    /// Messages that are not stored on purpose: commands and transient messages.
    pub skipped: u64,
    /// Messages that are invalid.
    pub refused: u64,
}

/// Why a message is skipped; also the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SkipReason {
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
    fn label(self) -> &'static str {
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
}

/// Stores the messages of a webhook; returns after the commit.
///
/// # Errors
/// [`Error::BadRequest`] or [`Error::BadInput`] only if the body does not have the event's JSON
/// structure; [`Error::Store`].
pub async fn handle_webhook(
    core: &Arc<Services>,
    event: &str,
    body: &[u8],
) -> Result<WebhookResult, Error> {
    match event {
        "" => Err(Error::bad_input(
            "event",
            "must be given: ?event=msg.notify or ?event=msg.offline",
        )),
        "msg.notify" => ingest_notify(core, body).await,
        "msg.offline" => ingest_offline(core, body).await,
        other => {
            // Online states and events of later WuKongIM versions are ignored: refusing them would
            // only cause retries.
            let known = other == "user.onlinestatus";
            metrics::counter!(crate::metrics::WEBHOOKS_IGNORED_TOTAL, "event" => if known { "user.onlinestatus" } else { "unknown" })
                .increment(1);
            tracing::debug!(
                event = other,
                "ignored a webhook that is not about messages"
            );
            Ok(WebhookResult::default())
        }
    }
}

async fn ingest_notify(core: &Arc<Services>, body: &[u8]) -> Result<WebhookResult, Error> {
    let Value::Array(elements) = parse_json(body)? else {
        return Err(Error::bad_input(
            "the body",
            "must be a JSON array of messages",
        ));
    };
    let (mut result, dialect) = (WebhookResult::default(), SourceDialect::configured(core));
    let mut messages = Vec::with_capacity(elements.len());
    for element in elements {
        match LegacyBody::from_element(element, "message")
            .map_err(|_| SkipReason::Shape)
            .and_then(|fields| parse_message(core, dialect, &fields))
        {
            Ok(message) => messages.push(message),
            Err(reason) => result.skip(reason),
        }
    }
    ingest_batch(
        core,
        MessageBatch {
            messages,
            recipients: None,
        },
        result,
    )
    .await
}

async fn ingest_batch(
    core: &Arc<Services>,
    incoming: MessageBatch,
    mut result: WebhookResult,
) -> Result<WebhookResult, Error> {
    let incoming = Arc::new(incoming);
    result.report = ingest(core, Arc::clone(&incoming)).await?;
    if let Some(datasource) = core.member_lookup.get() {
        datasource.enqueue_unknown(&incoming.messages);
    }
    Ok(result)
}

async fn ingest_offline(core: &Arc<Services>, body: &[u8]) -> Result<WebhookResult, Error> {
    let fields = LegacyBody::parse(body)?;
    let mut to_uids = fields.strings("to_uids")?;
    if fields.string("compress")? == "gzip" {
        to_uids.extend(decompress_uids(
            &fields.string("compress_to_uids")?,
            core.limits.body_bytes,
        )?);
    }
    let mut result = WebhookResult::default();
    let incoming = match parse_message(core, SourceDialect::configured(core), &fields) {
        Ok(incoming) => incoming,
        Err(reason) => {
            result.skip(reason);
            return Ok(result);
        }
    };
    let uids: Vec<Uid> = to_uids
        .into_iter()
        .filter_map(|uid| Uid::parse("to_uids", uid).ok())
        .collect();
    // Both users of a person channel are members implicitly.
    let recipients =
        (incoming.key.channel_type != ChannelType::PERSON && !uids.is_empty()).then(|| {
            Recipients {
                key: incoming.key.clone(),
                seq: incoming.message.seq,
                message_id: incoming.message.message_id,
                sent_at: incoming.message.sent_at,
                uids,
            }
        });
    ingest_batch(
        core,
        MessageBatch {
            messages: vec![incoming],
            recipients,
        },
        result,
    )
    .await
}

/// Decompresses the recipients of v1, which sends long lists as base64 of a gzip of a JSON array.
/// The result may be as large as a body; the limit matters because gzip compresses up to a thousand
/// to one.
fn decompress_uids(packed: &str, limit: usize) -> Result<Vec<String>, Error> {
    let invalid = || {
        Error::bad_input(
            "compress_to_uids",
            "must be the base64 of a gzip of a JSON array of strings",
        )
    };
    let packed = STANDARD.decode(packed).map_err(|_| invalid())?;
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .take(limit as u64 + 1)
        .read_to_end(&mut json)
        .map_err(|_| invalid())?;
    if json.len() > limit {
        return Err(Error::bad_input(
            "compress_to_uids",
            format!("must unpack to at most {limit} bytes"),
        ));
    }
    serde_json::from_slice(&json).map_err(|_| invalid())
}

impl WebhookResult {
    fn skip(&mut self, reason: SkipReason) {
        metrics::counter!(crate::metrics::WEBHOOK_MESSAGES_SKIPPED_TOTAL, "reason" => reason.label())
            .increment(1);
        if matches!(reason, SkipReason::Transient | SkipReason::Command) {
            self.skipped += 1;
        } else {
            self.refused += 1;
            tracing::warn!(
                reason = reason.label(),
                "skipped an invalid message of a webhook"
            );
        }
    }
}

/// The dialect of the server that messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceDialect {
    /// Whether person channels are named by the stored pair instead of by the recipient.
    pub(crate) names_pairs: bool,
    /// Whether red dots are not transmitted; then all messages have one.
    pub(crate) loses_red_dots: bool,
}

impl SourceDialect {
    fn configured(core: &Services) -> Self {
        let is_v3 = core.wukongim == WukongimVersion::V3;
        Self {
            names_pairs: is_v3,
            loses_red_dots: is_v3,
        }
    }
}

/// Parses a message as a server stored it.
///
/// # Errors
/// Returns the reason, in one word, if the message is skipped.
pub(crate) fn parse_server_message(
    core: &Services,
    dialect: SourceDialect,
    fields: &LegacyBody,
) -> Result<IncomingMessage, &'static str> {
    parse_message(core, dialect, fields).map_err(SkipReason::label)
}

fn parse_message(
    core: &Services,
    dialect: SourceDialect,
    fields: &LegacyBody,
) -> Result<IncomingMessage, SkipReason> {
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
    let channel_type =
        ChannelType::parse("channel_type", channel_type).map_err(|_| SkipReason::ChannelType)?;
    let channel = ChannelRef::parse(channel_id, i64::from(channel_type.number()))
        .map_err(|_| SkipReason::Channel)?;
    let from_uid = fields.string("from_uid").map_err(|_| SkipReason::Sender)?;
    let from = if from_uid.is_empty() {
        Uid::system()
    } else {
        Uid::parse("from_uid", from_uid).map_err(|_| SkipReason::Sender)?
    };
    let key = match (channel_type, dialect.names_pairs) {
        (ChannelType::PERSON, true) => {
            parse_stored_pair(&from, &channel.channel_id).ok_or(SkipReason::Channel)?
        }
        // v2 names a message to oneself by the pair in msg.notify, and by the uid in msg.offline.
        (ChannelType::PERSON, false) if channel.channel_id == format!("{from}@{from}") => {
            ChannelKey::person(from.as_str(), from.as_str())
        }
        (ChannelType::PERSON, false) => {
            warn_if_stored_pair(&from, &channel.channel_id);
            ChannelKey::new(&from, &channel)
        }
        _ => ChannelKey::new(&from, &channel),
    };
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
        .check(core.limits.payload_bytes)
        .map_err(|error| match error {
            Error::BadInput { field, .. } if field == "payload" => SkipReason::Payload,
            _ => SkipReason::Text,
        })?;
    let sent_at = match fields.int64("timestamp").map_err(shape)? {
        ..=0 => core.clock.now_ms(),
        seconds => seconds.min(MAX_UNIX_SECOND) * 1000,
    };
    let red_dot = header.flag("red_dot").map_err(shape)? || dialect.loses_red_dots;
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

/// Parses the stored pair that v3 uses as the name of a person channel: the uid with the larger
/// CRC32 first, joined with `@`. Uids may contain `@` themselves, so the pair is split at the
/// sender; if the sender matches both ends, the order of the pair decides.
fn parse_stored_pair(from: &Uid, stored: &str) -> Option<ChannelKey> {
    let from = from.as_str();
    let first = stored
        .strip_prefix(from)
        .and_then(|rest| rest.strip_prefix('@'));
    let second = stored
        .strip_suffix(from)
        .and_then(|rest| rest.strip_suffix('@'));
    let peers = first
        .into_iter()
        .chain(second)
        .filter(|peer| !peer.is_empty());
    let peer = peers
        .clone()
        .find(|peer| stored_pair(from, peer) == stored)
        .or_else(|| peers.clone().next())?;
    Some(ChannelKey::person(from, peer))
}

fn stored_pair(one: &str, other: &str) -> String {
    let rank = |uid: &str| (crc32fast::hash(uid.as_bytes()), uid.to_owned());
    if rank(one) >= rank(other) {
        format!("{one}@{other}")
    } else {
        format!("{other}@{one}")
    }
}

/// Warns if a channel id is a stored pair: v1 and v2 name the recipient, so the server is probably
/// a v3 and `ingest.wukongim` is wrong.
fn warn_if_stored_pair(from: &Uid, channel_id: &str) {
    static WARNING: Once = Once::new();
    let looks_like_v3 = parse_stored_pair(from, channel_id)
        .and_then(|key| {
            key.pair()
                .map(|(one, other)| stored_pair(one, other) == channel_id)
        })
        .unwrap_or(false);
    if looks_like_v3 {
        WARNING.call_once(|| {
            tracing::warn!(
                channel_id,
                "a person message names its channel by the pair of uids, as v3 does: check ingest.wukongim"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn stored_pair_matches_wukongim() {
        assert_eq!(stored_pair("alice", "bob"), "bob@alice");
        assert_eq!(stored_pair("bob", "alice"), "bob@alice");
    }

    #[test]
    fn stored_pair_is_split_at_the_sender() {
        let uid = |text| Uid::parse("uid", text).unwrap();
        for (from, peer) in [
            ("alice", "bob"),
            ("bob", "alice"),
            ("a@b", "c"),
            ("c", "a@b"),
            ("a", "b@a"),
            ("b@a", "a"),
        ] {
            assert_eq!(
                parse_stored_pair(&uid(from), &stored_pair(from, peer)),
                Some(ChannelKey::person(from, peer)),
                "{from} {peer}"
            );
        }
        assert_eq!(parse_stored_pair(&uid("carol"), "bob@alice"), None);
    }

    #[test]
    fn decompressed_uids_are_bounded() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(b"[\"ann\",\"bob\"]").unwrap();
        let packed = STANDARD.encode(packer.finish().unwrap());
        assert_eq!(decompress_uids(&packed, 13).unwrap(), ["ann", "bob"]);
        assert_eq!(
            decompress_uids(&packed, 12).unwrap_err().to_string(),
            "compress_to_uids must unpack to at most 12 bytes"
        );
    }
}
