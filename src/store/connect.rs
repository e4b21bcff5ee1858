//! Connection settings of each engine, which make the protocol hold on all of them.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sea_orm::sqlx::mysql::{
    MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPoolOptions,
};
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sea_orm::sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sea_orm::sqlx::{AssertSqlSafe, Connection, Database as SqlxDatabase, Executor, Row};
use sea_orm::{SqlxError, SqlxMySqlConnector, SqlxPostgresConnector, SqlxSqliteConnector};

use super::files::Files;
use super::finish_on_drop::is_clean;
use super::pool::{DirectConnection, Pool, PoolLimits, ServerConnector, note_connection};
use super::{Store, StoreError, options};
use crate::config::DatabaseConfig;

/// Connections that were idle for longer than this are pinged before use.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);
/// Number of prepared statements that a connection keeps. (MySQL and MariaDB allow 16,382 on all
/// connections together.)
const STATEMENT_CACHE_SIZE: usize = 300;
/// Number of 4 KiB pages in SQLite's write-ahead log before a checkpoint copies them into the file:
/// a page that is written several times meanwhile is copied once. (The default of 1,000 is 250
/// messages for as many groups.)
const WAL_AUTOCHECKPOINT_PAGES: &str = "8000";
/// MySQL's and MariaDB's error number for an unknown variable.
const UNKNOWN_VARIABLE: u16 = 1193;

pub(super) async fn connect(settings: &DatabaseConfig) -> Result<Store, StoreError> {
    let url = settings.url.reveal();
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    options::check(scheme, url).map_err(|text| StoreError::Internal(text.into()))?;
    match scheme {
        "sqlite" => sqlite(settings, url).await,
        "postgres" | "postgresql" => postgres(settings, url),
        _ => mysql(settings, url),
    }
}

fn pool_limits(settings: &DatabaseConfig, max_connections: u32) -> PoolLimits {
    PoolLimits {
        max_connections,
        acquire_timeout: Duration::from_secs(settings.acquire_timeout_seconds),
        statement_timeout: Duration::from_secs(settings.statement_timeout_seconds),
    }
}

fn pool<DB: SqlxDatabase>(settings: &DatabaseConfig) -> PoolOptions<DB> {
    PoolOptions::new()
        .acquire_timeout(Duration::from_secs(settings.acquire_timeout_seconds))
        // Avoids a round trip before each use, except for connections that were idle: the database
        // may have been restarted.
        .test_before_acquire(false)
        .before_acquire(|connection: &mut DB::Connection, since| {
            Box::pin(async move {
                if since.idle_for > PING_AFTER_IDLE {
                    connection.ping().await?;
                }
                note_connection();
                Ok(true)
            })
        })
        .after_connect(|_, _| {
            note_connection();
            Box::pin(async { Ok(()) })
        })
        .after_release(|connection: &mut DB::Connection, _| {
            Box::pin(async move { close_unless(is_clean(connection).await) })
        })
}

/// The result of `after_release`: the error makes the library close the connection without logging.
fn close_unless(is_clean: bool) -> Result<bool, SqlxError> {
    if is_clean {
        Ok(true)
    } else {
        Err(SqlxError::WorkerCrashed)
    }
}

/// Connects to PostgreSQL, or a database that speaks its protocol.
fn postgres(settings: &DatabaseConfig, url: &str) -> Result<Store, StoreError> {
    let timeout = format!("{}s", settings.statement_timeout_seconds);
    let mut options = PgConnectOptions::from_str(url)
        .map_err(|error| options::redacted_error(&error))?
        .application_name("recents");
    let mut preamble = None;
    if settings.transaction_pooler {
        // The next transaction may run on another server connection: keep no prepared statements,
        // discard those of other clients, and send no startup option that the pooler does not know.
        options = options.statement_cache_capacity(0).extra_float_digits(None);
        preamble = Some(format!(
            "DEALLOCATE ALL; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '{timeout}'; \
             SET LOCAL idle_in_transaction_session_timeout = '{timeout}'"
        ));
    } else {
        options = options.options([
            // The read after waiting for a lock must see what was committed meanwhile.
            ("default_transaction_isolation", "read committed"),
            ("statement_timeout", timeout.as_str()),
            ("idle_in_transaction_session_timeout", timeout.as_str()),
        ]);
    }
    let address = address(
        options.get_socket().cloned(),
        options.get_host(),
        options.get_port(),
    );
    let connect_options = options.clone();
    let pool: PgPoolOptions = pool(settings);
    let server = ServerConnector {
        address,
        new_pool: Box::new(move |most| {
            let pool = pool
                .clone()
                .max_connections(most)
                .connect_lazy_with(options.clone());
            SqlxPostgresConnector::from_sqlx_postgres_pool(pool)
        }),
        connect: Box::new(move || {
            let options = connect_options.clone();
            Box::pin(async move {
                Ok(DirectConnection::Postgres(
                    PgConnection::connect_with(&options).await?,
                ))
            })
        }),
    };
    let pool = Pool::for_server(server, pool_limits(settings, settings.max_connections));
    Ok(Store {
        preamble: preamble.map(Arc::from),
        ..Store::from_pools(pool.clone(), pool, settings.max_connections)
    })
}

/// Formats the address of a server.
fn address(socket: Option<PathBuf>, host: &str, port: u16) -> String {
    socket.map_or_else(
        || format!("the database at {host}:{port}"),
        |path| format!("the database at {}", path.display()),
    )
}

/// Connects to MySQL or MariaDB, or a database that speaks their protocol.
fn mysql(settings: &DatabaseConfig, url: &str) -> Result<Store, StoreError> {
    let url = url
        .strip_prefix("mariadb:")
        .map_or_else(|| url.to_owned(), |rest| format!("mysql:{rest}"));
    let mut options =
        MySqlConnectOptions::from_str(&url).map_err(|error| options::redacted_error(&error))?;
    if !url.contains("statement-cache-capacity") {
        // Closing a prepared statement takes a packet of its own, and the next statement waits 40
        // ms for its acknowledgement, because TCP_NODELAY is off.
        options = options.statement_cache_capacity(STATEMENT_CACHE_SIZE);
    }
    let seconds = settings.statement_timeout_seconds;
    let is_galera = Arc::new(AtomicBool::new(false));
    let found = Arc::clone(&is_galera);
    let pool: MySqlPoolOptions =
        pool(settings).after_connect(move |connection: &mut MySqlConnection, _| {
            let found = Arc::clone(&found);
            Box::pin(async move {
                connection
                    .execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                    .await?;
                // Values that do not fit are errors instead of being truncated.
                connection
                    .execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
                    .await?;
                connection
                    .execute(AssertSqlSafe(format!(
                        "SET SESSION innodb_lock_wait_timeout = {seconds}"
                    )))
                    .await?;
                // MariaDB and MySQL have different names for the statement timeout.
                let mariadb = AssertSqlSafe(format!("SET SESSION max_statement_time = {seconds}"));
                if connection.execute(mariadb).await.is_err() {
                    connection
                        .execute(AssertSqlSafe(format!(
                            "SET SESSION max_execution_time = {}",
                            seconds * 1000
                        )))
                        .await?;
                }
                if is_cluster_node(connection).await? {
                    // Reads wait for commits of the other nodes: the client may have seen them
                    // there.
                    connection
                        .execute("SET SESSION wsrep_sync_wait = 1")
                        .await?;
                    found.store(true, Ordering::Relaxed);
                }
                note_connection();
                Ok(())
            })
        });
    // Autocommit is off inside of transactions on a Galera node; it must be on outside of them.
    let timeout = Duration::from_secs(seconds);
    let is_cluster = Arc::clone(&is_galera);
    let pool = pool.after_release(move |connection: &mut MySqlConnection, _| {
        let is_cluster = is_cluster.load(Ordering::Relaxed);
        Box::pin(async move {
            if is_cluster && !connection.should_flush() && !connection.is_in_transaction() {
                return match tokio::time::timeout(
                    timeout,
                    connection.execute("ROLLBACK; SET autocommit = 1"),
                )
                .await
                {
                    Ok(result) => result.map(|_| true),
                    Err(_) => close_unless(false),
                };
            }
            close_unless(is_clean(connection).await)
        })
    });
    let address = address(
        options.get_socket().cloned(),
        options.get_host(),
        options.get_port(),
    );
    let connect_options = options.clone();
    let server = ServerConnector {
        address,
        new_pool: Box::new(move |most| {
            let pool = pool
                .clone()
                .max_connections(most)
                .connect_lazy_with(options.clone());
            SqlxMySqlConnector::from_sqlx_mysql_pool(pool)
        }),
        connect: Box::new(move || {
            let options = connect_options.clone();
            Box::pin(async move {
                Ok(DirectConnection::MySql(
                    MySqlConnection::connect_with(&options).await?,
                ))
            })
        }),
    };
    let pool = Pool::for_server(server, pool_limits(settings, settings.max_connections));
    Ok(Store {
        is_galera,
        ..Store::from_pools(pool.clone(), pool, settings.max_connections)
    })
}

/// Returns whether the server is a node of a Galera cluster. If a node is not ready, the query
/// fails and there is no connection: a node mistaken for a single server would return stale data.
async fn is_cluster_node(connection: &mut MySqlConnection) -> Result<bool, SqlxError> {
    match connection.fetch_one("SELECT @@wsrep_on").await {
        Ok(row) => Ok(row.try_get::<i64, _>(0)? == 1),
        Err(SqlxError::Database(error)) => match error.try_downcast_ref::<MySqlDatabaseError>() {
            // Only servers with Galera support know this variable.
            Some(known) if known.number() == UNKNOWN_VARIABLE => Ok(false),
            _ => Err(SqlxError::Database(error)),
        },
        Err(error) => Err(error),
    }
}

/// Opens the file, and retries while it is locked: if two processes switch a new file to
/// write-ahead mode at the same time, one gets an error whatever the busy timeout is.
async fn open_file(
    settings: &DatabaseConfig,
    pool: SqlitePoolOptions,
    options: &SqliteConnectOptions,
) -> Result<SqlitePool, StoreError> {
    let deadline = Instant::now() + Duration::from_secs(settings.statement_timeout_seconds);
    loop {
        match pool
            .clone()
            .connect_with(options.clone())
            .await
            .map_err(StoreError::from)
        {
            Err(StoreError::Conflict(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            result => return result,
        }
    }
}

/// Opens SQLite in write-ahead mode: one connection writes and several read. A commit is on disk
/// when it returns.
async fn sqlite(settings: &DatabaseConfig, url: &str) -> Result<Store, StoreError> {
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(StoreError::Internal(
            "an in-memory SQLite database is not supported: each connection would have a database of its own".into(),
        ));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| options::redacted_error(&error))?
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(settings.statement_timeout_seconds))
        .foreign_keys(false)
        .pragma("cache_size", "-16384")
        .pragma("wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES)
        .statement_cache_capacity(256);
    // The writer's connection stays open: closing the last connection would delete the log, and
    // create another one later.
    let writer: SqlitePoolOptions = pool(settings)
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None);
    // The writer comes first and creates the file, so that the readers never do.
    let writer = open_file(settings, writer, &options).await?;
    let files = Files::new(options.get_filename());
    let most = settings.max_connections - 1;
    let readers: SqlitePoolOptions = pool(settings).max_connections(most);
    // Readers are many, and the operating system caches the file's pages as well.
    let options = options
        .create_if_missing(false)
        .pragma("query_only", "on")
        .pragma("cache_size", "-4096");
    let readers = readers.connect_lazy_with(options);
    let pool = |pool, most| {
        Pool::from_connection(
            SqlxSqliteConnector::from_sqlx_sqlite_pool(pool),
            pool_limits(settings, most),
        )
    };
    Ok(Store {
        files: Some(Arc::new(files)),
        ..Store::from_pools(
            pool(readers, most),
            pool(writer, 1),
            settings.max_connections,
        )
    })
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Statement};

    use super::*;
    use crate::config::Settings;

    #[tokio::test]
    async fn sqlite_commits_are_durable_and_readers_are_read_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default().database;
        settings.url = format!(
            "sqlite://{}?mode=rwc",
            folder.path().join("recents.db").display()
        )
        .as_str()
        .into();
        let store = connect(&settings).await.unwrap();
        for (pool, query_only) in [(&store.write, 0), (&store.read, 1)] {
            let connection = pool.connection();
            let ask = async |pragma: &str| {
                let statement = Statement::from_string(
                    connection.get_database_backend(),
                    format!("PRAGMA {pragma}"),
                );
                connection.query_one_raw(statement).await.unwrap().unwrap()
            };
            assert_eq!(
                ask("journal_mode")
                    .await
                    .try_get_by_index::<String>(0)
                    .unwrap(),
                "wal",
                "query_only = {query_only}"
            );
            // 2 is FULL: a commit waits until the log is on disk.
            assert_eq!(
                ask("synchronous").await.try_get_by_index::<i64>(0).unwrap(),
                2,
                "query_only = {query_only}"
            );
            assert_eq!(
                ask("query_only").await.try_get_by_index::<i64>(0).unwrap(),
                query_only,
                "query_only = {query_only}"
            );
        }
    }
}
