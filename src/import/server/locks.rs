//! One task at a time imports a channel.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{Mutex, MutexGuard};

use crate::model::ChannelKey;

/// Channels share locks, so that their number is fixed.
const LOCKS: usize = 4096;

/// Locks of all channels.
#[derive(Debug)]
pub(super) struct ChannelLocks(Vec<Mutex<()>>);

impl ChannelLocks {
    pub(super) fn new() -> Self {
        Self((0..LOCKS).map(|_| Mutex::default()).collect())
    }

    /// Locks these channels, in the same order for all tasks. A task that holds locks must not call
    /// this again.
    pub(super) async fn lock<'a>(
        &self,
        keys: impl Iterator<Item = &'a ChannelKey>,
    ) -> Vec<MutexGuard<'_, ()>> {
        let mut numbers: Vec<usize> = keys.map(number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut locks = Vec::with_capacity(numbers.len());
        for number in numbers {
            locks.push(self.0[number].lock().await);
        }
        locks
    }
}

fn number(key: &ChannelKey) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or_default()
}
