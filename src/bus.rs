//! Invalidations, and the subscriptions that they wake.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::model::{ChannelKey, ChannelPk, Uid};

/// An invalidation for other servers with more entries than this is replaced by one for everybody.
const MAX_INVALIDATION_ENTRIES: usize = 10_000;

/// The channels and users that changed. It carries no data: subscribers read the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Invalidation {
    /// Channels with a new message, or with another change that members see; by internal id.
    pub(crate) channels: HashSet<ChannelPk>,
    /// Users whose list changed.
    pub(crate) users: HashSet<String>,
    /// Set if it is not known what changed.
    pub(crate) everybody: bool,
}

impl Invalidation {
    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.users.is_empty() && !self.everybody
    }
}

/// Wakes one subscriber.
#[derive(Debug)]
pub(crate) struct Waker {
    number: u64,
    notify: Notify,
    /// The users that invalidations named, for subscribers of several users.
    changed_users: Option<Mutex<HashSet<String>>>,
}

impl Waker {
    /// Waits for an invalidation. All that arrived since the last call count as one.
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

    /// Returns the users that were named since the last call.
    pub(crate) fn take_changed_users(&self) -> HashSet<String> {
        self.changed_users
            .as_ref()
            .map(|changed_users| std::mem::take(&mut *lock(changed_users)))
            .unwrap_or_default()
    }
}

/// Delivers invalidations after writes. A write never waits for it; without subscribers it costs a
/// map lookup.
#[derive(Debug, Default)]
pub struct NotificationBus {
    registry: Mutex<WakerRegistry>,
    numbers: AtomicU64,
    /// Invalidations for other servers, if there are any.
    outbox: OnceLock<RedisOutbox>,
    /// Notified by invalidations for everybody.
    pub(crate) everybody: Notify,
}

#[derive(Debug, Default)]
struct WakerRegistry {
    users: HashMap<String, Vec<Arc<Waker>>>,
    /// Sorted by number.
    channels: HashMap<ChannelPk, Vec<Arc<Waker>>>,
}

/// The next invalidation for other servers, merged from those that are pending.
#[derive(Debug, Default)]
pub(crate) struct RedisOutbox {
    next: Mutex<Invalidation>,
    filled: Notify,
}

impl RedisOutbox {
    /// Waits until an invalidation is pending, and takes it.
    pub(crate) async fn take(&self) -> Invalidation {
        loop {
            let invalidation = std::mem::take(&mut *lock(&self.next));
            if !invalidation.is_empty() {
                return invalidation;
            }
            self.filled.notified().await;
        }
    }

    pub(crate) fn put(&self, invalidation: Invalidation) {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NotificationBus {
    /// Announces a new message in these channels, or another change that their members see. Call it
    /// after the commit.
    pub(crate) fn channels_moved<'a>(
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

    /// Announces changes of these users' lists. Call it after the commit.
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
            outbox.put(invalidation);
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

    /// Returns the outbox. From the first call on, invalidations are kept for other servers.
    pub(crate) fn outbox(&self) -> &RedisOutbox {
        self.outbox.get_or_init(RedisOutbox::default)
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
        let mut is_news = false;
        let mut subscribed = lock(&self.channels);
        let mut registry = lock(&self.bus.registry);
        for id in channels {
            if subscribed.insert(id) {
                is_news = true;
                let wakers = registry.channels.entry(id).or_default();
                let at = wakers.partition_point(|waker| waker.number < self.waker.number);
                wakers.insert(at, Arc::clone(&self.waker));
            }
        }
        is_news
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::model::{ChannelType, Uid};

    fn uid(text: &str) -> Uid {
        Uid::parse("uid", text).unwrap()
    }

    fn group(id: &str) -> ChannelKey {
        ChannelKey {
            channel_type: ChannelType::GROUP,
            key: id.to_owned(),
        }
    }

    fn was_woken(subscription: &Subscription) -> bool {
        subscription.waker.notified().now_or_never().is_some()
    }

    #[test]
    fn notifications_wake_only_subscribers() {
        let bus = Arc::new(NotificationBus::default());
        let (ann, bob, chat) = (
            Subscription::for_user(&bus, &uid("ann")),
            Subscription::for_user(&bus, &uid("bob")),
            Subscription::for_users(&bus),
        );
        ann.add_channels([1, 2].map(ChannelPk));
        bob.add_channels([ChannelPk(2)]);
        chat.add_channels([ChannelPk(1)]);
        bus.channels_moved([(ChannelPk(1), &group("g")), (ChannelPk(1), &group("g"))]);
        bus.channels_moved([(ChannelPk(1), &group("g"))]);
        assert_eq!(
            (was_woken(&ann), was_woken(&bob), was_woken(&chat)),
            (true, false, true)
        );
        assert!(!was_woken(&ann), "several invalidations count as one");
        bus.users_changed([&uid("bob"), &uid("cat")]);
        assert_eq!(
            (was_woken(&ann), was_woken(&bob), was_woken(&chat)),
            (false, true, false)
        );
        bus.channels_moved([(ChannelPk(9), &ChannelKey::person("ann", "zoe"))]);
        assert_eq!(
            (was_woken(&ann), was_woken(&bob)),
            (true, false),
            "a person channel that is new to the user"
        );
        ann.remove_channels([ChannelPk(2)]);
        bus.channels_moved([(ChannelPk(2), &group("h"))]);
        assert_eq!((was_woken(&ann), was_woken(&bob)), (false, true));
    }

    #[test]
    fn subscription_to_several_users_knows_the_changed_ones() {
        let bus = Arc::new(NotificationBus::default());
        let (chat, ann) = (
            Subscription::for_users(&bus),
            Subscription::for_user(&bus, &uid("ann")),
        );
        chat.add_user(&uid("ann"));
        chat.add_user(&uid("bob"));
        bus.users_changed([&uid("ann"), &uid("cat")]);
        assert!(was_woken(&chat) && was_woken(&ann));
        assert_eq!(
            chat.waker.take_changed_users(),
            HashSet::from(["ann".to_owned()])
        );
        chat.remove_user(&uid("ann"));
        bus.users_changed([&uid("ann"), &uid("bob")]);
        assert!(was_woken(&chat) && was_woken(&ann));
        assert_eq!(
            chat.waker.take_changed_users(),
            HashSet::from(["bob".to_owned()])
        );
        assert_eq!(chat.waker.take_changed_users(), HashSet::new());
    }

    #[test]
    fn dropped_subscriptions_are_unregistered() {
        let bus = Arc::new(NotificationBus::default());
        let subscriptions: Vec<Subscription> = (0..50)
            .map(|number| Subscription::for_user(&bus, &uid(&format!("u{number}"))))
            .collect();
        for subscription in &subscriptions {
            subscription.add_channels((0..20).map(ChannelPk));
        }
        drop(subscriptions);
        let registry = lock(&bus.registry);
        assert!(registry.users.is_empty() && registry.channels.is_empty());
    }

    #[tokio::test]
    async fn invalidations_for_other_servers_are_merged_and_bounded() {
        let bus = NotificationBus::default();
        bus.users_changed([&uid("ann")]);
        let outbox = bus.outbox();
        bus.users_changed([&uid("bob")]);
        bus.channels_moved([(ChannelPk(7), &group("g"))]);
        let invalidation = outbox.take().await;
        assert_eq!(
            (
                invalidation.users.len(),
                invalidation.channels.len(),
                invalidation.everybody
            ),
            (1, 1, false)
        );
        let many = group("g");
        bus.channels_moved((0..=MAX_INVALIDATION_ENTRIES as i64).map(|id| (ChannelPk(id), &many)));
        let invalidation = outbox.take().await;
        assert_eq!(
            (invalidation.channels.len(), invalidation.everybody),
            (0, true)
        );
        assert!(outbox.take().now_or_never().is_none());
    }
}
