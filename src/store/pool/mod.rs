//! Connection pool: hands out connections, and adapts to the number that the database allows.
//!
//! Statements run to completion even if their caller is cancelled (see `finish_on_drop`); waiting
//! for a connection ends with the caller.

mod reach;
mod size;
mod sqlx_pool;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sea_orm::sqlx::Connection;
use sea_orm::sqlx::mysql::MySqlConnection;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, QueryResult, SqliteTransactionMode,
    SqlxError, Statement, TransactionOptions, TransactionTrait,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::size::SizedPool;
pub(super) use self::sqlx_pool::note_connection;
use self::sqlx_pool::until_closed;
use super::StoreError;
use super::finish_on_drop::finish_on_drop;
use super::open_transaction::OpenTransaction;

/// How long the reason of a refusal is added to timeout errors.
const REFUSAL_TTL: Duration = Duration::from_secs(30);
/// Added to the statement timeout before an abandoned statement counts as hung.
const ABANDON_GRACE: Duration = Duration::from_secs(2);

/// A connection outside of the pool.
pub(super) enum DirectConnection {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

impl DirectConnection {
    async fn close(self) {
        // Nothing was done on it, so a failed close has no effect.
        let _ = match self {
            Self::Postgres(connection) => connection.close().await,
            Self::MySql(connection) => connection.close().await,
        };
    }
}

/// Makes connections to a database server. SQLite has none.
pub(super) struct ServerConnector {
    /// The address, for messages.
    pub(super) address: String,
    /// Creates a pool of the given size.
    pub(super) new_pool: Box<dyn Fn(u32) -> DatabaseConnection + Send + Sync>,
    /// Opens a single connection.
    pub(super) connect:
        Box<dyn Fn() -> BoxFuture<'static, Result<DirectConnection, SqlxError>> + Send + Sync>,
}

/// A connection pool. Cheap to clone (`Arc`).
#[derive(Clone)]
pub(super) struct Pool(Arc<PoolState>);

struct PoolState {
    current: RwLock<SizedPool>,
    backend: DbBackend,
    /// One permit for each allowed connection. A caller that waits here has sent nothing yet.
    permits: Arc<Semaphore>,
    max_connections: u32,
    acquire_timeout: Duration,
    /// How long an abandoned statement may run.
    abandon_timeout: Duration,
    server: Option<ServerConnector>,
    /// Number of connections that the database allows, as far as known, and the time of the last
    /// change.
    allowed: AtomicU32,
    resized_at: Mutex<Option<Instant>>,
    resize_lock: tokio::sync::Mutex<()>,
    /// Time and reason of the last refused connection.
    last_refusal: Mutex<Option<(Instant, String)>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pool")
            .field("max_connections", &self.0.max_connections)
            .finish_non_exhaustive()
    }
}

/// Size and timeouts of a pool.
#[derive(Clone, Copy)]
pub(super) struct PoolLimits {
    pub(super) max_connections: u32,
    pub(super) acquire_timeout: Duration,
    /// The time limit of a statement.
    pub(super) statement_timeout: Duration,
}

impl Pool {
    /// Creates a pool of connections to a server.
    pub(super) fn for_server(server: ServerConnector, limits: PoolLimits) -> Self {
        let connection = (server.new_pool)(limits.max_connections);
        Self::new(connection, Some(server), limits)
    }

    /// Wraps an existing pool (SQLite).
    pub(super) fn from_connection(connection: DatabaseConnection, limits: PoolLimits) -> Self {
        Self::new(connection, None, limits)
    }

    fn new(
        connection: DatabaseConnection,
        server: Option<ServerConnector>,
        limits: PoolLimits,
    ) -> Self {
        let backend = connection.get_database_backend();
        Self(Arc::new(PoolState {
            current: RwLock::new(SizedPool::new(connection)),
            backend,
            permits: Arc::new(Semaphore::new(limits.max_connections as usize)),
            max_connections: limits.max_connections,
            acquire_timeout: limits.acquire_timeout,
            abandon_timeout: limits.statement_timeout + ABANDON_GRACE,
            server,
            allowed: AtomicU32::new(limits.max_connections),
            resized_at: Mutex::default(),
            resize_lock: tokio::sync::Mutex::default(),
            last_refusal: Mutex::default(),
        }))
    }

    pub(super) fn backend(&self) -> DbBackend {
        self.0.backend
    }

    /// Returns the library's pool, for work before the server accepts requests.
    pub(super) fn connection(&self) -> DatabaseConnection {
        self.current().connection
    }

    fn current(&self) -> SizedPool {
        self.0
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns (allowed, configured) numbers of connections if the database allows fewer than
    /// configured.
    pub(super) fn reduced_limit(&self) -> Option<(u32, u32)> {
        let allowed = self.0.allowed.load(Ordering::Relaxed);
        (allowed < self.0.max_connections).then_some((allowed, self.0.max_connections))
    }

    /// Runs a query outside of a transaction.
    pub(super) async fn query_all(
        &self,
        statement: Statement,
    ) -> Result<Vec<QueryResult>, StoreError> {
        self.with_connection(|connection, permit| {
            let statement = statement.clone();
            async move {
                let rows = connection.query_all_raw(statement).await;
                drop(permit);
                rows
            }
        })
        .await
    }

    /// Begins a transaction; `first` is its first statement.
    pub(super) async fn begin(
        &self,
        first: Option<Arc<str>>,
    ) -> Result<OpenTransaction, StoreError> {
        let abandon_timeout = self.0.abandon_timeout;
        self.with_connection(|connection, permit| {
            // SQLite must know at BEGIN that the transaction will write. On the other engines READ
            // COMMITTED is set on every connection.
            let options = TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..Default::default()
            };
            let first = first.clone();
            async move {
                let tx = connection.begin_with_options(options).await?;
                let open = OpenTransaction::new(tx, permit, abandon_timeout);
                if let Some(first) = first {
                    open.execute_first(&first).await?;
                }
                Ok(open)
            }
        })
        .await
    }

    /// Runs `work` on a connection, to completion. If `work` gets no connection, because the pool
    /// was replaced or the database allows no more, nothing was sent yet, and `work` begins again.
    async fn with_connection<T, W>(
        &self,
        work: impl Fn(DatabaseConnection, OwnedSemaphorePermit) -> W,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, DbErr>> + Send + 'static,
    {
        let begun = Instant::now();
        loop {
            let (permit, pool) = self.acquire().await?;
            let work = work(pool.connection.clone(), permit);
            let Some(server) = &self.0.server else {
                let result = finish_on_drop(self.0.abandon_timeout, work).await;
                return result.map_err(|error| self.explain(error));
            };
            let work = until_closed(pool.connection.clone(), work);
            let error = match finish_on_drop(self.0.abandon_timeout, work).await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let result = if begun.elapsed() < self.0.acquire_timeout {
                self.adapt_size(server, &pool, error).await
            } else {
                Err(error)
            };
            result.map_err(|error| self.explain(error))?;
        }
    }

    /// Runs `work`, which uses connections, to completion.
    pub(super) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        finish_on_drop(self.0.abandon_timeout, work).await
    }

    /// Waits for a permit, and returns it with a pool that has a connection for it.
    async fn acquire(&self) -> Result<(OwnedSemaphorePermit, SizedPool), StoreError> {
        let acquired = tokio::time::timeout(self.0.acquire_timeout, async {
            let permit = Arc::clone(&self.0.permits).acquire_owned().await;
            let permit = permit.map_err(|_| sqlx_pool::CLOSED)?;
            self.probe_for_growth();
            let pool = self.current();
            match &self.0.server {
                Some(server) if pool.can_grow() => {
                    // Boxed, because it is rare and large.
                    Ok((permit, Box::pin(self.grown_pool(server)).await?))
                }
                _ => Ok((permit, pool)),
            }
        });
        match acquired.await {
            Ok(acquired) => acquired.map_err(|error| self.explain(error)),
            Err(_) => {
                let text = format!(
                    "none of {} connections was free within {} s",
                    self.0.max_connections,
                    self.0.acquire_timeout.as_secs()
                );
                Err(StoreError::Unavailable(self.with_reason(&text).into()))
            }
        }
    }

    /// Converts an error, and adds the reason why there was no connection.
    fn explain(&self, error: DbErr) -> StoreError {
        let is_time_out = matches!(error, DbErr::ConnectionAcquire(_));
        match StoreError::from(error) {
            StoreError::Unavailable(cause) if is_time_out => {
                let text = self.with_reason(cause.text());
                StoreError::Unavailable(cause.with_text(text))
            }
            other => other,
        }
    }

    fn with_reason(&self, text: &str) -> String {
        let refusal = self
            .0
            .last_refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*refusal {
            Some((at, reason)) if at.elapsed() < REFUSAL_TTL => format!("{text}; {reason}"),
            _ => text.to_owned(),
        }
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        if let Err(error) = self.connection().close_by_ref().await {
            tracing::warn!(error = %error, "cannot close the connections");
        }
    }
}
