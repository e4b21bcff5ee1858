//! Decodes the messages of a server.

use serde_json::Value;

use crate::base::Base;
use crate::message::IncomingMessage;
use crate::model::ChannelKey;
use crate::wukongim::{MessageDecoder, SourceDialect, StoredMessage, decode_value};

/// Decodes the messages of a channel. Returns those to be stored, and the number of those that
/// cannot be.
pub(super) fn decode_messages(
    base: &Base,
    key: &ChannelKey,
    loses_red_dots: bool,
    messages: impl Iterator<Item = Value>,
) -> (Vec<IncomingMessage>, u64) {
    let decoder = MessageDecoder {
        dialect: SourceDialect {
            names_pairs: false,
            loses_red_dots,
        },
        limits: &base.limits,
        clock: &base.clock,
    };
    let (mut valid, mut refused) = (Vec::new(), 0);
    for message in messages {
        let Ok(stored) = decode_value::<StoredMessage>(message, "message") else {
            refused += 1;
            continue;
        };
        let seq = stored.seq().map(|seq| seq.0);
        match decoder.decode(stored) {
            // Messages of other channels than the requested one are ignored.
            Ok(incoming) if incoming.key == *key => valid.push(incoming),
            Ok(_) => refused += 1,
            Err(reason) if reason.is_intended() => {}
            Err(reason) => {
                tracing::warn!(reason = reason.label(), channel = ?key, seq, "skipped an invalid message");
                refused += 1;
            }
        }
    }
    (valid, refused)
}
