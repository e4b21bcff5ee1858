//! Memory of webhooks that `WuKongIM` will send again. Of such a webhook some parts may be done
//! already: this server may have stored it, or a target may have taken it. A repeat does only the
//! rest.
//!
//! A webhook is forgotten as soon as all of its parts are done and `WuKongIM` has the answer: a
//! body like that of `user.onlinestatus` may come again later and means something new then. For the
//! same reason the memory of a failed webhook expires: `WuKongIM` repeats after a second, or at once
//! after its own time limit.

use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

/// How long after its first attempt a webhook is remembered. Five attempts take half a minute.
const TTL: Duration = Duration::from_secs(120);
/// Maximum number of remembered webhooks; the least recently attempted are forgotten.
const MAX_REMEMBERED: u64 = 10_000;

type WebhookHash = [u8; 32];

/// The webhooks in progress, and those that failed lately.
#[derive(Debug)]
pub(super) struct Attempts(Cache<WebhookHash, Arc<Progress>>);

/// The finished parts of a webhook. The lock of a part is held while the part is being done, so that a
/// repeat that comes meanwhile waits for the outcome.
#[derive(Debug)]
pub(super) struct Progress {
    hash: WebhookHash,
    pub(super) stored: Mutex<bool>,
    /// In the order of the targets.
    pub(super) taken: Vec<Mutex<bool>>,
}

impl Attempts {
    pub(super) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(MAX_REMEMBERED)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(TTL)
            .build();
        Self(cache)
    }

    /// Returns what earlier attempts have done of a webhook.
    pub(super) fn progress(&self, event: &str, body: &[u8], targets: usize) -> Arc<Progress> {
        let mut hash = Sha256::new();
        hash.update((event.len() as u64).to_be_bytes());
        hash.update(event);
        hash.update(body);
        let hash: WebhookHash = hash.finalize().into();
        self.0.get_with(hash, || {
            Arc::new(Progress {
                hash,
                stored: Mutex::default(),
                taken: (0..targets).map(|_| Mutex::default()).collect(),
            })
        })
    }

    /// Forgets a webhook that will not be repeated.
    pub(super) fn forget(&self, progress: &Progress) {
        self.0.invalidate(&progress.hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn same_event_and_body_share_their_progress_until_they_are_forgotten() {
        let attempts = Attempts::new();
        let first = attempts.progress("msg.notify", b"[]", 2);
        *first.taken[1].lock().await = true;
        let repeat = attempts.progress("msg.notify", b"[]", 2);
        assert!(*repeat.taken[1].lock().await && !*repeat.taken[0].lock().await);
        for (event, body) in [
            ("msg.notify", "[1]"),
            ("msg.notify[", "]"),
            ("", "msg.notify[]"),
        ] {
            let other = attempts.progress(event, body.as_bytes(), 2);
            assert!(!*other.taken[1].lock().await, "{event} {body}");
        }
        attempts.forget(&first);
        let later = attempts.progress("msg.notify", b"[]", 2);
        assert!(!*later.taken[1].lock().await);
    }
}
