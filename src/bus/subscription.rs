//! The subscriptions of a process, and the wakers of their subscribers.

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::{NotificationBus, WakerRegistry, lock};
use crate::model::{ChannelPk, Uid};

/// Wakes one subscriber.
#[derive(Debug)]
pub(crate) struct Waker {
    number: u64,
    notify: Notify,
    /// The users whose list changed, for subscribers of several users.
    changed_users: Option<Mutex<HashSet<String>>>,
}

impl Waker {
    /// Waits for an invalidation. Invalidations since the last call are merged into one.
    pub(crate) async fn notified(&self) {
        self.notify.notified().await;
    }

    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Wakes the subscriber because of a user.
    pub(crate) fn wake_for_user(&self, uid: &str) {
        if let Some(changed_users) = &self.changed_users {
            lock(changed_users).insert(uid.to_owned());
        }
        self.wake();
    }

    /// Returns the users whose list changed since the last call.
    pub(crate) fn take_changed_users(&self) -> HashSet<String> {
        self.changed_users
            .as_ref()
            .map(|changed_users| std::mem::take(&mut *lock(changed_users)))
            .unwrap_or_default()
    }
}

/// A waker with its users and channels; dropping it unsubscribes.
#[derive(Debug)]
pub(crate) struct Subscription {
    bus: Arc<NotificationBus>,
    pub(crate) waker: Arc<Waker>,
    users: Mutex<HashSet<String>>,
    channels: Mutex<HashSet<ChannelPk>>,
}

impl Subscription {
    /// Subscribes to a user's list.
    pub(crate) fn for_user(bus: &Arc<NotificationBus>, uid: &Uid) -> Self {
        let subscription = Self::new(bus, None);
        subscription.add_user(uid);
        subscription
    }

    /// Creates an empty subscription that records which users changed.
    pub(crate) fn for_users(bus: &Arc<NotificationBus>) -> Self {
        Self::new(bus, Some(Mutex::default()))
    }

    fn new(bus: &Arc<NotificationBus>, changed_users: Option<Mutex<HashSet<String>>>) -> Self {
        let number = bus.numbers.fetch_add(1, Ordering::Relaxed);
        let waker = Arc::new(Waker {
            number,
            notify: Notify::new(),
            changed_users,
        });
        Self {
            bus: Arc::clone(bus),
            waker,
            users: Mutex::default(),
            channels: Mutex::default(),
        }
    }

    /// Subscribes to another user's list.
    pub(crate) fn add_user(&self, uid: &Uid) {
        if lock(&self.users).insert(uid.to_string()) {
            lock(&self.bus.registry)
                .users
                .entry(uid.to_string())
                .or_default()
                .push(Arc::clone(&self.waker));
        }
    }

    /// Unsubscribes from a user's list.
    pub(crate) fn remove_user(&self, uid: &Uid) {
        if lock(&self.users).remove(uid.as_str()) {
            self.unregister_user(&mut lock(&self.bus.registry), uid.as_str());
        }
    }

    fn unregister_user(&self, registry: &mut WakerRegistry, uid: &str) {
        if let Some(wakers) = registry.users.get_mut(uid) {
            wakers.retain(|waker| !Arc::ptr_eq(waker, &self.waker));
            if wakers.is_empty() {
                registry.users.remove(uid);
            }
        }
    }

    /// Subscribes to these channels as well. Returns whether any of them is new.
    pub(crate) fn add_channels(&self, channels: impl IntoIterator<Item = ChannelPk>) -> bool {
        let mut has_new = false;
        let mut subscribed = lock(&self.channels);
        let mut registry = lock(&self.bus.registry);
        for id in channels {
            if subscribed.insert(id) {
                has_new = true;
                let wakers = registry.channels.entry(id).or_default();
                let at = wakers.partition_point(|waker| waker.number < self.waker.number);
                wakers.insert(at, Arc::clone(&self.waker));
            }
        }
        has_new
    }

    /// Unsubscribes from these channels.
    pub(crate) fn remove_channels(&self, channels: impl IntoIterator<Item = ChannelPk>) {
        let mut subscribed = lock(&self.channels);
        let mut registry = lock(&self.bus.registry);
        for id in channels {
            if subscribed.remove(&id) {
                self.unregister_channel(&mut registry, id);
            }
        }
    }

    fn unregister_channel(&self, registry: &mut WakerRegistry, id: ChannelPk) {
        let Entry::Occupied(mut wakers) = registry.channels.entry(id) else {
            return;
        };
        if let Ok(at) = wakers
            .get()
            .binary_search_by_key(&self.waker.number, |waker| waker.number)
        {
            wakers.get_mut().remove(at);
        }
        if wakers.get().is_empty() {
            wakers.remove();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (channels, users) = (
            std::mem::take(&mut *lock(&self.channels)),
            std::mem::take(&mut *lock(&self.users)),
        );
        let mut registry = lock(&self.bus.registry);
        for id in channels {
            self.unregister_channel(&mut registry, id);
        }
        for uid in users {
            self.unregister_user(&mut registry, &uid);
        }
    }
}
