//! Counts the open connections of this server and of each user. Above the limit of a user, a new
//! connection replaces the user's oldest one: often its client is gone and the server has not
//! noticed yet.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::Limits;
use crate::error::Error;
use crate::model::Uid;

/// All open connections of this server.
#[derive(Clone, Debug)]
pub(crate) struct Connections(Arc<ConnectionsInner>);

#[derive(Debug)]
struct ConnectionsInner {
    open: AtomicUsize,
    limit: usize,
    /// The connections of each user, oldest first.
    users: Mutex<HashMap<String, VecDeque<Arc<CancellationToken>>>>,
    user_limit: usize,
    tracker: TaskTracker,
}

/// An open connection; dropping it unregisters it.
#[derive(Debug)]
pub(crate) struct Connection {
    registry: Connections,
    /// The uid, and the token that is cancelled when a newer connection replaces this one.
    user: Option<(String, Arc<CancellationToken>)>,
    protocol: &'static str,
    _tracked: TaskTrackerToken,
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self(Arc::new(ConnectionsInner {
            open: AtomicUsize::new(0),
            limit: limits.max_live_connections,
            users: Mutex::default(),
            user_limit: limits.max_user_live_connections,
            tracker: TaskTracker::new(),
        }))
    }

    /// Registers a connection of a user, or of a service. The number of a service's connections is
    /// limited only by the server's limit.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the server's limit is reached.
    pub(crate) fn register(
        &self,
        protocol: &'static str,
        user: Option<&Uid>,
    ) -> Result<Connection, Error> {
        let opened = self
            .0
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < self.0.limit).then_some(open + 1)
            });
        if opened.is_err() {
            metrics::counter!(
                crate::metrics::REQUESTS_REJECTED_TOTAL,
                "reason" => "subscribers",
                "by" => "server"
            )
            .increment(1);
            return Err(Error::Overloaded);
        }
        metrics::gauge!(crate::metrics::LIVE_CONNECTIONS, "protocol" => protocol).increment(1.0);
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
            registry: self.clone(),
            user,
            protocol,
            _tracked: self.0.tracker.token(),
        })
    }

    /// Wraps a future so that a shutdown waits for it like for a connection.
    pub(crate) fn track<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.tracker.track_future(work)
    }

    /// Waits until all connections are closed.
    pub(crate) async fn closed(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Arc<CancellationToken>>>> {
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Returns a token that is cancelled when a newer connection of the user replaces this one. The
    /// token of a service is never cancelled.
    pub(crate) fn replaced(&self) -> CancellationToken {
        self.user
            .as_ref()
            .map(|(_, replaced)| CancellationToken::clone(replaced))
            .unwrap_or_default()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.registry.0.open.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!(crate::metrics::LIVE_CONNECTIONS, "protocol" => self.protocol)
            .decrement(1.0);
        let Some((uid, replaced)) = &self.user else {
            return;
        };
        let mut users = self.registry.lock();
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
    fn limits_are_enforced_and_the_newest_connections_stay() {
        let limits = Limits {
            max_live_connections: 4,
            max_user_live_connections: 2,
            ..Limits::default()
        };
        let connections = Connections::new(&limits);
        let ann = Uid::parse("uid", "ann").unwrap();
        let register = |user| connections.register("sse", user);
        let (first, second, third) = (
            register(Some(&ann)).unwrap(),
            register(Some(&ann)).unwrap(),
            register(Some(&ann)).unwrap(),
        );
        let replaced =
            [&first, &second, &third].map(|connection| connection.replaced().is_cancelled());
        assert_eq!(replaced, [true, false, false]);
        let service = register(None).unwrap();
        assert!(matches!(register(None), Err(Error::Overloaded)));
        drop(first);
        let fourth = register(Some(&ann)).unwrap();
        assert!(second.replaced().is_cancelled() && !third.replaced().is_cancelled());
        drop((second, third, fourth, service));
        assert!(connections.lock().is_empty());
        assert_eq!(connections.0.open.load(Ordering::Relaxed), 0);
    }
}
