//! Connection pool: hands out connections, and adapts to the number that the database allows.
//!
//! Statements run to completion even if their caller is cancelled (see `finish_on_drop`); waiting
//! for a connection ends with the caller.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sea_orm::sqlx::Connection;
use sea_orm::sqlx::mysql::MySqlConnection;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, SqliteTransactionMode, SqlxError, Statement, StatementBuilder, TransactionOptions,
    TransactionTrait,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::StoreError;
use super::finish_on_drop::{finish_on_drop, spawn_with_timeout};

/// If a new connection takes longer than this, a separate connection attempt finds the reason,
/// which the library does not report.
const SLOW_CONNECT: Duration = Duration::from_millis(300);
/// How long after a resize refusals are attributed to connections that are still closing.
const RESIZE_COOLDOWN: Duration = Duration::from_secs(5);
/// How often a database that allowed fewer connections than configured is asked for more.
const GROWTH_PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach the database at startup.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long the reason of a refusal is added to timeout errors.
const REFUSAL_TTL: Duration = Duration::from_secs(30);
/// Added to the statement timeout before an abandoned statement counts as dead.
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
    connection: RwLock<DatabaseConnection>,
    backend: DbBackend,
    /// One permit for each allowed connection. A caller that waits here has sent nothing yet.
    permits: Arc<Semaphore>,
    max_connections: u32,
    acquire_timeout: Duration,
    /// How long an abandoned statement may run.
    abandon_timeout: Duration,
    server: Option<ServerConnector>,
    /// Number of connections that are being opened.
    connecting: AtomicU32,
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
        mut connection: DatabaseConnection,
        server: Option<ServerConnector>,
        limits: PoolLimits,
    ) -> Self {
        let backend = connection.get_database_backend();
        record_metrics(&mut connection);
        Self(Arc::new(PoolState {
            connection: RwLock::new(connection),
            backend,
            permits: Arc::new(Semaphore::new(limits.max_connections as usize)),
            max_connections: limits.max_connections,
            acquire_timeout: limits.acquire_timeout,
            abandon_timeout: limits.statement_timeout + ABANDON_GRACE,
            server,
            connecting: AtomicU32::new(0),
            allowed: AtomicU32::new(limits.max_connections),
            resized_at: Mutex::default(),
            resize_lock: tokio::sync::Mutex::default(),
            last_refusal: Mutex::default(),
        }))
    }

    pub(super) fn backend(&self) -> DbBackend {
        self.0.backend
    }

    /// The library's pool, for work before the server accepts requests.
    pub(super) fn current(&self) -> DatabaseConnection {
        self.0
            .connection
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
        let (permit, connection) = self.acquire().await?;
        let work = async move {
            let rows = connection.query_all_raw(statement).await;
            drop(permit);
            rows
        };
        finish_on_drop(self.0.abandon_timeout, work)
            .await
            .map_err(|error| self.explain(error))
    }

    /// Begins a transaction; `first` is its first statement.
    pub(super) async fn begin(
        &self,
        first: Option<Arc<str>>,
    ) -> Result<OpenTransaction, StoreError> {
        let (permit, connection) = self.acquire().await?;
        let abandon_timeout = self.0.abandon_timeout;
        // SQLite must know at BEGIN that the transaction will write. On the other engines READ
        // COMMITTED is set on every connection.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let work = async move {
            let tx = connection.begin_with_options(options).await?;
            let open = OpenTransaction(Arc::new(Transaction {
                backend: tx.get_database_backend(),
                tx: Some(tx),
                permit: Some(permit),
                abandon_timeout,
            }));
            if let Some(first) = first {
                open.0.tx()?.execute_unprepared(&first).await?;
            }
            Ok(open)
        };
        finish_on_drop(abandon_timeout, work)
            .await
            .map_err(|error| self.explain(error))
    }

    /// Runs `work`, which uses connections, to completion.
    pub(super) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        finish_on_drop(self.0.abandon_timeout, work).await
    }

    /// Waits for a permit, and returns it with the pool that has a connection for it.
    async fn acquire(&self) -> Result<(OwnedSemaphorePermit, DatabaseConnection), StoreError> {
        let acquired = tokio::time::timeout(
            self.0.acquire_timeout,
            Arc::clone(&self.0.permits).acquire_owned(),
        )
        .await;
        let Ok(Ok(permit)) = acquired else {
            let text = format!(
                "none of {} connections was free within {} s",
                self.0.max_connections,
                self.0.acquire_timeout.as_secs()
            );
            return Err(StoreError::Unavailable(self.with_reason(&text).into()));
        };
        if let Some(server) = &self.0.server {
            self.probe_for_growth();
            let deadline = Instant::now() + self.0.acquire_timeout;
            while connections_left(&self.current()) > 0 {
                match self.open_connection(server).await {
                    Ok(()) => {
                        // The pool checks the connection once more before it counts as idle.
                        for _ in 0..50 {
                            if is_free(&self.current()) {
                                break;
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        break;
                    }
                    Err(error) if is_too_many(&error) && Instant::now() < deadline => {
                        self.shrink_to_allowed(server, &error).await
                    }
                    Err(error) => return Err(self.explain(error)),
                }
            }
        }
        Ok((permit, self.current()))
    }

    /// Opens a connection and leaves it in the pool. The library retries without reporting a
    /// refusal, so after [`SLOW_CONNECT`] a separate attempt finds the reason.
    async fn open_connection(&self, server: &ServerConnector) -> Result<(), DbErr> {
        let connection = self.current();
        let _guard = ConnectingGuard::new(&self.0.connecting);
        let mut acquired = Box::pin(acquire_and_release(&connection));
        let find_reason = async {
            tokio::time::sleep(SLOW_CONNECT).await;
            // One of the waiting callers finds the reason for all.
            let Ok(_guard) = self.0.resize_lock.try_lock() else {
                return std::future::pending().await;
            };
            loop {
                match self.probe_server(server).await {
                    Err(error) if is_too_many(&error) => return error,
                    _ => tokio::time::sleep(SLOW_CONNECT).await,
                }
            }
        };
        tokio::select! {
            acquired = &mut acquired => acquired,
            refused = find_reason => Err(refused),
        }
    }

    /// Checks with a separate connection that the server can be reached.
    async fn probe_server(&self, server: &ServerConnector) -> Result<(), DbErr> {
        let result = match tokio::time::timeout(self.0.acquire_timeout, (server.connect)()).await {
            Ok(Ok(link)) => {
                link.close().await;
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => SqlxError::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no answer",
            )),
        };
        let error = DbErr::Conn(sea_orm::RuntimeErr::SqlxError(Arc::new(result)));
        let text = format!("{}: {error}", server.address);
        *self
            .0
            .last_refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
        Err(error)
    }

    /// Shrinks the pool to the connections that exist, because the database refused another one.
    async fn shrink_to_allowed(&self, server: &ServerConnector, refusal: &DbErr) {
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
        let there = size(&self.current())
            .saturating_sub(self.0.connecting.load(Ordering::Relaxed))
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
    fn probe_for_growth(&self) {
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
        let mut connection = (server.new_pool)(allowed);
        record_metrics(&mut connection);
        let old = std::mem::replace(
            &mut *self
                .0
                .connection
                .write()
                .unwrap_or_else(PoisonError::into_inner),
            connection,
        );
        self.0.allowed.store(allowed, Ordering::Relaxed);
        *self
            .0
            .resized_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        metrics::gauge!(crate::metrics::DATABASE_CONNECTIONS_ALLOWED).set(f64::from(allowed));
        tokio::spawn(async move { old.close().await });
    }

    /// Waits up to `wait` for a server that cannot be reached at present.
    pub(super) async fn wait_for_server(&self, wait: Duration) -> Result<(), StoreError> {
        let Some(server) = &self.0.server else {
            return Ok(());
        };
        let begun = Instant::now();
        let mut told = None;
        loop {
            let Err(error) = self.probe_server(server).await else {
                return Ok(());
            };
            let error = StoreError::from(error);
            let is_over = begun.elapsed() + RETRY_INTERVAL > wait;
            match error {
                StoreError::Unavailable(cause) | StoreError::ConnectionLost(cause) if is_over => {
                    let waited = if wait.is_zero() {
                        String::new()
                    } else {
                        format!(" within {} s", wait.as_secs())
                    };
                    let text = format!("{} cannot be reached{waited}: {cause}", server.address);
                    return Err(StoreError::Unavailable(cause.with_text(text)));
                }
                StoreError::Unavailable(cause) | StoreError::ConnectionLost(cause) => {
                    if told.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(5)) {
                        told = Some(Instant::now());
                        let seconds = (wait - begun.elapsed()).as_secs();
                        tracing::warn!(
                            database = server.address,
                            reason = cause.text(),
                            "waiting for the database, {seconds} s at most"
                        );
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                StoreError::Internal(cause) => {
                    let text = format!("{} refuses: {cause}", server.address);
                    return Err(StoreError::Unavailable(cause.with_text(text)));
                }
                other => return Err(other),
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
        if let Err(error) = self.current().close_by_ref().await {
            tracing::warn!(error = %error, "cannot close the connections");
        }
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

/// Returns how many more connections the pool may open, if none is idle.
fn connections_left(connection: &DatabaseConnection) -> u32 {
    let (idle, size, most) = match connection.get_database_backend() {
        DbBackend::Postgres => {
            let pool = connection.get_postgres_connection_pool();
            (
                pool.num_idle(),
                pool.size(),
                pool.options().get_max_connections(),
            )
        }
        DbBackend::MySql => {
            let pool = connection.get_mysql_connection_pool();
            (
                pool.num_idle(),
                pool.size(),
                pool.options().get_max_connections(),
            )
        }
        _ => return 0,
    };
    if idle > 0 {
        0
    } else {
        most.saturating_sub(size)
    }
}

fn is_free(connection: &DatabaseConnection) -> bool {
    match connection.get_database_backend() {
        DbBackend::Postgres => connection.get_postgres_connection_pool().num_idle() > 0,
        DbBackend::MySql => connection.get_mysql_connection_pool().num_idle() > 0,
        _ => true,
    }
}

fn size(connection: &DatabaseConnection) -> u32 {
    match connection.get_database_backend() {
        DbBackend::Postgres => connection.get_postgres_connection_pool().size(),
        DbBackend::MySql => connection.get_mysql_connection_pool().size(),
        _ => 0,
    }
}

/// Takes a connection and returns it to the pool.
async fn acquire_and_release(connection: &DatabaseConnection) -> Result<(), DbErr> {
    let result = match connection.get_database_backend() {
        DbBackend::Postgres => connection
            .get_postgres_connection_pool()
            .acquire()
            .await
            .map(drop),
        DbBackend::MySql => connection
            .get_mysql_connection_pool()
            .acquire()
            .await
            .map(drop),
        _ => Ok(()),
    };
    result.map_err(|error| match error {
        SqlxError::PoolTimedOut => DbErr::ConnectionAcquire(sea_orm::ConnAcquireErr::Timeout),
        SqlxError::PoolClosed => {
            DbErr::ConnectionAcquire(sea_orm::ConnAcquireErr::ConnectionClosed)
        }
        error => DbErr::Conn(sea_orm::RuntimeErr::SqlxError(Arc::new(error))),
    })
}

/// Returns whether the database refused the connection because it has too many.
fn is_too_many(error: &DbErr) -> bool {
    let (DbErr::Conn(sea_orm::RuntimeErr::SqlxError(inner))
    | DbErr::Exec(sea_orm::RuntimeErr::SqlxError(inner))
    | DbErr::Query(sea_orm::RuntimeErr::SqlxError(inner))) = error
    else {
        return false;
    };
    let Some(error) = inner.as_database_error() else {
        return false;
    };
    match error.try_downcast_ref::<sea_orm::SqlxMySqlError>() {
        // Too many connections in total, for this user, or by the user's own limit.
        Some(mysql) => [1040, 1203, 1226].contains(&mysql.number()),
        None => error.code().as_deref() == Some("53300"),
    }
}

/// An open transaction. After a drop it is rolled back; only then can its connection be used again.
#[derive(Clone, Debug)]
pub(super) struct OpenTransaction(Arc<Transaction>);

#[derive(Debug)]
struct Transaction {
    backend: DbBackend,
    /// `None` after commit or rollback.
    tx: Option<DatabaseTransaction>,
    permit: Option<OwnedSemaphorePermit>,
    abandon_timeout: Duration,
}

impl Transaction {
    fn tx(&self) -> Result<&DatabaseTransaction, DbErr> {
        self.tx
            .as_ref()
            .ok_or_else(|| DbErr::Custom("the transaction has ended".to_owned()))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(tx) = self.tx.take() else { return };
        let permit = self.permit.take();
        spawn_with_timeout(self.abandon_timeout, async move {
            // After a failed rollback the pool closes the connection.
            if let Err(error) = tx.rollback().await {
                tracing::debug!(error = %error, "cannot roll back a transaction: closing its connection");
            }
            drop(permit);
        });
    }
}

impl OpenTransaction {
    pub(super) fn backend(&self) -> DbBackend {
        self.0.backend
    }

    pub(super) async fn query_all(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let (transaction, statement) = (Arc::clone(&self.0), statement.build(&self.0.backend));
        finish_on_drop(self.0.abandon_timeout, async move {
            transaction.tx()?.query_all_raw(statement).await
        })
        .await
    }

    pub(super) async fn query_one(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all(statement).await?.into_iter().next())
    }

    pub(super) async fn execute(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<ExecResult, DbErr> {
        self.execute_raw(statement.build(&self.0.backend)).await
    }

    pub(super) async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let transaction = Arc::clone(&self.0);
        finish_on_drop(self.0.abandon_timeout, async move {
            transaction.tx()?.execute_raw(statement).await
        })
        .await
    }

    pub(super) async fn execute_unprepared(&self, sql: &'static str) -> Result<ExecResult, DbErr> {
        let transaction = Arc::clone(&self.0);
        finish_on_drop(self.0.abandon_timeout, async move {
            transaction.tx()?.execute_unprepared(sql).await
        })
        .await
    }

    /// Commits. This is the only handle: statements run one after the other.
    pub(super) async fn commit(self) -> Result<(), DbErr> {
        let abandon_timeout = self.0.abandon_timeout;
        let (tx, permit) = self.into_inner()?;
        let work = async move {
            let result = tx.commit().await;
            drop(permit);
            result
        };
        finish_on_drop(abandon_timeout, work).await
    }

    /// Returns the library's transaction, for work before the server accepts requests.
    pub(super) fn into_inner(
        self,
    ) -> Result<(DatabaseTransaction, Option<OwnedSemaphorePermit>), DbErr> {
        let transaction = Arc::into_inner(self.0);
        let taken = transaction
            .and_then(|mut transaction| Some((transaction.tx.take()?, transaction.permit.take())));
        taken.ok_or_else(|| {
            DbErr::Custom("a statement of the transaction is still running".to_owned())
        })
    }
}
