//! The webhooks of a running `WuKongIM`, which carry the messages that it has stored. It counts only
//! status 200 as delivered, and drops the body after five attempts, so one invalid message must not
//! prevent the others from being stored.

use serde::Deserialize;
use serde_json::Value;

use super::json::{JsonObject, parse_json};
use super::online_state::count_online_states;
use super::recipients::{decompress_uids, report_incomplete_recipients};
use super::{Base64, Checked, MessageDecoder, SkipReason, StoredMessage, decode_value};
use crate::error::Error;
use crate::message::{MessageBatch, Recipients};
use crate::model::{ChannelType, Uid};

/// The content of a webhook.
#[derive(Clone, Debug, Default)]
pub(crate) struct DecodedWebhook {
    /// The valid messages.
    pub(crate) batch: MessageBatch,
    /// Whether the message has more recipients than could be read.
    pub(crate) lacks_recipients: bool,
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
    compress_to_uids: Checked<Base64>,
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
            if known {
                count_online_states(body)?;
            }
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
    let mut webhook = DecodedWebhook::default();
    if !compress.is_empty() {
        let packed: PackedRecipients = object.decode()?;
        let packed = packed.compress_to_uids.or(()).unwrap_or_default().0;
        let (uids, is_complete) = decompress_uids(&packed, decoder.limits.body_bytes)?;
        to_uids.extend(uids);
        if !is_complete {
            webhook.lacks_recipients = true;
            report_incomplete_recipients();
        }
    }
    let stored: StoredMessage = object.decode()?;
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
    fn pieces_of_streams_are_skipped_on_purpose() {
        let chunk = |extra: &str| {
            format!(
                r#"{{"message_id":1,"message_seq":0,"channel_id":"g","channel_type":2{extra}}}"#
            )
        };
        for (extra, skipped) in [
            (r#","stream_no":"s1""#, 1),
            (r#","setting":4"#, 1),
            (r#","setting":2"#, 1),
            (r#","stream_data":"YQ==""#, 1),
            (r#","setting":128"#, 0),
            ("", 0),
        ] {
            let webhook = decode("msg.offline", &chunk(extra)).unwrap();
            assert!(webhook.batch.messages.is_empty(), "{extra}");
            assert_eq!((webhook.skipped, webhook.refused), (skipped, 1 - skipped));
        }
    }

    #[test]
    fn a_body_with_unreadable_recipients_is_accepted() {
        for (compressed, lacks_recipients) in [
            (r#""compress":"""#, false),
            (r#""compress":"gzip""#, true),
            (r#""compress":"gzip","compress_to_uids":7"#, true),
            (r#""compress":"gzip","compress_to_uids":"***""#, true),
            (
                r#""compress":"gzip","compress_to_uids":"H4sIAAAAAAAA/w==""#,
                true,
            ),
            (r#""compress":"zstd","compress_to_uids":"KLUv/Q==""#, true),
        ] {
            let body = format!(
                r#"{{"message_id":1,"message_seq":1,"channel_id":"g","channel_type":2,
                    "from_uid":"ann","to_uids":["bob"],{compressed}}}"#
            );
            let webhook = decode("msg.offline", &body).unwrap();
            assert_eq!(webhook.lacks_recipients, lacks_recipients, "{compressed}");
            assert_eq!(webhook.batch.messages.len(), 1, "{compressed}");
            assert_eq!(webhook.batch.recipients.unwrap().uids.len(), 1);
        }
    }
}
