//! `/webhook?event=…`: receives the messages that a running `WuKongIM` has stored.

use std::sync::Arc;

use crate::error::Error;
use crate::forward::ForwardedRequest;
use crate::message::ingest;
use crate::services::Services;
use crate::state::AppState;
use crate::wukongim::{MessageDecoder, SourceDialect, decode_webhook};

/// Stores a webhook, and forwards it where `ingest.forward_url` or `ingest.forward_grpc` is set.
/// `is_forwarded` says that another recents server has forwarded it.
///
/// # Errors
/// Like [`store_webhook`]; [`Error::ForwardFailed`]; [`Error::ForwardedAlready`] if it would go
/// round in a circle.
pub(super) async fn receive_webhook(
    app: &AppState,
    webhook: ForwardedRequest,
    is_forwarded: bool,
) -> Result<(), Error> {
    let Some(forwarder) = &app.forwarding.webhooks else {
        return store_webhook(&app.core, &webhook.event, &webhook.body).await;
    };
    if is_forwarded {
        return Err(Error::ForwardedAlready("ingest.forward_url"));
    }
    let core = Arc::clone(&app.core);
    let (event, body) = (webhook.event.clone(), webhook.body.clone());
    let store = async move { store_webhook(&core, &event, &body).await };
    forwarder.deliver(webhook, store).await
}

/// Stores the messages of a webhook; returns after the commit.
///
/// # Errors
/// [`Error::BadRequest`] or [`Error::BadInput`] only if the body does not have the event's JSON
/// structure; [`Error::Store`].
async fn store_webhook(core: &Services, event: &str, body: &[u8]) -> Result<(), Error> {
    let decoder = MessageDecoder {
        dialect: SourceDialect::of_webhooks(core.base.wukongim),
        limits: &core.base.limits,
        clock: &core.base.clock,
    };
    let webhook = decode_webhook(decoder, event, body)?;
    let batch = Arc::new(webhook.batch);
    let now = core.base.clock.now_ms();
    let arrived = core.webhooks.arrived(&core.base.store, now).await?;
    ingest(&core.messages, Arc::clone(&batch)).await?;
    arrived.stored();
    if let Some(member_lookup) = &core.member_lookup {
        member_lookup.enqueue_unknown(&batch.messages, webhook.lacks_recipients);
    }
    Ok(())
}
