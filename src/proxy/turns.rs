//! Turns: changes of one channel happen one after the other, so that both servers see them in the
//! same order.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::model::ChannelRef;

/// The number of locks. Channels that share one wait for each other.
const LOCKS: usize = 256;

/// The locks of all channels.
#[derive(Debug)]
pub(super) struct Turns {
    locks: Vec<Arc<Mutex<()>>>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            locks: (0..LOCKS).map(|_| Arc::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Turns {
    /// Waits for the turn of a change of this channel, which ends when the guard is dropped.
    pub(super) async fn wait(&self, channel: &ChannelRef) -> OwnedMutexGuard<()> {
        let hash = self.hasher.hash_one(channel);
        let index = usize::try_from(hash % self.locks.len() as u64).unwrap_or_default();
        Arc::clone(&self.locks[index]).lock_owned().await
    }
}
