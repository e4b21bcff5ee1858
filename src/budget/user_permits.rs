//! Permits to process requests, which keep heavy users from delaying other users.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The permits of all users.
#[derive(Debug)]
pub(super) struct UserPermits {
    users: Mutex<HashMap<String, Arc<UserState>>>,
    /// Additional permits that heavy users share: half of the processor's cores.
    heavy: Arc<Semaphore>,
    /// The processing time of all users.
    total_time: Mutex<RecentTime>,
}

#[derive(Debug)]
struct UserState {
    permits: Arc<Semaphore>,
    time: Mutex<RecentTime>,
}

/// A permit to process a request of a user. Dropping it adds its duration to the user's time.
pub(crate) struct UserPermit {
    all: Arc<UserPermits>,
    user: Arc<UserState>,
    acquired_at: Instant,
    _permit: OwnedSemaphorePermit,
    _heavy_permit: Option<OwnedSemaphorePermit>,
}

impl Drop for UserPermit {
    fn drop(&mut self) {
        let (now, seconds) = (Instant::now(), self.acquired_at.elapsed().as_secs_f64());
        for time in [&self.user.time, &self.all.total_time] {
            time.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(now, seconds);
        }
    }
}

/// The processing time of the last seconds: an exponentially decaying sum with a half-life of one
/// second.
#[derive(Debug)]
struct RecentTime {
    seconds: f64,
    updated_at: Instant,
}

impl RecentTime {
    fn new() -> Self {
        Self {
            seconds: 0.0,
            updated_at: Instant::now(),
        }
    }

    fn seconds(&self, now: Instant) -> f64 {
        self.seconds * (-now.saturating_duration_since(self.updated_at).as_secs_f64()).exp2()
    }

    fn add(&mut self, now: Instant, seconds: f64) {
        self.seconds = self.seconds(now) + seconds;
        self.updated_at = now;
    }
}

impl Default for UserPermits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            users: Mutex::default(),
            heavy: Arc::new(Semaphore::new((cores / 2).max(1))),
            total_time: Mutex::new(RecentTime::new()),
        }
    }
}

impl UserPermits {
    /// Maximum number of concurrent requests of one user.
    const PERMITS_PER_USER: usize = 2;
    /// The minimum recent time of a heavy user, in seconds.
    const HEAVY_SECONDS: f64 = 0.1;
    /// The minimum fraction of the time of all users that a heavy user has: with a slow database
    /// the requests of every user take long.
    const HEAVY_FRACTION: f64 = 0.1;
    /// The number of users from which idle users are removed from memory.
    const MIN_USERS_FOR_CLEANUP: usize = 1000;

    pub(super) async fn acquire(self: Arc<Self>, uid: String) -> Option<UserPermit> {
        let user = self.user(uid);
        let permit = Arc::clone(&user.permits).acquire_owned().await.ok()?;
        let heavy_permit = if self.is_heavy(&user) {
            metrics::counter!(crate::metrics::TURNS_SHARED_TOTAL).increment(1);
            Some(Arc::clone(&self.heavy).acquire_owned().await.ok()?)
        } else {
            None
        };
        Some(UserPermit {
            all: self,
            user,
            acquired_at: Instant::now(),
            _permit: permit,
            _heavy_permit: heavy_permit,
        })
    }

    fn is_heavy(&self, user: &UserState) -> bool {
        let now = Instant::now();
        let seconds = |time: &Mutex<RecentTime>| {
            let time = time.lock().unwrap_or_else(PoisonError::into_inner);
            time.seconds(now)
        };
        let own = seconds(&user.time);
        own >= Self::HEAVY_SECONDS && own >= seconds(&self.total_time) * Self::HEAVY_FRACTION
    }

    fn user(&self, uid: String) -> Arc<UserState> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(user) = users.get(&uid) {
            return Arc::clone(user);
        }
        if users.len() >= Self::MIN_USERS_FOR_CLEANUP && users.len().is_power_of_two() {
            let now = Instant::now();
            users.retain(|_, user| {
                let time = user.time.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::strong_count(user) > 1 || time.seconds(now) >= Self::HEAVY_SECONDS
            });
        }
        let user = Arc::new(UserState {
            permits: Arc::new(Semaphore::new(Self::PERMITS_PER_USER)),
            time: Mutex::new(RecentTime::new()),
        });
        users.insert(uid, Arc::clone(&user));
        user
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::allocation::tests::{service, user};
    use crate::budget::{Budgets, CallerIdentity, acquire_user_permit};
    use crate::config::Limits;

    #[tokio::test]
    async fn a_user_has_two_permits_and_other_users_do_not_wait() {
        let budgets = Budgets::new(&Limits::default());
        let reserve = |identity: CallerIdentity| budgets.admit(identity).unwrap();
        let acquire = |identity: CallerIdentity| {
            let permit = reserve(identity).scope(acquire_user_permit());
            async { tokio::time::timeout(std::time::Duration::from_millis(20), permit).await }
        };
        let (first, _second) = (
            acquire(user(1, "ann")).await.unwrap(),
            acquire(user(2, "ann")).await.unwrap(),
        );
        assert!(
            acquire(user(3, "ann")).await.is_err(),
            "a third request waits"
        );
        assert!(acquire(user(1, "bob")).await.unwrap().is_some());
        assert!(acquire(service()).await.unwrap().is_none());
        drop(first);
        assert!(acquire(user(3, "ann")).await.unwrap().is_some());
    }

    #[test]
    fn recent_time_halves_every_second() {
        let mut time = RecentTime::new();
        let begin = time.updated_at;
        time.add(begin, 0.8);
        let later = begin + std::time::Duration::from_secs(2);
        assert!((time.seconds(later) - 0.2).abs() < 1e-9, "{time:?}");
        time.add(later, 0.1);
        assert!((time.seconds(later) - 0.3).abs() < 1e-9, "{time:?}");
    }

    #[test]
    fn a_user_is_heavy_only_if_other_users_are_not() {
        let permits = UserPermits::default();
        let add_time = |uid: &str, seconds: f64| {
            let user = permits.user(uid.to_owned());
            for time in [&user.time, &permits.total_time] {
                time.lock().unwrap().add(Instant::now(), seconds);
            }
            user
        };
        let calm = add_time("ann", 0.05);
        let busy = add_time("big", 1.0);
        assert!(!permits.is_heavy(&calm) && permits.is_heavy(&busy));
        // With a slow database the requests of every user take long.
        for number in 0..20 {
            add_time(&format!("user-{number}"), 1.0);
        }
        assert!(!permits.is_heavy(&busy));
    }

    #[tokio::test]
    async fn heavy_users_share_permits() {
        let permits = Arc::new(UserPermits {
            heavy: Arc::new(Semaphore::new(1)),
            ..UserPermits::default()
        });
        for uid in ["big", "huge"] {
            let user = permits.user(uid.to_owned());
            user.time.lock().unwrap().add(Instant::now(), 10.0);
        }
        let acquire = |uid: &str| {
            let permit = Arc::clone(&permits).acquire(uid.to_owned());
            async { tokio::time::timeout(std::time::Duration::from_millis(20), permit).await }
        };
        let first = acquire("big").await.unwrap();
        assert!(
            acquire("huge").await.is_err(),
            "the permit of heavy users is in use"
        );
        assert!(
            acquire("ann").await.unwrap().is_some(),
            "ann is not a heavy user"
        );
        drop(first);
        assert!(acquire("huge").await.unwrap().is_some());
    }
}
