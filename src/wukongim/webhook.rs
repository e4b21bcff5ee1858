//! The webhooks of a running `WuKongIM`, which carry the messages that it has stored. It counts only
//! status 200 as delivered, and drops the body after five attempts, so one invalid message must not
//! prevent the others from being stored.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::json::{JsonObject, parse_json};
use super::{MessageDecoder, SkipReason, StoredMessage, decode_value};
use crate::error::Error;
use crate::message::{MessageBatch, Recipients};
use crate::model::{ChannelType, Uid};

/// The content of a webhook.
#[derive(Clone, Debug, Default)]
pub(crate) struct DecodedWebhook {
    /// The valid messages.
    pub(crate) batch: MessageBatch,
    /// Messages that are not stored on purpose: commands and transient messages.
    pub(crate) skipped: u64,
    /// Messages that are invalid.
    pub(crate) refused: u64,
}

/// The recipients in a body of `msg.offline`, besides the fields of its message.
#[derive(Deserialize)]
struct OfflineRecipients {
    to_uids: Vec<String>,
    compress: String,
}

/// The recipients in a body with `compress`.
#[derive(Deserialize)]
struct PackedRecipients {
    compress_to_uids: String,
}

/// Decodes the body of a webhook.
///
/// # Errors
/// [`Error::BadRequest`] or [`Error::BadInput`] only if the body does not have the event's JSON
/// structure.
pub(crate) fn decode_webhook(
    decoder: MessageDecoder<'_>,
    event: &str,
    body: &[u8],
) -> Result<DecodedWebhook, Error> {
    match event {
        "" => Err(Error::bad_input(
            "event",
            "must be given: ?event=msg.notify or ?event=msg.offline",
        )),
        "msg.notify" => decode_notify(decoder, body),
        "msg.offline" => decode_offline(decoder, body),
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
            Ok(DecodedWebhook::default())
        }
    }
}

fn decode_notify(decoder: MessageDecoder<'_>, body: &[u8]) -> Result<DecodedWebhook, Error> {
    let Value::Array(elements) = parse_json(body)? else {
        return Err(Error::bad_input(
            "the body",
            "must be a JSON array of messages",
        ));
    };
    let mut webhook = DecodedWebhook::default();
    webhook.batch.messages.reserve(elements.len());
    for element in elements {
        match decode_value(element, "message")
            .map_err(|_| SkipReason::Shape)
            .and_then(|stored| decoder.decode(stored))
        {
            Ok(message) => webhook.batch.messages.push(message),
            Err(reason) => webhook.skip(reason),
        }
    }
    Ok(webhook)
}

fn decode_offline(decoder: MessageDecoder<'_>, body: &[u8]) -> Result<DecodedWebhook, Error> {
    let mut object = JsonObject::parse(body)?;
    let OfflineRecipients {
        mut to_uids,
        compress,
    } = object.decode()?;
    if compress == "gzip" {
        let packed: PackedRecipients = object.decode()?;
        to_uids.extend(decompress_uids(
            &packed.compress_to_uids,
            decoder.limits.body_bytes,
        )?);
    }
    let stored: StoredMessage = object.decode()?;
    let mut webhook = DecodedWebhook::default();
    let incoming = match decoder.decode(stored) {
        Ok(incoming) => incoming,
        Err(reason) => {
            webhook.skip(reason);
            return Ok(webhook);
        }
    };
    let uids: Vec<Uid> = to_uids
        .into_iter()
        .filter_map(|uid| Uid::parse("to_uids", uid).ok())
        .collect();
    // Both users of a person channel are members implicitly.
    if incoming.key.channel_type != ChannelType::PERSON && !uids.is_empty() {
        webhook.batch.recipients = Some(Recipients {
            key: incoming.key.clone(),
            seq: incoming.message.seq,
            message_id: incoming.message.message_id,
            sent_at: incoming.message.sent_at,
            uids,
        });
    }
    webhook.batch.messages.push(incoming);
    Ok(webhook)
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

impl DecodedWebhook {
    fn skip(&mut self, reason: SkipReason) {
        metrics::counter!(crate::metrics::WEBHOOK_MESSAGES_SKIPPED_TOTAL, "reason" => reason.label())
            .increment(1);
        if reason.is_intended() {
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Limits, WukongimVersion};
    use crate::wukongim::SourceDialect;

    fn decode(event: &str, body: &str) -> Result<DecodedWebhook, Error> {
        let decoder = MessageDecoder {
            dialect: SourceDialect::of_webhooks(WukongimVersion::V2),
            limits: &Limits::default(),
            clock: &Clock::System,
        };
        decode_webhook(decoder, event, body.as_bytes())
    }

    #[test]
    fn invalid_messages_do_not_prevent_the_others() {
        let body = r#"[
            {"message_id":1,"message_seq":1,"channel_id":"g","channel_type":2,"from_uid":"ann"},
            {"message_id":2,"message_seq":2,"channel_id":"g____cmd","channel_type":2},
            {"message_id":3,"message_seq":0,"channel_id":"g","channel_type":2},
            1
        ]"#;
        let webhook = decode("msg.notify", body).unwrap();
        let ids = webhook
            .batch
            .messages
            .iter()
            .map(|incoming| incoming.message.message_id.0);
        assert_eq!(ids.collect::<Vec<_>>(), [1]);
        assert_eq!((webhook.skipped, webhook.refused), (1, 2));
    }

    #[test]
    fn only_recipients_of_groups_are_kept() {
        let offline = |channel_type: u8| {
            let body = format!(
                r#"{{"message_id":1,"message_seq":1,"channel_id":"bob","channel_type":{channel_type},
                    "from_uid":"ann","to_uids":["bob",""]}}"#
            );
            decode("msg.offline", &body).unwrap().batch.recipients
        };
        assert_eq!(
            offline(2).unwrap().uids,
            [Uid::parse("uid", "bob").unwrap()]
        );
        assert!(offline(1).is_none());
        assert!(decode("msg.later", "").unwrap().batch.messages.is_empty());
        assert!(decode("", "[]").is_err());
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
