//! Connections: what is set on each engine, so that the same protocol holds on all of them.

use std::str::FromStr;
use std::time::{Duration, Instant};

use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sea_orm::sqlx::{AssertSqlSafe, Connection, Database as SqlxDatabase, Executor};
use sea_orm::{DatabaseConnection, SqlxMySqlConnector, SqlxPostgresConnector, SqlxSqliteConnector};

use super::{Store, StoreError};
use crate::config::Database;

/// A connection that was not used for so long is asked whether it still is one.
const IDLE: Duration = Duration::from_secs(1);

pub(super) async fn connect(settings: &Database) -> Result<Store, StoreError> {
    let url = settings.url.reveal();
    let mut store = match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => sqlite(settings, url).await?,
        Some("postgres" | "postgresql") => postgres(settings, url)?,
        _ => mysql(settings, url)?,
    };
    for connection in [&mut store.read, &mut store.write] {
        connection.set_metric_callback(|info| {
            metrics::counter!("recents_sql_statements_total").increment(1);
            metrics::histogram!("recents_sql_seconds").record(info.elapsed.as_secs_f64());
        });
    }
    Ok(store)
}

fn pool<DB: SqlxDatabase>(settings: &Database) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(Duration::from_secs(settings.acquire_seconds))
        // No round trip before each use, but before the use of one that was idle: the database may have been restarted.
        .test_before_acquire(false)
        .before_acquire(|connection: &mut DB::Connection, since| {
            Box::pin(async move {
                if since.idle_for > IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

/// PostgreSQL (and what speaks its protocol).
fn postgres(settings: &Database, url: &str) -> Result<Store, StoreError> {
    let timeout = format!("{}s", settings.statement_seconds);
    let options = PgConnectOptions::from_str(url)?.application_name("recents").options([
        // The read after waiting for a lock must see what was committed meanwhile.
        ("default_transaction_isolation", "read committed"),
        ("statement_timeout", timeout.as_str()),
        ("idle_in_transaction_session_timeout", timeout.as_str()),
    ]);
    let pool: PgPoolOptions = pool(settings);
    let connection = SqlxPostgresConnector::from_sqlx_postgres_pool(pool.connect_lazy_with(options));
    Ok(Store { read: connection.clone(), write: connection })
}

/// MySQL, MariaDB (and what speaks their protocol).
fn mysql(settings: &Database, url: &str) -> Result<Store, StoreError> {
    let url = url.strip_prefix("mariadb:").map_or_else(|| url.to_owned(), |rest| format!("mysql:{rest}"));
    let options = MySqlConnectOptions::from_str(&url)?;
    let seconds = settings.statement_seconds;
    let pool: MySqlPoolOptions = pool(settings).after_connect(move |connection: &mut MySqlConnection, _| {
        Box::pin(async move {
            connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
            // What does not fit is an error, never cut off.
            connection.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')").await?;
            connection.execute(AssertSqlSafe(format!("SET SESSION innodb_lock_wait_timeout = {seconds}"))).await?;
            // MariaDB and MySQL call the time limit of a statement by different names.
            let mariadb = AssertSqlSafe(format!("SET SESSION max_statement_time = {seconds}"));
            if connection.execute(mariadb).await.is_err() {
                connection.execute(AssertSqlSafe(format!("SET SESSION max_execution_time = {}", seconds * 1000))).await?;
            }
            Ok(())
        })
    });
    // A request that is cancelled while BEGIN is on its way leaves a transaction that nobody knows of: the next statement outside
    // of one would never be committed.
    let pool = pool.after_release(|connection: &mut MySqlConnection, _| {
        Box::pin(async move { connection.execute("ROLLBACK").await.map(|_| true) })
    });
    let connection = SqlxMySqlConnector::from_sqlx_mysql_pool(pool.connect_lazy_with(options));
    Ok(Store { read: connection.clone(), write: connection })
}

/// Two processes that switch a new file to write-ahead mode at once are told that it is locked, whatever the busy timeout.
async fn open_file(
    settings: &Database,
    pool: SqlitePoolOptions,
    options: &SqliteConnectOptions,
) -> Result<SqlitePool, StoreError> {
    let deadline = Instant::now() + Duration::from_secs(settings.statement_seconds);
    loop {
        match pool.clone().connect_with(options.clone()).await.map_err(StoreError::from) {
            Err(StoreError::Contended(_)) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            result => return result,
        }
    }
}

/// SQLite: one connection that writes and several that read, in write-ahead mode; a commit is on the disk when it returns.
async fn sqlite(settings: &Database, url: &str) -> Result<Store, StoreError> {
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(StoreError::Broken("an in-memory SQLite database would be another one for each connection".to_owned()));
    }
    let options = SqliteConnectOptions::from_str(url)?
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(settings.statement_seconds))
        .foreign_keys(false)
        .pragma("cache_size", "-16384")
        .statement_cache_capacity(256);
    let writer: SqlitePoolOptions = pool(settings).max_connections(1);
    // The writer comes first and creates the file, so that the readers never do.
    let writer = open_file(settings, writer, &options).await?;
    let readers: SqlitePoolOptions = pool(settings).max_connections(settings.max_connections - 1);
    let readers = readers.connect_lazy_with(options.create_if_missing(false).pragma("query_only", "on"));
    let connection = |pool| -> DatabaseConnection { SqlxSqliteConnector::from_sqlx_sqlite_pool(pool) };
    Ok(Store { read: connection(readers), write: connection(writer) })
}
