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
}

impl Waiter {
    /// Hints that came since the last call count, however many they were.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }
}

/// Where writes leave their hints. Nobody is waited for: without anybody who is concerned it costs a look into a table.
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
    users: HashMap<String, Arc<Waiter>>,
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
            *next = Hint { everybody: true, ..Hint::default() };
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
    pub(crate) fn channels_moved<'a>(&self, channels: impl IntoIterator<Item = (i64, &'a ChannelKey)>) {
        let mut hint = Hint::default();
        for (id, key) in channels {
            hint.channels.insert(id);
            // The first message of a person channel makes conversations of users who do not wait for it yet.
            hint.users.extend(key.born_members().iter().map(Uid::to_string));
        }
        self.publish(hint);
    }

    /// These users' lists changed. After the commit.
    pub(crate) fn users_changed<'a>(&self, uids: impl IntoIterator<Item = &'a Uid>) {
        self.publish(Hint { users: uids.into_iter().map(Uid::to_string).collect(), ..Hint::default() });
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
        let users = hint.users.iter().filter_map(|uid| waiting.users.get(uid));
        let channels = hint.channels.iter().filter_map(|id| waiting.channels.get(id)).flatten();
        let mut woken = 0;
        for waiter in users.chain(channels) {
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
    uid: Option<String>,
    channels: Mutex<HashSet<i64>>,
}

impl Watch {
    /// Waits for what changes in this user's list, or for nothing yet. There is one of a user at a time.
    pub(super) fn new(bus: &Arc<Bus>, uid: Option<&Uid>) -> Self {
        let number = bus.numbers.fetch_add(1, Ordering::Relaxed);
        let waiter = Arc::new(Waiter { number, woken: Notify::new() });
        if let Some(uid) = uid {
            lock(&bus.waiting).users.insert(uid.to_string(), Arc::clone(&waiter));
        }
        Self { bus: Arc::clone(bus), waiter, uid: uid.map(Uid::to_string), channels: Mutex::default() }
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
        let Entry::Occupied(mut waiters) = waiting.channels.entry(id) else { return };
        if let Ok(at) = waiters.get().binary_search_by_key(&self.waiter.number, |waiter| waiter.number) {
            waiters.get_mut().remove(at);
        }
        if waiters.get().is_empty() {
            waiters.remove();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let known = std::mem::take(&mut *lock(&self.channels));
        let mut waiting = lock(&self.bus.waiting);
        for id in known {
            self.forget(&mut waiting, id);
        }
        if let Some(uid) = &self.uid
            && waiting.users.get(uid).is_some_and(|waiter| Arc::ptr_eq(waiter, &self.waiter))
        {
            waiting.users.remove(uid);
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
        ChannelKey { channel_type: ChannelType::GROUP, key: id.to_owned() }
    }

    fn was_woken(watch: &Watch) -> bool {
        watch.waiter.woken().now_or_never().is_some()
    }

    #[test]
    fn only_who_is_concerned_is_woken_and_once() {
        let bus = Arc::new(Bus::default());
        let (ann, bob, chat) = (Watch::new(&bus, Some(&uid("ann"))), Watch::new(&bus, Some(&uid("bob"))), Watch::new(&bus, None));
        ann.add([1, 2]);
        bob.add([2]);
        chat.add([1]);
        bus.channels_moved([(1, &group("g")), (1, &group("g"))]);
        bus.channels_moved([(1, &group("g"))]);
        assert_eq!((was_woken(&ann), was_woken(&bob), was_woken(&chat)), (true, false, true));
        assert!(!was_woken(&ann), "a hundred hints are one");
        bus.users_changed([&uid("bob"), &uid("cat")]);
        assert_eq!((was_woken(&ann), was_woken(&bob), was_woken(&chat)), (false, true, false));
        bus.channels_moved([(9, &ChannelKey::person("ann", "zoe"))]);
        assert_eq!((was_woken(&ann), was_woken(&bob)), (true, false), "a person channel that she does not know yet");
        ann.remove([2]);
        bus.channels_moved([(2, &group("h"))]);
        assert_eq!((was_woken(&ann), was_woken(&bob)), (false, true));
    }

    #[test]
    fn who_is_gone_leaves_nothing_behind() {
        let bus = Arc::new(Bus::default());
        let watches: Vec<Watch> = (0..50).map(|number| Watch::new(&bus, Some(&uid(&format!("u{number}"))))).collect();
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
        assert_eq!((hint.users.len(), hint.channels.len(), hint.everybody), (1, 1, false));
        let many = group("g");
        bus.channels_moved((0..=NAMED_AT_MOST as i64).map(|id| (id, &many)));
        let hint = outbox.take().await;
        assert_eq!((hint.channels.len(), hint.everybody), (0, true));
        assert!(outbox.take().now_or_never().is_none());
    }
}
