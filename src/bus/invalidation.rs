//! Invalidations, and the outbox of invalidations for other servers.

use std::collections::HashSet;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::lock;
use crate::model::ChannelPk;

/// An invalidation for other servers with more entries than this is replaced by one for everybody.
pub(super) const MAX_INVALIDATION_ENTRIES: usize = 10_000;

/// The channels and users that changed. It carries no data: subscribers read the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Invalidation {
    /// Channels with a new message, or with another change that members see; by internal id.
    pub(crate) channels: HashSet<ChannelPk>,
    /// Users whose list changed.
    pub(crate) users: HashSet<String>,
    /// True if any channel and any user may have changed.
    pub(crate) everybody: bool,
}

impl Invalidation {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.users.is_empty() && !self.everybody
    }
}

/// The next invalidation for other servers, merged from those that are pending.
#[derive(Debug, Default)]
pub(crate) struct RedisOutbox {
    next: Mutex<Invalidation>,
    filled: Notify,
}

impl RedisOutbox {
    /// Waits until an invalidation is pending, and removes it from the outbox.
    pub(crate) async fn take(&self) -> Invalidation {
        loop {
            let invalidation = std::mem::take(&mut *lock(&self.next));
            if !invalidation.is_empty() {
                return invalidation;
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn push(&self, invalidation: Invalidation) {
        let mut next = lock(&self.next);
        next.everybody |= invalidation.everybody;
        if !next.everybody {
            next.channels.extend(invalidation.channels);
            next.users.extend(invalidation.users);
        }
        if next.everybody || next.channels.len() + next.users.len() > MAX_INVALIDATION_ENTRIES {
            *next = Invalidation {
                everybody: true,
                ..Invalidation::default()
            };
        }
        drop(next);
        self.filled.notify_one();
    }
}
