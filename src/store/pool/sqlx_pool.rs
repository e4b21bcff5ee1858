//! Functions of the library's pools, which sea-orm does not pass on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::{ConnAcquireErr, DatabaseConnection, DbBackend, DbErr, SqlxError};

/// Returns whether the pool may open another connection.
pub(super) fn may_open(connection: &DatabaseConnection) -> bool {
    match connection.get_database_backend() {
        DbBackend::Postgres => {
            let pool = connection.get_postgres_connection_pool();
            pool.size() < pool.options().get_max_connections()
        }
        DbBackend::MySql => {
            let pool = connection.get_mysql_connection_pool();
            pool.size() < pool.options().get_max_connections()
        }
        _ => false,
    }
}

pub(super) fn has_idle(connection: &DatabaseConnection) -> bool {
    match connection.get_database_backend() {
        DbBackend::Postgres => connection.get_postgres_connection_pool().num_idle() > 0,
        DbBackend::MySql => connection.get_mysql_connection_pool().num_idle() > 0,
        _ => true,
    }
}

/// Returns the number of connections that are open or being opened.
pub(super) fn size(connection: &DatabaseConnection) -> u32 {
    match connection.get_database_backend() {
        DbBackend::Postgres => connection.get_postgres_connection_pool().size(),
        DbBackend::MySql => connection.get_mysql_connection_pool().size(),
        _ => 0,
    }
}

/// Takes a connection and returns it to the pool.
pub(super) async fn acquire_and_release(connection: &DatabaseConnection) -> Result<(), DbErr> {
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
        SqlxError::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        SqlxError::PoolClosed => CLOSED,
        error => DbErr::Conn(sea_orm::RuntimeErr::SqlxError(Arc::new(error))),
    })
}

/// Waits until the pool is closed.
pub(super) async fn closed(connection: &DatabaseConnection) {
    match connection.get_database_backend() {
        DbBackend::Postgres => {
            connection
                .get_postgres_connection_pool()
                .close_event()
                .await;
        }
        DbBackend::MySql => connection.get_mysql_connection_pool().close_event().await,
        _ => std::future::pending().await,
    }
}

tokio::task_local! {
    /// True if the pool has handed out the connection that the current work waited for.
    static HAS_CONNECTION: Arc<AtomicBool>;
}

/// A pool calls this when it hands out a connection, in the task that gets the connection.
pub(in crate::store) fn note_connection() {
    // Connections are also opened outside of `until_closed`.
    let _ = HAS_CONNECTION.try_with(|has_connection| has_connection.store(true, Ordering::Relaxed));
}

/// Runs `work`, which takes a connection from the pool and uses it. Fails with [`CLOSED`] if the
/// pool is closed before `work` has its connection: the library would continue trying to open one,
/// although the database allows no more.
pub(super) async fn until_closed<T>(
    connection: DatabaseConnection,
    work: impl Future<Output = Result<T, DbErr>>,
) -> Result<T, DbErr> {
    if !may_open(&connection) {
        return work.await;
    }
    let has_connection = Arc::new(AtomicBool::new(false));
    let mut work = std::pin::pin!(HAS_CONNECTION.scope(Arc::clone(&has_connection), work));
    tokio::select! {
        biased;
        result = &mut work => return result,
        () = closed(&connection) => {}
    }
    if has_connection.load(Ordering::Relaxed) {
        work.await
    } else {
        Err(CLOSED)
    }
}

/// The error of a pool that was closed before it handed out a connection: nothing was sent.
pub(super) const CLOSED: DbErr = DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed);

pub(super) fn is_closed(error: &DbErr) -> bool {
    matches!(
        error,
        DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)
    )
}

/// Returns whether the database refused the connection because it has too many.
pub(super) fn is_too_many(error: &DbErr) -> bool {
    let DbErr::Conn(sea_orm::RuntimeErr::SqlxError(inner)) = error else {
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
