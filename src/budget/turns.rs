//! Turns, which keep users that take much of the server from delaying the others.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns of users.
#[derive(Debug)]
pub(super) struct Turns {
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

    pub(super) async fn take(self: Arc<Self>, uid: String) -> Option<Turn> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::share::tests::{service, user};
    use crate::budget::{Budgets, Holder, turn};
    use crate::config::Limits;

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
}
