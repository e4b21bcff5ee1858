//! Delivers invalidations to the subscriptions of this process.

mod invalidation;
mod subscription;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

pub(crate) use self::invalidation::{Invalidation, RedisOutbox};
pub(crate) use self::subscription::Subscription;
use self::subscription::Waker;
use crate::model::{ChannelKey, ChannelPk, Uid};

/// Delivers invalidations after writes. A write never waits for it; without subscribers it costs a
/// map lookup.
#[derive(Debug, Default)]
pub struct NotificationBus {
    registry: Mutex<WakerRegistry>,
    numbers: AtomicU64,
    /// Invalidations for other servers, if there are any.
    outbox: OnceLock<RedisOutbox>,
    /// Notified by an invalidation that concerns all users.
    pub(crate) everybody: Notify,
}

#[derive(Debug, Default)]
struct WakerRegistry {
    users: HashMap<String, Vec<Arc<Waker>>>,
    /// Sorted by number.
    channels: HashMap<ChannelPk, Vec<Arc<Waker>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NotificationBus {
    /// Publishes that channels have a new message, or another change that their members see. Must
    /// be called after the commit.
    pub(crate) fn channels_changed<'a>(
        &self,
        channels: impl IntoIterator<Item = (ChannelPk, &'a ChannelKey)>,
    ) {
        let mut invalidation = Invalidation::default();
        for (id, key) in channels {
            invalidation.channels.insert(id);
            // The first message of a person channel creates conversations of users who do not
            // subscribe to the channel yet.
            invalidation
                .users
                .extend(key.implicit_members().iter().map(Uid::to_string));
        }
        self.publish(invalidation);
    }

    /// Publishes that the lists of users changed. Must be called after the commit.
    pub(crate) fn users_changed<'a>(&self, uids: impl IntoIterator<Item = &'a Uid>) {
        self.publish(Invalidation {
            users: uids.into_iter().map(Uid::to_string).collect(),
            ..Invalidation::default()
        });
    }

    fn publish(&self, invalidation: Invalidation) {
        if invalidation.is_empty() {
            return;
        }
        self.deliver(&invalidation);
        if let Some(outbox) = self.outbox.get() {
            outbox.push(invalidation);
        }
    }

    /// Wakes the subscribers in this process.
    pub(crate) fn deliver(&self, invalidation: &Invalidation) {
        let registry = lock(&self.registry);
        let mut woken = 0;
        for (uid, waker) in invalidation
            .users
            .iter()
            .filter_map(|uid| Some((uid, registry.users.get(uid)?)))
            .flat_map(|(uid, wakers)| wakers.iter().map(move |waker| (uid, waker)))
        {
            waker.wake_for_user(uid);
            woken += 1;
        }
        for waker in invalidation
            .channels
            .iter()
            .filter_map(|id| registry.channels.get(id))
            .flatten()
        {
            waker.wake();
            woken += 1;
        }
        drop(registry);
        if invalidation.everybody {
            self.everybody.notify_one();
        }
        metrics::counter!(crate::metrics::LIVE_NOTIFICATIONS_TOTAL).increment(woken);
    }

    /// Returns the outbox. Invalidations for other servers are collected from the first call on.
    pub(crate) fn outbox(&self) -> &RedisOutbox {
        self.outbox.get_or_init(RedisOutbox::default)
    }
}

#[cfg(test)]
mod tests;
