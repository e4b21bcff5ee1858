//! What the repair of missing messages must know of the webhooks of this server.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::EpochMs;

/// Remembers the first webhook, and failures.
#[derive(Debug, Default)]
pub(crate) struct WebhookMonitor {
    first_at: OnceLock<EpochMs>,
    has_failed: AtomicBool,
}

impl WebhookMonitor {
    /// Records that a webhook arrived. It counts as failed until it is stored, also if its sender
    /// hangs up: the sender may drop it.
    pub(crate) fn arrived(&self, now: EpochMs) -> ArrivedWebhook<'_> {
        let _ = self.first_at.set(now);
        ArrivedWebhook {
            monitor: self,
            is_stored: false,
        }
    }

    /// Returns when the first webhook arrived.
    pub(crate) fn first_at(&self) -> Option<EpochMs> {
        self.first_at.get().copied()
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
