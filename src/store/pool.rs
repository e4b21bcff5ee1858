//! The connections: who gets one, how many the database allows, and what is asked on them.
//!
//! Everything that is asked is finished, also when nobody waits for the answer any more (see
//! `uncancelled`); waiting for a connection is given up at once.

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
use super::uncancelled::{go_on, uncancelled};

/// When a connection is so long in coming, the database is asked for the reason: the library keeps
/// it to itself.
const SLOW: Duration = Duration::from_millis(300);
/// For so long after the number of connections was found, refusals are those of connections that
/// are still being closed.
const SETTLES: Duration = Duration::from_secs(5);
/// How often a database that allowed fewer connections than it should is asked for more.
const ASKS_FOR_MORE: Duration = Duration::from_secs(30);
/// How long a database that is waited for is left alone between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// For so long a reason explains why there is no connection.
const EXPLAINS: Duration = Duration::from_secs(30);
/// What is added to the time limit of a statement before one that was given up is taken for dead.
const GRACE: Duration = Duration::from_secs(2);

/// A connection beside those of the pool.
pub(super) enum Link {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

impl Link {
    async fn close(self) {
        // Nothing was done on it.
        let _ = match self {
            Self::Postgres(connection) => connection.close().await,
            Self::MySql(connection) => connection.close().await,
        };
    }
}

/// How connections to a server are made. SQLite has none.
pub(super) struct Server {
    /// Where it is, for messages.
    pub(super) place: String,
    /// A pool of so many connections.
    pub(super) pool: Box<dyn Fn(u32) -> DatabaseConnection + Send + Sync>,
    /// One connection.
    pub(super) link: Box<dyn Fn() -> BoxFuture<'static, Result<Link, SqlxError>> + Send + Sync>,
}

/// Connections of one kind. A clone is the same.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    connection: RwLock<DatabaseConnection>,
    backend: DbBackend,
    /// A place for each connection that there may be. Whoever waits here has asked nothing yet.
    places: Arc<Semaphore>,
    most: u32,
    acquire: Duration,
    /// How long what was given up may go on.
    patience: Duration,
    server: Option<Server>,
    /// Connections that are just being made.
    coming: AtomicU32,
    /// How many the database allows, as far as is known, and when that was found.
    allowed: AtomicU32,
    found: Mutex<Option<Instant>>,
    finding: tokio::sync::Mutex<()>,
    /// Why there was no connection, when that was last so.
    refusal: Mutex<Option<(Instant, String)>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pool")
            .field("most", &self.0.most)
            .finish_non_exhaustive()
    }
}

/// How many connections, and for how long what is waited for.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) most: u32,
    pub(super) acquire: Duration,
    /// The time limit of a statement.
    pub(super) statement: Duration,
}

impl Pool {
    /// Connections of a server's.
    pub(super) fn of(server: Server, limits: Limits) -> Self {
        let connection = (server.pool)(limits.most);
        Self::new(connection, Some(server), limits)
    }

    /// Connections that are there.
    pub(super) fn over(connection: DatabaseConnection, limits: Limits) -> Self {
        Self::new(connection, None, limits)
    }

    fn new(mut connection: DatabaseConnection, server: Option<Server>, limits: Limits) -> Self {
        let backend = connection.get_database_backend();
        measure(&mut connection);
        Self(Arc::new(Shared {
            connection: RwLock::new(connection),
            backend,
            places: Arc::new(Semaphore::new(limits.most as usize)),
            most: limits.most,
            acquire: limits.acquire,
            patience: limits.statement + GRACE,
            server,
            coming: AtomicU32::new(0),
            allowed: AtomicU32::new(limits.most),
            found: Mutex::default(),
            finding: tokio::sync::Mutex::default(),
            refusal: Mutex::default(),
        }))
    }

    pub(super) fn backend(&self) -> DbBackend {
        self.0.backend
    }

    /// The library's pool, for what is done before anybody is served.
    pub(super) fn current(&self) -> DatabaseConnection {
        self.0
            .connection
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many connections the database allows, where that is less than what is configured: both
    /// numbers.
    pub(super) fn limited(&self) -> Option<(u32, u32)> {
        let allowed = self.0.allowed.load(Ordering::Relaxed);
        (allowed < self.0.most).then_some((allowed, self.0.most))
    }

    /// Asks for rows outside of a transaction.
    pub(super) async fn query_all(
        &self,
        statement: Statement,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let (place, connection) = self.enter().await?;
        let work = async move {
            let rows = connection.query_all_raw(statement).await;
            drop(place);
            rows
        };
        uncancelled(self.0.patience, work)
            .await
            .map_err(|error| self.explain(error))
    }

    /// Begins a transaction, with `first` as its first statement.
    pub(super) async fn begin(&self, first: Option<Arc<str>>) -> Result<Open, StoreError> {
        let (place, connection) = self.enter().await?;
        let patience = self.0.patience;
        // SQLite must say at BEGIN that it is going to write; READ COMMITTED is set on every
        // connection of the others.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let work = async move {
            let tx = connection.begin_with_options(options).await?;
            let open = Open(Arc::new(Transaction {
                backend: tx.get_database_backend(),
                tx: Some(tx),
                place: Some(place),
                patience,
            }));
            if let Some(first) = first {
                open.0.tx()?.execute_unprepared(&first).await?;
            }
            Ok(open)
        };
        uncancelled(patience, work)
            .await
            .map_err(|error| self.explain(error))
    }

    /// Does `work`, which uses connections, to its end.
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        uncancelled(self.0.patience, work).await
    }

    /// A place, and the pool that has a connection for it.
    async fn enter(&self) -> Result<(OwnedSemaphorePermit, DatabaseConnection), StoreError> {
        let acquired =
            tokio::time::timeout(self.0.acquire, Arc::clone(&self.0.places).acquire_owned()).await;
        let Ok(Ok(place)) = acquired else {
            let text = format!(
                "none of {} connections was free within {} s",
                self.0.most,
                self.0.acquire.as_secs()
            );
            return Err(StoreError::Unavailable(self.with_reason(text)));
        };
        if let Some(server) = &self.0.server {
            self.ask_for_more();
            let deadline = Instant::now() + self.0.acquire;
            while room(&self.current()) > 0 {
                match self.come(server).await {
                    Ok(()) => {
                        // It is looked at once more on its way into the pool.
                        for _ in 0..50 {
                            if is_free(&self.current()) {
                                break;
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        break;
                    }
                    Err(error) if is_too_many(&error) && Instant::now() < deadline => {
                        self.find_allowed(server, &error).await
                    }
                    Err(error) => return Err(self.explain(error)),
                }
            }
        }
        Ok((place, self.current()))
    }

    /// Gets another connection, and leaves it in the pool. The library asks again and again and
    /// says nothing when the database refuses, so when it takes long the reason is found out beside
    /// it.
    async fn come(&self, server: &Server) -> Result<(), DbErr> {
        let connection = self.current();
        let _coming = Coming::new(&self.0.coming);
        let mut acquired = Box::pin(acquire(&connection));
        let why = async {
            tokio::time::sleep(SLOW).await;
            // One of those who wait finds it out for all.
            let Ok(_one) = self.0.finding.try_lock() else {
                return std::future::pending().await;
            };
            loop {
                match self.reach(server).await {
                    Err(error) if is_too_many(&error) => return error,
                    _ => tokio::time::sleep(SLOW).await,
                }
            }
        };
        tokio::select! {
            acquired = &mut acquired => acquired,
            refused = why => Err(refused),
        }
    }

    /// Whether the server is there, by a connection of its own.
    async fn reach(&self, server: &Server) -> Result<(), DbErr> {
        let result = match tokio::time::timeout(self.0.acquire, (server.link)()).await {
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
        let text = format!("{}: {error}", server.place);
        *self
            .0
            .refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
        Err(error)
    }

    /// The database refused one more: those that there are must do.
    async fn find_allowed(&self, server: &Server, refusal: &DbErr) {
        let finding = self.0.finding.lock().await;
        if self
            .0
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|at| at.elapsed() < SETTLES)
        {
            drop(finding);
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        }
        let there = size(&self.current())
            .saturating_sub(self.0.coming.load(Ordering::Relaxed))
            .max(1);
        tracing::warn!(
            allowed = there,
            max_connections = self.0.most,
            refusal = %refusal,
            "the database allows {there} connections just now, not the {} of database.max_connections: requests share them",
            self.0.most
        );
        self.replace(server, there);
    }

    /// Asks a database that allowed too few for more, now and then.
    fn ask_for_more(&self) {
        let Some((allowed, most)) = self.limited() else {
            return;
        };
        {
            let mut found = self.0.found.lock().unwrap_or_else(PoisonError::into_inner);
            if found.is_some_and(|at| at.elapsed() < ASKS_FOR_MORE) {
                return;
            }
            *found = Some(Instant::now());
        }
        let pool = self.clone();
        tokio::spawn(async move {
            let Some(server) = &pool.0.server else { return };
            let mut links = Vec::new();
            for _ in allowed..most {
                match tokio::time::timeout(pool.0.acquire, (server.link)()).await {
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
                pool.replace(server, allowed + more);
            }
        });
    }

    /// A pool of so many instead of the one that there is, whose connections are closed when they
    /// are free.
    fn replace(&self, server: &Server, allowed: u32) {
        let mut connection = (server.pool)(allowed);
        measure(&mut connection);
        let old = std::mem::replace(
            &mut *self
                .0
                .connection
                .write()
                .unwrap_or_else(PoisonError::into_inner),
            connection,
        );
        self.0.allowed.store(allowed, Ordering::Relaxed);
        *self.0.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        metrics::gauge!("recents_database_connections_allowed").set(f64::from(allowed));
        tokio::spawn(async move { old.close().await });
    }

    /// Waits for the server, if it is one that cannot be reached just now; for `wait` at most.
    pub(super) async fn wait_for_server(&self, wait: Duration) -> Result<(), StoreError> {
        let Some(server) = &self.0.server else {
            return Ok(());
        };
        let begun = Instant::now();
        let mut told = None;
        loop {
            let Err(error) = self.reach(server).await else {
                return Ok(());
            };
            let error = StoreError::from(error);
            let is_over = begun.elapsed() + PAUSE > wait;
            match error {
                StoreError::Unavailable(text) | StoreError::Lost(text) if is_over => {
                    let waited = if wait.is_zero() {
                        String::new()
                    } else {
                        format!(" within {} s", wait.as_secs())
                    };
                    return Err(StoreError::Unavailable(format!(
                        "{} cannot be reached{waited}: {text}",
                        server.place
                    )));
                }
                StoreError::Unavailable(text) | StoreError::Lost(text) => {
                    if told.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(5)) {
                        told = Some(Instant::now());
                        let seconds = (wait - begun.elapsed()).as_secs();
                        tracing::warn!(
                            database = server.place,
                            reason = text,
                            "waiting for the database, {seconds} s at most"
                        );
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                StoreError::Broken(text) => {
                    return Err(StoreError::Unavailable(format!(
                        "{} refuses: {text}",
                        server.place
                    )));
                }
                other => return Err(other),
            }
        }
    }

    /// An error, with the reason for which there was no connection.
    fn explain(&self, error: DbErr) -> StoreError {
        let is_time_out = matches!(error, DbErr::ConnectionAcquire(_));
        match StoreError::from(error) {
            StoreError::Unavailable(text) if is_time_out => {
                StoreError::Unavailable(self.with_reason(text))
            }
            other => other,
        }
    }

    fn with_reason(&self, text: String) -> String {
        let refusal = self
            .0
            .refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*refusal {
            Some((at, reason)) if at.elapsed() < EXPLAINS => format!("{text}; {reason}"),
            _ => text,
        }
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        if let Err(error) = self.current().close_by_ref().await {
            tracing::warn!(error = %error, "a connection did not close");
        }
    }
}

/// Counts a connection that is being made.
struct Coming<'a>(&'a AtomicU32);

impl<'a> Coming<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn measure(connection: &mut DatabaseConnection) {
    connection.set_metric_callback(|info| {
        metrics::counter!("recents_sql_statements_total").increment(1);
        metrics::histogram!("recents_sql_seconds").record(info.elapsed.as_secs_f64());
    });
}

/// How many connections may still be made, where none is free.
fn room(connection: &DatabaseConnection) -> u32 {
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

/// Takes a connection, and gives it back.
async fn acquire(connection: &DatabaseConnection) -> Result<(), DbErr> {
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

/// Whether the database has no connection left for us.
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
        // Too many connections; of this user; of this user by its own limit.
        Some(mysql) => [1040, 1203, 1226].contains(&mysql.number()),
        None => error.code().as_deref() == Some("53300"),
    }
}

/// An open transaction. Dropped, it is rolled back, and only then can its connection be used again.
#[derive(Clone, Debug)]
pub(super) struct Open(Arc<Transaction>);

#[derive(Debug)]
struct Transaction {
    backend: DbBackend,
    /// Until it is committed or rolled back.
    tx: Option<DatabaseTransaction>,
    place: Option<OwnedSemaphorePermit>,
    patience: Duration,
}

impl Transaction {
    fn tx(&self) -> Result<&DatabaseTransaction, DbErr> {
        self.tx
            .as_ref()
            .ok_or_else(|| DbErr::Custom("the transaction is over".to_owned()))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(tx) = self.tx.take() else { return };
        let place = self.place.take();
        go_on(self.patience, async move {
            // One that fails leaves the connection as one that is closed when it comes back.
            if let Err(error) = tx.rollback().await {
                tracing::debug!(error = %error, "a transaction could not be rolled back: its connection is closed");
            }
            drop(place);
        });
    }
}

impl Open {
    pub(super) fn backend(&self) -> DbBackend {
        self.0.backend
    }

    pub(super) async fn query_all(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let (transaction, statement) = (Arc::clone(&self.0), statement.build(&self.0.backend));
        uncancelled(self.0.patience, async move {
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
        uncancelled(self.0.patience, async move {
            transaction.tx()?.execute_raw(statement).await
        })
        .await
    }

    pub(super) async fn execute_unprepared(&self, sql: &'static str) -> Result<ExecResult, DbErr> {
        let transaction = Arc::clone(&self.0);
        uncancelled(self.0.patience, async move {
            transaction.tx()?.execute_unprepared(sql).await
        })
        .await
    }

    /// Commits. Nobody else has the transaction: its statements are done one after the other.
    pub(super) async fn commit(self) -> Result<(), DbErr> {
        let patience = self.0.patience;
        let (tx, place) = self.into_inner()?;
        let work = async move {
            let result = tx.commit().await;
            drop(place);
            result
        };
        uncancelled(patience, work).await
    }

    /// The library's transaction, for what is done before anybody is served.
    pub(super) fn into_inner(
        self,
    ) -> Result<(DatabaseTransaction, Option<OwnedSemaphorePermit>), DbErr> {
        let transaction = Arc::into_inner(self.0);
        let taken = transaction
            .and_then(|mut transaction| Some((transaction.tx.take()?, transaction.place.take())));
        taken.ok_or_else(|| {
            DbErr::Custom("a statement of the transaction is still being done".to_owned())
        })
    }
}
