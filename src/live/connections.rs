//! Connections with subscriptions, of this server and of each user. A user's newest connection
//! takes the place of the oldest one: that is often one whose client is gone, and the server does
//! not know it yet.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::Limits;
use crate::error::Error;
use crate::ids::Uid;

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: AtomicUsize,
    limit: usize,
    /// Of each user, oldest first.
    users: Mutex<HashMap<String, VecDeque<Arc<CancellationToken>>>>,
    user_limit: usize,
    tracker: TaskTracker,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    all: Connections,
    user: Option<(String, Arc<CancellationToken>)>,
    protocol: &'static str,
    _open: TaskTrackerToken,
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Inner {
            all: AtomicUsize::new(0),
            limit: limits.connections,
            users: Mutex::default(),
            user_limit: limits.user_connections,
            tracker: TaskTracker::new(),
        }))
    }

    /// A place for a connection of this user, or of a service, of which there may be any number.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the server has no more.
    pub(crate) fn enter(
        &self,
        protocol: &'static str,
        user: Option<&Uid>,
    ) -> Result<Connection, Error> {
        let taken = self
            .0
            .all
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
                (all < self.0.limit).then_some(all + 1)
            });
        if taken.is_err() {
            metrics::counter!("recents_http_shed_total", "limit" => "subscribers", "by" => "server").increment(1);
            return Err(Error::Overloaded);
        }
        metrics::gauge!("recents_live_connections", "protocol" => protocol).increment(1.0);
        let user = user.map(|uid| (uid.to_string(), Arc::new(CancellationToken::new())));
        if let Some((uid, replaced)) = &user {
            let mut users = self.lock();
            let own = users.entry(uid.clone()).or_default();
            if own.len() >= self.0.user_limit
                && let Some(oldest) = own.pop_front()
            {
                oldest.cancel();
            }
            own.push_back(Arc::clone(replaced));
        }
        Ok(Connection {
            all: self.clone(),
            user,
            protocol,
            _open: self.0.tracker.token(),
        })
    }

    /// Work that a shutdown waits for as for a connection.
    pub(crate) fn track<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.tracker.track_future(work)
    }

    /// Waits until all are gone.
    pub(crate) async fn gone(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Arc<CancellationToken>>>> {
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Cancelled when a newer connection of the user takes the place of this one; of a service it
    /// never is.
    pub(crate) fn replaced(&self) -> CancellationToken {
        self.user
            .as_ref()
            .map(|(_, replaced)| CancellationToken::clone(replaced))
            .unwrap_or_default()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.0.all.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("recents_live_connections", "protocol" => self.protocol).decrement(1.0);
        let Some((uid, replaced)) = &self.user else {
            return;
        };
        let mut users = self.all.lock();
        if let Some(own) = users.get_mut(uid) {
            own.retain(|other| !Arc::ptr_eq(other, replaced));
            if own.is_empty() {
                users.remove(uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_the_limits_say_and_the_newest_stay() {
        let limits = Limits {
            connections: 4,
            user_connections: 2,
            ..Limits::default()
        };
        let connections = Connections::new(&limits);
        let ann = Uid::parse("uid", "ann").unwrap();
        let enter = |user| connections.enter("sse", user);
        let (one, two, three) = (
            enter(Some(&ann)).unwrap(),
            enter(Some(&ann)).unwrap(),
            enter(Some(&ann)).unwrap(),
        );
        let replaced = [&one, &two, &three].map(|connection| connection.replaced().is_cancelled());
        assert_eq!(replaced, [true, false, false]);
        let service = enter(None).unwrap();
        assert!(matches!(enter(None), Err(Error::Overloaded)));
        drop(one);
        let four = enter(Some(&ann)).unwrap();
        assert!(two.replaced().is_cancelled() && !three.replaced().is_cancelled());
        drop((two, three, four, service));
        assert!(connections.lock().is_empty());
        assert_eq!(connections.0.all.load(Ordering::Relaxed), 0);
    }
}
