//! The parts that all use cases share.

use std::sync::Arc;
use std::time::Duration;

use crate::batching::{BatchHandler, Batcher};
use crate::bus::NotificationBus;
use crate::clock::{Clock, IdGenerator};
use crate::config::{Limits, Settings, WukongimVersion};
use crate::error::Error;
use crate::store::Store;

/// The database, the clock, the notifications and the settings of the use cases.
#[derive(Debug)]
pub struct Base {
    /// The database.
    pub store: Store,
    /// The clock.
    pub clock: Clock,
    /// Generator of message ids, request ids and client numbers.
    pub ids: IdGenerator,
    /// Notifies subscriptions of changes.
    pub bus: Arc<NotificationBus>,
    /// `conversation.on`
    pub conversations_on: bool,
    /// `ingest.wukongim`
    pub wukongim: WukongimVersion,
    /// `[limits]`
    pub limits: Limits,
}

impl Base {
    pub(crate) fn new(store: Store, clock: Clock, ids: IdGenerator, settings: &Settings) -> Self {
        Self {
            store,
            clock,
            ids,
            bus: Arc::default(),
            conversations_on: settings.conversation.on,
            wukongim: settings.ingest.wukongim,
            limits: settings.limits.clone(),
        }
    }

    /// Creates a batcher, whose requests wait for at most the time limit of a request.
    pub(crate) fn batcher<H: BatchHandler>(&self, handler: H, max_batch_size: usize) -> Batcher<H> {
        Batcher::new(
            handler,
            max_batch_size,
            Duration::from_secs(self.limits.request_timeout_seconds),
            self.store.lock_wait_permits(),
        )
    }

    /// # Errors
    /// [`Error::ConversationsOff`] if conversations are disabled.
    pub fn check_conversations_on(&self) -> Result<(), Error> {
        if self.conversations_on {
            Ok(())
        } else {
            Err(Error::ConversationsOff)
        }
    }
}
