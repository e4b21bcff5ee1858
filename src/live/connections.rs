//! How many connections with subscriptions there are, of this server and of each user.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    users: Mutex<HashMap<String, usize>>,
    user_limit: usize,
    tracker: TaskTracker,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    all: Connections,
    uid: Option<String>,
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

    /// A place for a connection of somebody who is not known yet.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the server has no more.
    pub(crate) fn enter(&self, protocol: &'static str) -> Result<Connection, Error> {
        let taken = self.0.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| (all < self.0.limit).then_some(all + 1));
        if taken.is_err() {
            metrics::counter!("recents_http_shed_total", "limit" => "connections").increment(1);
            return Err(Error::Overloaded);
        }
        metrics::gauge!("recents_live_connections", "protocol" => protocol).increment(1.0);
        Ok(Connection { all: self.clone(), uid: None, protocol, _open: self.0.tracker.token() })
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
}

impl Connection {
    /// Counts for this user from now on; services are not counted.
    ///
    /// # Errors
    /// [`Error::TooManyAtOnce`] when the user has too many.
    pub(crate) fn of(&mut self, user: Option<&Uid>) -> Result<(), Error> {
        let Some(uid) = user else { return Ok(()) };
        let limit = self.all.0.user_limit;
        let mut users = self.all.0.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(uid.to_string()).or_default();
        if *count >= limit {
            metrics::counter!("recents_http_shed_total", "limit" => "user_connections").increment(1);
            return Err(Error::TooManyAtOnce(format!("a user may have at most {limit} connections").into()));
        }
        *count += 1;
        self.uid = Some(uid.to_string());
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.0.all.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("recents_live_connections", "protocol" => self.protocol).decrement(1.0);
        let Some(uid) = &self.uid else { return };
        let mut users = self.all.0.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(uid) {
            *count -= 1;
            if *count == 0 {
                users.remove(uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_the_limits_say() {
        let limits = Limits { connections: 3, user_connections: 1, ..Limits::default() };
        let connections = Connections::new(&limits);
        let ann = Uid::parse("uid", "ann").unwrap();
        let (mut one, mut two, mut three) =
            (connections.enter("sse").unwrap(), connections.enter("sse").unwrap(), connections.enter("sse").unwrap());
        assert!(matches!(connections.enter("sse"), Err(Error::Overloaded)));
        one.of(Some(&ann)).unwrap();
        assert!(matches!(two.of(Some(&ann)), Err(Error::TooManyAtOnce(_))));
        three.of(None).unwrap();
        drop((one, two));
        three.of(Some(&ann)).unwrap();
        connections.enter("sse").unwrap();
        drop(three);
        assert!(connections.0.users.lock().unwrap().is_empty());
        assert_eq!(connections.0.all.load(Ordering::Relaxed), 0);
    }
}
