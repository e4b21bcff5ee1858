//! Decodes and stores messages, and counts them.

use serde_json::Value;

use super::{Import, ImportSummary, with_details};
use crate::import::decode::decode_messages;
use crate::message::{IncomingMessage, MessageBatch, ingest};
use crate::model::ChannelKey;

pub(super) fn decode(
    import: &Import,
    key: &ChannelKey,
    loses_red_dots: bool,
    messages: impl Iterator<Item = Value>,
) -> Vec<IncomingMessage> {
    let (messages, refused) = decode_messages(&import.core.base, key, loses_red_dots, messages);
    import.add(&ImportSummary {
        refused,
        ..ImportSummary::default()
    });
    messages
}

pub(super) async fn store_messages(
    import: &Import,
    messages: Vec<IncomingMessage>,
) -> anyhow::Result<()> {
    let batch = MessageBatch {
        messages,
        recipients: None,
    };
    let report = ingest(&import.core.messages, batch)
        .await
        .map_err(with_details)?;
    import.add(&ImportSummary {
        stored: report.stored,
        conflicts: report.conflicts,
        ..ImportSummary::default()
    });
    Ok(())
}

/// Returns whether the message is a stream, whose text may have grown since it was stored.
pub(super) fn is_of_stream(message: &Value) -> bool {
    ["stream_no", "stream_data", "streams"]
        .iter()
        .any(|field| match message.get(field) {
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(pieces)) => !pieces.is_empty(),
            _ => false,
        })
}
