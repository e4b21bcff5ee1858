//! `/webhook?event=…`: receives the messages that a running `WuKongIM` has stored.

use std::sync::Arc;

use crate::error::Error;
use crate::message::ingest;
use crate::services::Services;
use crate::wukongim::{MessageDecoder, SourceDialect, decode_webhook};

/// Stores the messages of a webhook; returns after the commit.
///
/// # Errors
/// [`Error::BadRequest`] or [`Error::BadInput`] only if the body does not have the event's JSON
/// structure; [`Error::Store`].
pub(super) async fn handle_webhook(core: &Services, event: &str, body: &[u8]) -> Result<(), Error> {
    let decoder = MessageDecoder {
        dialect: SourceDialect::of_webhooks(core.base.wukongim),
        limits: &core.base.limits,
        clock: &core.base.clock,
    };
    let webhook = decode_webhook(decoder, event, body)?;
    let batch = Arc::new(webhook.batch);
    let arrived = core.webhooks.arrived(core.base.clock.now_ms());
    ingest(&core.messages, Arc::clone(&batch)).await?;
    arrived.stored();
    if let Some(member_lookup) = &core.member_lookup {
        member_lookup.enqueue_unknown(&batch.messages, webhook.lacks_recipients);
    }
    Ok(())
}
