//! The size of the pool follows the number of connections that the database allows.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::{DatabaseConnection, DbErr};

use super::sqlx_pool::{
    CLOSED, acquire_and_release, closed, has_idle, is_closed, is_too_many, may_open, size,
};
use super::{Pool, ServerConnector};

/// If a new connection takes longer than this, a separate connection attempt finds the reason,
/// which the library does not report.
const SLOW_CONNECT: Duration = Duration::from_millis(300);
/// How long after a resize refusals are attributed to connections that are still closing.
const RESIZE_COOLDOWN: Duration = Duration::from_secs(5);
/// How often a database that allowed fewer connections than configured is asked for more.
const GROWTH_PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// The library's pool, whose size cannot change. It is replaced when the database allows fewer or
/// more connections.
#[derive(Clone)]
pub(super) struct SizedPool {
    pub(super) connection: DatabaseConnection,
    /// Number of connections that are being opened.
    connecting: Arc<AtomicU32>,
}

impl SizedPool {
    pub(super) fn new(mut connection: DatabaseConnection) -> Self {
        record_metrics(&mut connection);
        Self {
            connection,
            connecting: Arc::default(),
        }
    }

    /// Returns whether no connection is idle, and the pool may open another one.
    pub(super) fn can_grow(&self) -> bool {
        !has_idle(&self.connection) && may_open(&self.connection)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connecting, &other.connecting)
    }
}

impl Pool {
    /// Returns the current pool as soon as it has an idle connection, or as many as it may have.
    pub(super) async fn grown_pool(&self, server: &ServerConnector) -> Result<SizedPool, DbErr> {
        loop {
            let pool = self.current();
            if !pool.can_grow() {
                return Ok(pool);
            }
            match self.open_connection(server, &pool).await {
                Ok(()) => {
                    // The pool checks the connection once more before it counts as idle.
                    for _ in 0..50 {
                        if has_idle(&pool.connection) {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    return Ok(pool);
                }
                Err(error) => self.adapt_size(server, &pool, error).await?,
            }
        }
    }

    /// Adapts the size of the pool if `error` says that a caller got no connection because of it;
    /// then the caller can try again. Otherwise returns `error`.
    pub(super) async fn adapt_size(
        &self,
        server: &ServerConnector,
        pool: &SizedPool,
        error: DbErr,
    ) -> Result<(), DbErr> {
        if is_too_many(&error) {
            self.shrink_to_allowed(server, pool, &error).await;
            Ok(())
        } else if is_closed(&error) && !pool.is_same(&self.current()) {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// Opens a connection and leaves it in the pool. The library retries without reporting a
    /// refusal, so after [`SLOW_CONNECT`] a separate attempt finds the reason. The library also
    /// retries for a pool that was closed; that ends here.
    async fn open_connection(
        &self,
        server: &ServerConnector,
        pool: &SizedPool,
    ) -> Result<(), DbErr> {
        let _guard = ConnectingGuard::new(&pool.connecting);
        let find_reason = async {
            loop {
                tokio::time::sleep(SLOW_CONNECT).await;
                // One of the waiting callers at a time finds the reason.
                if let Ok(_guard) = self.0.resize_lock.try_lock()
                    && let Err(error) = self.probe_server(server).await
                    && is_too_many(&error)
                {
                    return error;
                }
            }
        };
        tokio::select! {
            acquired = acquire_and_release(&pool.connection) => acquired,
            () = closed(&pool.connection) => Err(CLOSED),
            refused = find_reason => Err(refused),
        }
    }

    /// Shrinks the pool to the connections that exist, because the database refused another one.
    async fn shrink_to_allowed(&self, server: &ServerConnector, pool: &SizedPool, refusal: &DbErr) {
        let resize_lock = self.0.resize_lock.lock().await;
        if self
            .0
            .resized_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|at| at.elapsed() < RESIZE_COOLDOWN)
        {
            drop(resize_lock);
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        }
        if !pool.is_same(&self.current()) {
            return;
        }
        let there = size(&pool.connection)
            .saturating_sub(pool.connecting.load(Ordering::Relaxed))
            .max(1);
        tracing::warn!(
            allowed = there,
            max_connections = self.0.max_connections,
            refusal = %refusal,
            "the database allows only {there} connections at present, not the {} of database.max_connections",
            self.0.max_connections
        );
        self.replace_pool(server, there);
    }

    /// From time to time asks a database that allowed too few connections for more.
    pub(super) fn probe_for_growth(&self) {
        let Some((allowed, most)) = self.reduced_limit() else {
            return;
        };
        {
            let mut resized_at = self
                .0
                .resized_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if resized_at.is_some_and(|at| at.elapsed() < GROWTH_PROBE_INTERVAL) {
                return;
            }
            *resized_at = Some(Instant::now());
        }
        let pool = self.clone();
        tokio::spawn(async move {
            let Some(server) = &pool.0.server else { return };
            let mut links = Vec::new();
            for _ in allowed..most {
                match tokio::time::timeout(pool.0.acquire_timeout, (server.connect)()).await {
                    Ok(Ok(link)) => links.push(link),
                    _ => break,
                }
            }
            let more = u32::try_from(links.len()).unwrap_or_default();
            for link in links {
                link.close().await;
            }
            if more > 0 {
                tracing::info!(
                    allowed = allowed + more,
                    max_connections = most,
                    "the database allows more connections again"
                );
                pool.replace_pool(server, allowed + more);
            }
        });
    }

    /// Replaces the pool by one with `allowed` connections. The connections of the old pool are
    /// closed when they become idle.
    fn replace_pool(&self, server: &ServerConnector, allowed: u32) {
        let new = SizedPool::new((server.new_pool)(allowed));
        let old = std::mem::replace(
            &mut *self
                .0
                .current
                .write()
                .unwrap_or_else(PoisonError::into_inner),
            new,
        );
        self.0.allowed.store(allowed, Ordering::Relaxed);
        *self
            .0
            .resized_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        metrics::gauge!(crate::metrics::DATABASE_CONNECTIONS_ALLOWED).set(f64::from(allowed));
        tokio::spawn(async move { old.connection.close().await });
    }
}

/// Counts a connection while it is being opened.
struct ConnectingGuard<'a>(&'a AtomicU32);

impl<'a> ConnectingGuard<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for ConnectingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn record_metrics(connection: &mut DatabaseConnection) {
    connection.set_metric_callback(|info| {
        metrics::counter!(crate::metrics::SQL_STATEMENTS_TOTAL).increment(1);
        metrics::histogram!(crate::metrics::DB_QUERY_DURATION_SECONDS)
            .record(info.elapsed.as_secs_f64());
    });
}
