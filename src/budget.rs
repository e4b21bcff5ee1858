//! Budgets: how much memory, how many requests and how many connections callers hold at once. Every
//! share counts against the server, the address and the user it is held for, so that no caller can
//! take all of it; a part is kept for services.
//!
//! Memory is counted where it is held: what a connection has read and nobody has used yet, a body
//! as it arrives, the values that are parsed from it, the messages of an answer, and the answer
//! until it is written. A share that does not fit is refused before the memory is taken. Caches
//! have limits of their own (`cache.recent_messages_bytes`, `graphql.apq_cache_bytes`).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::error::Error;

tokio::task_local! {
    /// The reservation of the request that this task answers.
    static REQUEST: Reservation;
}

/// Bytes of a request with a small body and a small answer.
const REQUEST_BYTES: usize = 16 * 1024;

/// Every budget of a server.
#[derive(Clone, Debug)]
pub(crate) struct Budgets {
    /// Bytes.
    pub(crate) memory: Budget,
    /// Requests that are being answered.
    pub(crate) requests: Budget,
    /// Open connections.
    pub(crate) connections: Budget,
    turns: Arc<Turns>,
}

impl Budgets {
    pub(crate) fn new(limits: &Limits) -> Self {
        let requests = Ceilings {
            user: limits.user_requests,
            ..Ceilings::of(limits.max_concurrent_requests)
        };
        let connections = Ceilings::of(limits.open_connections);
        let address = connections.address.min(limits.address_connections).max(1);
        Self {
            memory: Budget::new("memory", Ceilings::of(limits.memory_bytes)),
            requests: Budget::new("requests", requests),
            connections: Budget::new(
                "connections",
                Ceilings {
                    address,
                    ..connections
                },
            ),
            turns: Arc::default(),
        }
    }

    /// A place for a request, and the memory that every request takes.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
    pub(crate) fn admit(&self, holder: Holder) -> Result<Reservation, Error> {
        let place = Some(self.requests.take(holder.clone(), 1)?);
        Ok(Reservation::new(
            place,
            self.memory.take(holder, REQUEST_BYTES)?,
            &self.turns,
        ))
    }

    /// Memory for what is told to a subscriber.
    ///
    /// # Errors
    /// As [`Budgets::admit`].
    pub(crate) fn subscribe(&self, holder: Holder) -> Result<Reservation, Error> {
        Ok(Reservation::new(
            None,
            self.memory.take(holder, 0)?,
            &self.turns,
        ))
    }
}

/// How much may be held at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ceilings {
    /// By everybody.
    all: usize,
    /// By callers that are not services.
    guests: usize,
    /// For one address that is not a service's.
    address: usize,
    /// By one user.
    user: usize,
}

impl Ceilings {
    /// A quarter is kept for services. One address has at most half of the rest, one user a third
    /// of it.
    fn of(all: usize) -> Self {
        let guests = (all - all / 4).max(1);
        Self {
            all,
            guests,
            address: (guests / 2).max(1),
            user: (guests / 3).max(1),
        }
    }
}

/// The caller for whom something is held, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) is_service: bool,
    /// The caller's address; `None` for a proxy, which stands for many callers.
    pub(crate) address: Option<IpAddr>,
    pub(crate) uid: Option<String>,
}

/// The ceiling that a share would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Server,
    Address,
    User,
}

impl From<Full> for Error {
    fn from(full: Full) -> Self {
        match full {
            Full::Server => Self::Overloaded,
            Full::Address => Self::TooManyAtOnce(
                "this address holds as much of the server as one address may".into(),
            ),
            Full::User => {
                Self::TooManyAtOnce("this user holds as much of the server as one user may".into())
            }
        }
    }
}

/// An amount that callers share.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    ceilings: Ceilings,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    guests: usize,
    addresses: HashMap<IpAddr, usize>,
    users: HashMap<String, usize>,
}

impl Budget {
    fn new(name: &'static str, ceilings: Ceilings) -> Self {
        Self(Arc::new(Inner {
            name,
            ceilings,
            held: Mutex::default(),
        }))
    }

    /// A share of this amount.
    pub(crate) fn take(&self, holder: Holder, amount: usize) -> Result<Share, Full> {
        let mut share = Share {
            budget: self.clone(),
            holder: Holder {
                address: holder.address.map(network),
                ..holder
            },
            amount: 0,
        };
        share.grow(amount)?;
        Ok(share)
    }

    /// The amount that is held.
    pub(crate) fn held(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self, full: Full) -> Full {
        let by = match full {
            Full::Server => "server",
            Full::Address => "address",
            Full::User => "user",
        };
        metrics::counter!(crate::metrics::REQUESTS_REJECTED_TOTAL, "reason" => self.0.name, "by" => by)
            .increment(1);
        full
    }
}

/// A host of version 6 has 2^64 addresses.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        IpAddr::V4(_) => address,
    }
}

impl Held {
    fn fits(&self, ceilings: &Ceilings, holder: &Holder, amount: usize) -> Result<(), Full> {
        let left = ceilings.all.saturating_sub(self.all);
        if holder.is_service {
            return if left < amount {
                Err(Full::Server)
            } else {
                Ok(())
            };
        }
        let held_by_user = holder
            .uid
            .as_ref()
            .and_then(|uid| self.users.get(uid))
            .copied()
            .unwrap_or_default();
        if holder.uid.is_some() && ceilings.user.saturating_sub(held_by_user) < amount {
            return Err(Full::User);
        }
        let held_by_address = holder
            .address
            .and_then(|address| self.addresses.get(&address))
            .copied()
            .unwrap_or_default();
        if holder.address.is_some() && ceilings.address.saturating_sub(held_by_address) < amount {
            return Err(Full::Address);
        }
        if left.min(ceilings.guests.saturating_sub(self.guests)) < amount {
            Err(Full::Server)
        } else {
            Ok(())
        }
    }

    fn add(&mut self, holder: &Holder, amount: usize) {
        self.all += amount;
        if holder.is_service || amount == 0 {
            return;
        }
        self.guests += amount;
        if let Some(address) = holder.address {
            *self.addresses.entry(address).or_default() += amount;
        }
        if let Some(uid) = &holder.uid {
            match self.users.get_mut(uid) {
                Some(held) => *held += amount,
                None => drop(self.users.insert(uid.clone(), amount)),
            }
        }
    }

    fn remove(&mut self, holder: &Holder, amount: usize) {
        self.all -= amount;
        if holder.is_service || amount == 0 {
            return;
        }
        self.guests -= amount;
        if let Some(address) = &holder.address {
            subtract(&mut self.addresses, address, amount);
        }
        if let Some(uid) = &holder.uid {
            subtract(&mut self.users, uid, amount);
        }
    }
}

fn subtract<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K, amount: usize) {
    if let Some(held) = counts.get_mut(key) {
        *held -= amount;
        if *held == 0 {
            counts.remove(key);
        }
    }
}

/// A part of a budget, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    holder: Holder,
    amount: usize,
}

impl Share {
    /// Holds more, or as much as before.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Full> {
        let mut held = self.budget.lock();
        if let Err(full) = held.fits(&self.budget.0.ceilings, &self.holder, more) {
            drop(held);
            return Err(self.budget.full(full));
        }
        held.add(&self.holder, more);
        drop(held);
        self.amount += more;
        Ok(())
    }

    /// Holds this amount from now on.
    pub(crate) fn resize(&mut self, amount: usize) -> Result<(), Full> {
        match amount.checked_sub(self.amount) {
            Some(more) => self.grow(more),
            None => {
                let less = self.amount - amount;
                self.budget.lock().remove(&self.holder, less);
                self.amount = amount;
                Ok(())
            }
        }
    }

    /// Holds it for another caller, or for one that is known better, if that one may hold as much.
    pub(crate) fn hand_over(&mut self, holder: Holder) -> Result<(), Full> {
        let holder = Holder {
            address: holder.address.map(network),
            ..holder
        };
        let mut held = self.budget.lock();
        held.remove(&self.holder, self.amount);
        let fits = held.fits(&self.budget.0.ceilings, &holder, self.amount);
        if fits.is_ok() {
            self.holder = holder;
        }
        held.add(&self.holder, self.amount);
        drop(held);
        fits.map_err(|full| self.budget.full(full))
    }

    pub(crate) fn amount(&self) -> usize {
        self.amount
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.lock().remove(&self.holder, self.amount);
    }
}

/// The place and the memory that one request holds. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Reservation(Arc<Mutex<Reserved>>, Arc<Turns>);

#[derive(Debug)]
struct Reserved {
    /// Until the request is answered.
    place: Option<Share>,
    /// Until the answer is written.
    memory: Share,
}

impl Reservation {
    fn new(place: Option<Share>, memory: Share, turns: &Arc<Turns>) -> Self {
        Self(
            Arc::new(Mutex::new(Reserved { place, memory })),
            Arc::clone(turns),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Reserved> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds more memory.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), Error> {
        Ok(self.lock().memory.grow(bytes)?)
    }

    /// Counts for this user, too, from now on.
    ///
    /// # Errors
    /// As [`Reservation::hold`].
    pub(crate) fn identify(&self, uid: &str) -> Result<(), Error> {
        let Reserved { place, memory } = &mut *self.lock();
        for share in place.iter_mut().chain([memory]) {
            let holder = Holder {
                uid: Some(uid.to_owned()),
                ..share.holder().clone()
            };
            share.hand_over(holder)?;
        }
        Ok(())
    }

    /// The request is answered: another one may have its place.
    pub(crate) fn leave(&self) {
        self.lock().place = None;
    }

    /// Holds just so many bytes from now on.
    ///
    /// # Errors
    /// As [`Reservation::hold`].
    pub(crate) fn hold_just(&self, bytes: usize) -> Result<(), Error> {
        Ok(self.lock().memory.resize(bytes)?)
    }

    /// Bytes that hold the reservation for as long as they are there.
    pub(crate) fn kept(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept {
            bytes,
            _reservation: self.clone(),
        })
    }

    /// A stream whose work holds memory for this reservation until it has something to tell.
    pub(crate) fn scope_stream<S: Stream, B: FnOnce() -> S>(self, begin: B) -> ScopedStream<S> {
        let stream = Box::pin(REQUEST.sync_scope(self.clone(), begin));
        ScopedStream {
            stream,
            reservation: self,
        }
    }

    /// Does work that holds memory for this request.
    pub(crate) async fn scope<F: Future>(self, work: F) -> F::Output {
        REQUEST.scope(self, work).await
    }
}

/// See [`Reservation::scope_stream`].
pub(crate) struct ScopedStream<S> {
    stream: Pin<Box<S>>,
    reservation: Reservation,
}

impl<S: Stream> Stream for ScopedStream<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = &mut *self;
        let next = REQUEST.sync_scope(this.reservation.clone(), || {
            this.stream.as_mut().poll_next(cx)
        });
        if next.is_ready() {
            // Less is always allowed.
            let _ = this.reservation.hold_just(0);
        }
        next
    }
}

/// The reservation of the request that runs, if one does: work of the server itself is bounded in
/// other ways.
pub(crate) fn current() -> Option<Reservation> {
    REQUEST.try_with(Reservation::clone).ok()
}

/// Holds memory for the request that runs.
///
/// # Errors
/// As [`Reservation::hold`].
pub(crate) fn hold(bytes: usize) -> Result<(), Error> {
    REQUEST
        .try_with(|reservation| reservation.hold(bytes))
        .unwrap_or(Ok(()))
}

/// Waits for a turn of the user of the current request. A user has two turns, and users that take
/// much of the server share a few places, so that other users need not wait for them. Services take
/// no turns. The holder of a turn must not wait for another one.
pub(crate) async fn turn() -> Option<Turn> {
    let Reservation(reserved, turns) = current()?;
    let uid = reserved
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .memory
        .holder()
        .uid
        .clone()?;
    turns.take(uid).await
}

/// The turns of users.
#[derive(Debug)]
struct Turns {
    users: Mutex<HashMap<String, Arc<UserTurns>>>,
    /// Places for users that take much of the server: half of the processor's cores.
    shared: Arc<Semaphore>,
    /// The time that all users took.
    all: Mutex<TimeTaken>,
}

/// The turns of one user.
#[derive(Debug)]
struct UserTurns {
    at_once: Arc<Semaphore>,
    taken: Mutex<TimeTaken>,
}

/// Allows work for a user until it is dropped; its duration is added to what the user took.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    user: Arc<UserTurns>,
    began: Instant,
    _place: OwnedSemaphorePermit,
    _shared_place: Option<OwnedSemaphorePermit>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (now, time) = (Instant::now(), self.began.elapsed().as_secs_f64());
        for taken in [&self.user.taken, &self.turns.all] {
            taken
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(now, time);
        }
    }
}

/// Seconds that were taken lately: they halve with every second.
#[derive(Debug)]
struct TimeTaken {
    seconds: f64,
    at: Instant,
}

impl TimeTaken {
    fn new() -> Self {
        Self {
            seconds: 0.0,
            at: Instant::now(),
        }
    }

    fn seconds(&self, now: Instant) -> f64 {
        self.seconds * (-now.saturating_duration_since(self.at).as_secs_f64()).exp2()
    }

    fn add(&mut self, now: Instant, seconds: f64) {
        self.seconds = self.seconds(now) + seconds;
        self.at = now;
    }
}

impl Default for Turns {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            users: Mutex::default(),
            shared: Arc::new(Semaphore::new((cores / 2).max(1))),
            all: Mutex::new(TimeTaken::new()),
        }
    }
}

impl Turns {
    /// Requests of one user that are worked on at the same time.
    const AT_ONCE: usize = 2;
    /// A user takes much of the server from so many seconds on …
    const MUCH: f64 = 0.1;
    /// … if they are also this part of what all users took: where the database is slow, the
    /// requests of every user take long.
    const LARGE_PART: f64 = 0.1;
    /// Users without a turn that are kept in memory.
    const FORGOTTEN: usize = 1000;

    async fn take(self: Arc<Self>, uid: String) -> Option<Turn> {
        let user = self.of(uid);
        let place = Arc::clone(&user.at_once).acquire_owned().await.ok()?;
        let shared_place = if self.takes_much(&user) {
            metrics::counter!(crate::metrics::TURNS_SHARED_TOTAL).increment(1);
            Some(Arc::clone(&self.shared).acquire_owned().await.ok()?)
        } else {
            None
        };
        Some(Turn {
            turns: self,
            user,
            began: Instant::now(),
            _place: place,
            _shared_place: shared_place,
        })
    }

    fn takes_much(&self, user: &UserTurns) -> bool {
        let now = Instant::now();
        let seconds = |taken: &Mutex<TimeTaken>| {
            let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.seconds(now)
        };
        let taken = seconds(&user.taken);
        taken >= Self::MUCH && taken >= seconds(&self.all) * Self::LARGE_PART
    }

    fn of(&self, uid: String) -> Arc<UserTurns> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = users.get(&uid) {
            return Arc::clone(turns);
        }
        if users.len() >= Self::FORGOTTEN && users.len().is_power_of_two() {
            let now = Instant::now();
            users.retain(|_, turns| {
                let taken = turns.taken.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::strong_count(turns) > 1 || taken.seconds(now) >= Self::MUCH
            });
        }
        let turns = Arc::new(UserTurns {
            at_once: Arc::new(Semaphore::new(Self::AT_ONCE)),
            taken: Mutex::new(TimeTaken::new()),
        });
        users.insert(uid, Arc::clone(&turns));
        turns
    }
}

/// Bytes with the reservation that they are counted in.
struct Kept {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that [`serde_json::Value`] takes at most for a text, and the text. Small texts are carried
/// by their request.
pub(crate) fn parsed_size(text: &[u8]) -> usize {
    const SMALL: usize = 16 * 1024;
    // Vectors have up to twice the room that they need.
    const ELEMENT: usize = 2 * size_of::<serde_json::Value>();
    const FIELD: usize =
        2 * (size_of::<serde_json::Value>() + size_of::<String>() + 2 * size_of::<usize>());
    if text.len() <= SMALL {
        return 0;
    }
    let (mut size, mut in_string, mut is_escaped) = (2 * text.len(), false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => size += ELEMENT,
            b':' if !in_string => size += FIELD,
            _ => {}
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(all: usize) -> Budget {
        Budget::new("memory", Ceilings::of(all))
    }

    fn at(last: u8) -> Holder {
        Holder {
            address: Some([192, 0, 2, last].into()),
            ..Holder::default()
        }
    }

    fn user(last: u8, uid: &str) -> Holder {
        Holder {
            uid: Some(uid.to_owned()),
            ..at(last)
        }
    }

    fn service() -> Holder {
        Holder {
            is_service: true,
            ..Holder::default()
        }
    }

    #[test]
    fn no_address_and_no_user_takes_all_and_services_keep_a_quarter() {
        let budget = budget(800);
        let _one = budget.take(user(1, "ann"), 200).unwrap();
        assert_eq!(budget.take(user(2, "ann"), 1).unwrap_err(), Full::User);
        let _two = budget.take(at(1), 100).unwrap();
        assert_eq!(budget.take(at(1), 1).unwrap_err(), Full::Address);
        let _three = budget.take(at(2), 300).unwrap();
        assert_eq!(budget.take(at(3), 1).unwrap_err(), Full::Server);
        let four = budget.take(service(), 200).unwrap();
        assert_eq!(budget.take(service(), 1).unwrap_err(), Full::Server);
        drop(four);
        assert_eq!(budget.held(), 600);
    }

    #[test]
    fn a_share_that_grows_shrinks_and_goes_leaves_nothing_behind() {
        let budget = budget(800);
        let mut share = budget.take(at(1), 100).unwrap();
        assert_eq!(share.grow(300).unwrap_err(), Full::Address);
        share.resize(300).unwrap();
        assert_eq!((share.amount(), budget.held()), (300, 300));
        share.resize(10).unwrap();
        share.hand_over(user(1, "ann")).unwrap();
        assert_eq!(share.resize(201).unwrap_err(), Full::User);
        share.hand_over(service()).unwrap();
        share.resize(800).unwrap();
        assert_eq!(share.hand_over(user(1, "ann")).unwrap_err(), Full::User);
        assert_eq!(share.holder(), &service(), "it stays where it was");
        drop(share);
        let held = budget.lock();
        assert!(
            held.all == 0 && held.guests == 0 && held.addresses.is_empty() && held.users.is_empty(),
            "{held:?}"
        );
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let budget = budget(800);
        let of = |text: &str| Holder {
            address: Some(text.parse().unwrap()),
            ..Holder::default()
        };
        let _share = budget.take(of("2001:db8::1"), 300).unwrap();
        assert_eq!(
            budget.take(of("2001:db8::2"), 1).unwrap_err(),
            Full::Address
        );
        budget.take(of("2001:db8:0:1::2"), 1).unwrap();
    }

    #[tokio::test]
    async fn an_answer_is_held_until_its_last_byte_is_gone() {
        let budget = budget(800);
        let memory = budget.take(at(1), 10).unwrap();
        let reservation = Reservation::new(None, memory, &Arc::default());
        let kept = reservation
            .clone()
            .scope(async {
                hold(200).unwrap();
                assert!(hold(200).is_err());
                let reservation = current().unwrap();
                reservation.hold_just(50).unwrap();
                reservation.kept(Bytes::from(vec![0; 50]))
            })
            .await;
        drop(reservation);
        assert_eq!(budget.held(), 50);
        let part = kept.slice(10..20);
        drop(kept);
        assert_eq!(budget.held(), 50);
        drop(part);
        assert_eq!(budget.held(), 0);
        hold(1 << 40).unwrap();
    }

    #[tokio::test]
    async fn a_user_does_two_things_at_once_and_others_do_not_wait() {
        let budgets = Budgets::new(&Limits::default());
        let reserve = |holder: Holder| budgets.admit(holder).unwrap();
        let take = |holder: Holder| {
            let turn = reserve(holder).scope(turn());
            async { tokio::time::timeout(std::time::Duration::from_millis(20), turn).await }
        };
        let (one, _two) = (
            take(user(1, "ann")).await.unwrap(),
            take(user(2, "ann")).await.unwrap(),
        );
        assert!(take(user(3, "ann")).await.is_err(), "a third one waits");
        assert!(take(user(1, "bob")).await.unwrap().is_some());
        assert!(take(service()).await.unwrap().is_none());
        drop(one);
        assert!(take(user(3, "ann")).await.unwrap().is_some());
    }

    #[test]
    fn time_that_was_taken_halves_with_every_second() {
        let mut taken = TimeTaken::new();
        let begin = taken.at;
        taken.add(begin, 0.8);
        let later = begin + std::time::Duration::from_secs(2);
        assert!((taken.seconds(later) - 0.2).abs() < 1e-9, "{taken:?}");
        taken.add(later, 0.1);
        assert!((taken.seconds(later) - 0.3).abs() < 1e-9, "{taken:?}");
    }

    #[test]
    fn a_user_takes_much_only_beside_users_that_take_less() {
        let turns = Turns::default();
        let take = |uid: &str, seconds: f64| {
            let user = turns.of(uid.to_owned());
            for taken in [&user.taken, &turns.all] {
                taken.lock().unwrap().add(Instant::now(), seconds);
            }
            user
        };
        let calm = take("ann", 0.05);
        let busy = take("big", 1.0);
        assert!(!turns.takes_much(&calm) && turns.takes_much(&busy));
        // A slow database makes everybody's requests take as long.
        for number in 0..20 {
            take(&format!("user-{number}"), 1.0);
        }
        assert!(!turns.takes_much(&busy));
    }

    #[tokio::test]
    async fn users_that_take_much_share_places() {
        let turns = Arc::new(Turns {
            shared: Arc::new(Semaphore::new(1)),
            ..Turns::default()
        });
        for uid in ["big", "huge"] {
            let user = turns.of(uid.to_owned());
            user.taken.lock().unwrap().add(Instant::now(), 10.0);
        }
        let take = |uid: &str| {
            let turn = Arc::clone(&turns).take(uid.to_owned());
            async { tokio::time::timeout(std::time::Duration::from_millis(20), turn).await }
        };
        let first = take("big").await.unwrap();
        assert!(take("huge").await.is_err(), "the place is taken");
        assert!(take("ann").await.unwrap().is_some(), "ann needs none");
        drop(first);
        assert!(take("huge").await.unwrap().is_some());
    }

    #[test]
    fn values_of_a_text_are_never_larger_than_what_is_counted() {
        let many = |part: &str| format!("[{}0]", part.repeat(40_000));
        for text in [
            many("0,"),
            many("[],"),
            many(r#"{"a":1},"#),
            many(r#"{"aaaaaaaaaaaa":{"b":0}},"#),
            many(r#""a,\"\\","#),
        ] {
            let counted = parsed_size(text.as_bytes());
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(
                counted >= size_of_value(&value),
                "{}: {counted} of {}",
                &text[..20],
                size_of_value(&value)
            );
        }
    }

    /// Bytes that a value has on the heap.
    fn size_of_value(value: &serde_json::Value) -> usize {
        const VALUE: usize = size_of::<serde_json::Value>();
        const PLACE: usize = size_of::<String>() + 2 * size_of::<usize>();
        match value {
            serde_json::Value::Array(values) => {
                values.capacity() * VALUE + values.iter().map(size_of_value).sum::<usize>()
            }
            serde_json::Value::Object(map) => map
                .iter()
                .map(|(key, value)| VALUE + PLACE + key.len() + size_of_value(value))
                .sum(),
            serde_json::Value::String(text) => text.capacity(),
            _ => 0,
        }
    }
}
