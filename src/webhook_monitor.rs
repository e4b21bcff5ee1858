//! Tells the repair of missing messages about the webhooks of this server.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OnceCell;

use crate::model::EpochMs;
use crate::store::{Store, StoreError};

/// Remembers that webhooks arrive, and failures.
#[derive(Debug, Default)]
pub(crate) struct WebhookMonitor {
    /// Set when the database knows since when webhooks arrive.
    is_recorded: OnceCell<()>,
    has_failed: AtomicBool,
}

impl WebhookMonitor {
    /// Records that a webhook arrived. It counts as failed until it is stored, also if its sender
    /// hangs up: the sender may drop it.
    pub(crate) async fn arrived(
        &self,
        store: &Store,
        now: EpochMs,
    ) -> Result<ArrivedWebhook<'_>, StoreError> {
        let arrived = ArrivedWebhook {
            monitor: self,
            is_stored: false,
        };
        self.is_recorded
            .get_or_try_init(|| store.record_feeder(now))
            .await?;
        Ok(arrived)
    }

    /// Returns whether a webhook has failed since the last call.
    pub(crate) fn take_failure(&self) -> bool {
        self.has_failed.swap(false, Ordering::Relaxed)
    }
}

/// A webhook that is being stored.
pub(crate) struct ArrivedWebhook<'a> {
    monitor: &'a WebhookMonitor,
    is_stored: bool,
}

impl ArrivedWebhook<'_> {
    /// Records that the messages are stored.
    pub(crate) fn stored(mut self) {
        self.is_stored = true;
    }
}

impl Drop for ArrivedWebhook<'_> {
    fn drop(&mut self) {
        if !self.is_stored {
            self.monitor.has_failed.store(true, Ordering::Relaxed);
        }
    }
}
