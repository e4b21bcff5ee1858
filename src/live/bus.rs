//! Hints, and who waits for them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::channel::ChannelKey;
use crate::ids::Uid;

/// More than this in one hint to other servers, and it says "everybody".
const NAMED_AT_MOST: usize = 10_000;

/// What moved. It carries no data: who is concerned looks into the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hint {
    /// Channels with a new message, or another change that their members see; internal ids.
    pub(super) channels: HashSet<i64>,
    /// Users whose list changed.
    pub(super) users: HashSet<String>,
    /// Nobody knows what moved.
    pub(super) everybody: bool,
}

impl Hint {
    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.users.is_empty() && !self.everybody
    }
}

/// Somebody who waits for hints.
#[derive(Debug)]
pub(super) struct Waiter {
    number: u64,
    woken: Notify,
    /// Which users were named by hints, for who waits for several.
    named: Option<Mutex<HashSet<String>>>,
}

impl Waiter {
    /// Hints that came since the last call count, however many they were.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Wakes because of a user.
    pub(super) fn name(&self, uid: &str) {
        if let Some(named) = &self.named {
            lock(named).insert(uid.to_owned());
        }
        self.wake();
    }

    /// The users who were named since the last call.
    pub(super) fn take_named(&self) -> HashSet<String> {
        self.named
            .as_ref()
            .map(|named| std::mem::take(&mut *lock(named)))
            .unwrap_or_default()
    }
}

/// Where writes leave their hints. Nobody is waited for: without anybody who is concerned it costs
/// a look into a table.
#[derive(Debug, Default)]
pub struct Bus {
    waiting: Mutex<Waiting>,
    numbers: AtomicU64,
    /// Hints for other servers, where there are any.
    outbox: OnceLock<Outbox>,
    /// Hints that concern everybody.
    pub(super) everybody: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    users: HashMap<String, Vec<Arc<Waiter>>>,
    /// Sorted by number.
    channels: HashMap<i64, Vec<Arc<Waiter>>>,
}

/// What other servers are to be told next.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    next: Mutex<Hint>,
    filled: Notify,
}

impl Outbox {
    /// Waits until there is something to tell, and takes all of it.
    pub(super) async fn take(&self) -> Hint {
        loop {
            let hint = std::mem::take(&mut *lock(&self.next));
            if !hint.is_empty() {
                return hint;
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn put(&self, hint: Hint) {
        let mut next = lock(&self.next);
        next.everybody |= hint.everybody;
        if !next.everybody {
            next.channels.extend(hint.channels);
            next.users.extend(hint.users);
        }
        if next.everybody || next.channels.len() + next.users.len() > NAMED_AT_MOST {
            *next = Hint {
                everybody: true,
                ..Hint::default()
            };
        }
        drop(next);
        self.filled.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    /// A channel has a new message, or another change that its members see. After the commit.
    pub(crate) fn channels_moved<'a>(
        &self,
        channels: impl IntoIterator<Item = (i64, &'a ChannelKey)>,
    ) {
        let mut hint = Hint::default();
        for (id, key) in channels {
            hint.channels.insert(id);
            // The first message of a person channel makes conversations of users who do not wait
            // for it yet.
            hint.users
                .extend(key.born_members().iter().map(Uid::to_string));
        }
        self.publish(hint);
    }

    /// These users' lists changed. After the commit.
    pub(crate) fn users_changed<'a>(&self, uids: impl IntoIterator<Item = &'a Uid>) {
        self.publish(Hint {
            users: uids.into_iter().map(Uid::to_string).collect(),
            ..Hint::default()
        });
    }

    fn publish(&self, hint: Hint) {
        if hint.is_empty() {
            return;
        }
        self.deliver(&hint);
        if let Some(outbox) = self.outbox.get() {
            outbox.put(hint);
        }
    }

    /// Wakes who is concerned in this process.
    pub(super) fn deliver(&self, hint: &Hint) {
        let waiting = lock(&self.waiting);
        let mut woken = 0;
        for (uid, waiter) in hint
            .users
            .iter()
            .filter_map(|uid| Some((uid, waiting.users.get(uid)?)))
            .flat_map(|(uid, waiters)| waiters.iter().map(move |waiter| (uid, waiter)))
        {
            waiter.name(uid);
            woken += 1;
        }
        for waiter in hint
            .channels
            .iter()
            .filter_map(|id| waiting.channels.get(id))
            .flatten()
        {
            waiter.wake();
            woken += 1;
        }
        drop(waiting);
        if hint.everybody {
            self.everybody.notify_one();
        }
        metrics::counter!("recents_live_wakes_total").increment(woken);
    }

    /// From now on hints are kept for other servers.
    pub(super) fn outbox(&self) -> &Outbox {
        self.outbox.get_or_init(Outbox::default)
    }
}

/// A waiter and what it waits for, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    bus: Arc<Bus>,
    pub(super) waiter: Arc<Waiter>,
    users: Mutex<HashSet<String>>,
    channels: Mutex<HashSet<i64>>,
}

impl Watch {
    /// Waits for what changes in this user's list.
    pub(super) fn of_user(bus: &Arc<Bus>, uid: &Uid) -> Self {
        let watch = Self::new(bus, None);
        watch.add_user(uid);
        watch
    }

    /// Waits for nothing yet, and will know which users were named.
    pub(super) fn of_many(bus: &Arc<Bus>) -> Self {
        Self::new(bus, Some(Mutex::default()))
    }

    fn new(bus: &Arc<Bus>, named: Option<Mutex<HashSet<String>>>) -> Self {
        let number = bus.numbers.fetch_add(1, Ordering::Relaxed);
        let waiter = Arc::new(Waiter {
            number,
            woken: Notify::new(),
            named,
        });
        Self {
            bus: Arc::clone(bus),
            waiter,
            users: Mutex::default(),
            channels: Mutex::default(),
        }
    }

    /// Waits for what changes in this user's list, too.
    pub(super) fn add_user(&self, uid: &Uid) {
        if lock(&self.users).insert(uid.to_string()) {
            lock(&self.bus.waiting)
                .users
                .entry(uid.to_string())
                .or_default()
                .push(Arc::clone(&self.waiter));
        }
    }

    /// Waits for what changes in this user's list no more.
    pub(super) fn remove_user(&self, uid: &Uid) {
        if lock(&self.users).remove(uid.as_str()) {
            self.forget_user(&mut lock(&self.bus.waiting), uid.as_str());
        }
    }

    fn forget_user(&self, waiting: &mut Waiting, uid: &str) {
        if let Some(waiters) = waiting.users.get_mut(uid) {
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            if waiters.is_empty() {
                waiting.users.remove(uid);
            }
        }
    }

    /// Waits for these channels too; whether any of them is new.
    pub(super) fn add(&self, channels: impl IntoIterator<Item = i64>) -> bool {
        let mut is_news = false;
        let mut known = lock(&self.channels);
        let mut waiting = lock(&self.bus.waiting);
        for id in channels {
            if known.insert(id) {
                is_news = true;
                let waiters = waiting.channels.entry(id).or_default();
                let at = waiters.partition_point(|waiter| waiter.number < self.waiter.number);
                waiters.insert(at, Arc::clone(&self.waiter));
            }
        }
        is_news
    }

    /// Waits for these channels no more.
    pub(super) fn remove(&self, channels: impl IntoIterator<Item = i64>) {
        let mut known = lock(&self.channels);
        let mut waiting = lock(&self.bus.waiting);
        for id in channels {
            if known.remove(&id) {
                self.forget(&mut waiting, id);
            }
        }
    }

    fn forget(&self, waiting: &mut Waiting, id: i64) {
        let Entry::Occupied(mut waiters) = waiting.channels.entry(id) else {
            return;
        };
        if let Ok(at) = waiters
            .get()
            .binary_search_by_key(&self.waiter.number, |waiter| waiter.number)
        {
            waiters.get_mut().remove(at);
        }
        if waiters.get().is_empty() {
            waiters.remove();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (channels, users) = (
            std::mem::take(&mut *lock(&self.channels)),
            std::mem::take(&mut *lock(&self.users)),
        );
        let mut waiting = lock(&self.bus.waiting);
        for id in channels {
            self.forget(&mut waiting, id);
        }
        for uid in users {
            self.forget_user(&mut waiting, &uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::ids::{ChannelType, Uid};

    fn uid(text: &str) -> Uid {
        Uid::parse("uid", text).unwrap()
    }

    fn group(id: &str) -> ChannelKey {
        ChannelKey {
            channel_type: ChannelType::GROUP,
            key: id.to_owned(),
        }
    }

    fn was_woken(watch: &Watch) -> bool {
        watch.waiter.woken().now_or_never().is_some()
    }

    #[test]
    fn only_who_is_concerned_is_woken_and_once() {
        let bus = Arc::new(Bus::default());
        let (ann, bob, chat) = (
            Watch::of_user(&bus, &uid("ann")),
            Watch::of_user(&bus, &uid("bob")),
            Watch::of_many(&bus),
        );
        ann.add([1, 2]);
        bob.add([2]);
        chat.add([1]);
        bus.channels_moved([(1, &group("g")), (1, &group("g"))]);
        bus.channels_moved([(1, &group("g"))]);
        assert_eq!(
            (was_woken(&ann), was_woken(&bob), was_woken(&chat)),
            (true, false, true)
        );
        assert!(!was_woken(&ann), "a hundred hints are one");
        bus.users_changed([&uid("bob"), &uid("cat")]);
        assert_eq!(
            (was_woken(&ann), was_woken(&bob), was_woken(&chat)),
            (false, true, false)
        );
        bus.channels_moved([(9, &ChannelKey::person("ann", "zoe"))]);
        assert_eq!(
            (was_woken(&ann), was_woken(&bob)),
            (true, false),
            "a person channel that she does not know yet"
        );
        ann.remove([2]);
        bus.channels_moved([(2, &group("h"))]);
        assert_eq!((was_woken(&ann), was_woken(&bob)), (false, true));
    }

    #[test]
    fn who_waits_for_several_users_knows_which_ones() {
        let bus = Arc::new(Bus::default());
        let (chat, ann) = (Watch::of_many(&bus), Watch::of_user(&bus, &uid("ann")));
        chat.add_user(&uid("ann"));
        chat.add_user(&uid("bob"));
        bus.users_changed([&uid("ann"), &uid("cat")]);
        assert!(was_woken(&chat) && was_woken(&ann));
        assert_eq!(chat.waiter.take_named(), HashSet::from(["ann".to_owned()]));
        chat.remove_user(&uid("ann"));
        bus.users_changed([&uid("ann"), &uid("bob")]);
        assert!(was_woken(&chat) && was_woken(&ann));
        assert_eq!(chat.waiter.take_named(), HashSet::from(["bob".to_owned()]));
        assert_eq!(chat.waiter.take_named(), HashSet::new());
    }

    #[test]
    fn who_is_gone_leaves_nothing_behind() {
        let bus = Arc::new(Bus::default());
        let watches: Vec<Watch> = (0..50)
            .map(|number| Watch::of_user(&bus, &uid(&format!("u{number}"))))
            .collect();
        for watch in &watches {
            watch.add(0..20);
        }
        drop(watches);
        let waiting = lock(&bus.waiting);
        assert!(waiting.users.is_empty() && waiting.channels.is_empty());
    }

    #[tokio::test]
    async fn hints_for_other_servers_are_put_together_and_bounded() {
        let bus = Bus::default();
        bus.users_changed([&uid("ann")]);
        let outbox = bus.outbox();
        bus.users_changed([&uid("bob")]);
        bus.channels_moved([(7, &group("g"))]);
        let hint = outbox.take().await;
        assert_eq!(
            (hint.users.len(), hint.channels.len(), hint.everybody),
            (1, 1, false)
        );
        let many = group("g");
        bus.channels_moved((0..=NAMED_AT_MOST as i64).map(|id| (id, &many)));
        let hint = outbox.take().await;
        assert_eq!((hint.channels.len(), hint.everybody), (0, true));
        assert!(outbox.take().now_or_never().is_none());
    }
}
