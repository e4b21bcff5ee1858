//! Connections: what is set on each engine, so that the same protocol holds on all of them.

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
use super::pool::{Limits, Link, Pool, Server};
use super::uncancelled::is_clean;
use super::{Store, StoreError, options};
use crate::config::Database;

/// A connection that was not used for so long is asked whether it still is one.
const IDLE: Duration = Duration::from_secs(1);
/// Statements that a connection keeps prepared. (MySQL and MariaDB allow 16,382 on all
/// connections.)
const STATEMENTS: usize = 300;
/// Pages of 4 KiB that SQLite's log holds before they are brought into the file: a page that is
/// written again meanwhile is brought in once. (1,000, its default, is 250 messages for as many
/// groups.)
const LOG_PAGES: &str = "8000";
/// MySQL's and MariaDB's number for a variable that is not known.
const UNKNOWN_VARIABLE: u16 = 1193;

pub(super) async fn connect(settings: &Database) -> Result<Store, StoreError> {
    let url = settings.url.reveal();
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    options::check(scheme, url).map_err(StoreError::Broken)?;
    match scheme {
        "sqlite" => sqlite(settings, url).await,
        "postgres" | "postgresql" => postgres(settings, url),
        _ => mysql(settings, url),
    }
}

fn limits(settings: &Database, most: u32) -> Limits {
    Limits {
        most,
        acquire: Duration::from_secs(settings.acquire_seconds),
        statement: Duration::from_secs(settings.statement_seconds),
    }
}

fn pool<DB: SqlxDatabase>(settings: &Database) -> PoolOptions<DB> {
    PoolOptions::new()
        .acquire_timeout(Duration::from_secs(settings.acquire_seconds))
        // No round trip before each use, but before the use of one that was idle: the database may
        // have been restarted.
        .test_before_acquire(false)
        .before_acquire(|connection: &mut DB::Connection, since| {
            Box::pin(async move {
                if since.idle_for > IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_release(|connection: &mut DB::Connection, _| {
            Box::pin(async move { closes(is_clean(connection).await) })
        })
}

/// What the library is told of a connection that came back: one that is not clean is closed without
/// a word.
fn closes(is_clean: bool) -> Result<bool, SqlxError> {
    if is_clean {
        Ok(true)
    } else {
        Err(SqlxError::WorkerCrashed)
    }
}

/// PostgreSQL (and what speaks its protocol).
fn postgres(settings: &Database, url: &str) -> Result<Store, StoreError> {
    let timeout = format!("{}s", settings.statement_seconds);
    let mut options = PgConnectOptions::from_str(url)
        .map_err(|error| options::refused(&error))?
        .application_name("recents");
    let mut preamble = None;
    if settings.transaction_pooler {
        // The next transaction may be on another connection: nothing is kept on one, what others
        // prepared there is thrown away, and nothing is asked of the pooler that it does not know.
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
    let place = place(
        options.get_socket().cloned(),
        options.get_host(),
        options.get_port(),
    );
    let link_options = options.clone();
    let pool: PgPoolOptions = pool(settings);
    let server = Server {
        place,
        pool: Box::new(move |most| {
            let pool = pool
                .clone()
                .max_connections(most)
                .connect_lazy_with(options.clone());
            SqlxPostgresConnector::from_sqlx_postgres_pool(pool)
        }),
        link: Box::new(move || {
            let options = link_options.clone();
            Box::pin(async move { Ok(Link::Postgres(PgConnection::connect_with(&options).await?)) })
        }),
    };
    let pool = Pool::of(server, limits(settings, settings.max_connections));
    Ok(Store {
        preamble: preamble.map(Arc::from),
        ..Store::over(pool.clone(), pool, settings.max_connections)
    })
}

/// Where a server is.
fn place(socket: Option<PathBuf>, host: &str, port: u16) -> String {
    socket.map_or_else(
        || format!("the database at {host}:{port}"),
        |path| format!("the database at {}", path.display()),
    )
}

/// MySQL, MariaDB (and what speaks their protocol).
fn mysql(settings: &Database, url: &str) -> Result<Store, StoreError> {
    let url = url
        .strip_prefix("mariadb:")
        .map_or_else(|| url.to_owned(), |rest| format!("mysql:{rest}"));
    let mut options =
        MySqlConnectOptions::from_str(&url).map_err(|error| options::refused(&error))?;
    if !url.contains("statement-cache-capacity") {
        // A statement that is given up is told to the server in a packet of its own, and the next
        // one waits 40 ms for that packet to be acknowledged: there is no TCP_NODELAY.
        options = options.statement_cache_capacity(STATEMENTS);
    }
    let seconds = settings.statement_seconds;
    let optimistic = Arc::new(AtomicBool::new(false));
    let found = Arc::clone(&optimistic);
    let pool: MySqlPoolOptions =
        pool(settings).after_connect(move |connection: &mut MySqlConnection, _| {
            let found = Arc::clone(&found);
            Box::pin(async move {
                connection
                    .execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                    .await?;
                // What does not fit is an error, never cut off.
                connection
                    .execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
                    .await?;
                connection
                    .execute(AssertSqlSafe(format!(
                        "SET SESSION innodb_lock_wait_timeout = {seconds}"
                    )))
                    .await?;
                // MariaDB and MySQL call the time limit of a statement by different names.
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
                    // Reads wait for what was committed on the other nodes: a client may have seen
                    // it there.
                    connection
                        .execute("SET SESSION wsrep_sync_wait = 1")
                        .await?;
                    found.store(true, Ordering::Relaxed);
                }
                Ok(())
            })
        });
    // On a node of a cluster nothing was committed by itself in a transaction: outside of one it
    // is.
    let patience = Duration::from_secs(seconds);
    let is_cluster = Arc::clone(&optimistic);
    let pool = pool.after_release(move |connection: &mut MySqlConnection, _| {
        let is_cluster = is_cluster.load(Ordering::Relaxed);
        Box::pin(async move {
            if is_cluster && !connection.should_flush() && !connection.is_in_transaction() {
                return match tokio::time::timeout(
                    patience,
                    connection.execute("ROLLBACK; SET autocommit = 1"),
                )
                .await
                {
                    Ok(result) => result.map(|_| true),
                    Err(_) => closes(false),
                };
            }
            closes(is_clean(connection).await)
        })
    });
    let place = place(
        options.get_socket().cloned(),
        options.get_host(),
        options.get_port(),
    );
    let link_options = options.clone();
    let server = Server {
        place,
        pool: Box::new(move |most| {
            let pool = pool
                .clone()
                .max_connections(most)
                .connect_lazy_with(options.clone());
            SqlxMySqlConnector::from_sqlx_mysql_pool(pool)
        }),
        link: Box::new(move || {
            let options = link_options.clone();
            Box::pin(async move { Ok(Link::MySql(MySqlConnection::connect_with(&options).await?)) })
        }),
    };
    let pool = Pool::of(server, limits(settings, settings.max_connections));
    Ok(Store {
        optimistic,
        ..Store::over(pool.clone(), pool, settings.max_connections)
    })
}

/// Whether this is a node of a Galera cluster. One that is not ready says so; then there is no
/// connection, because one that was taken for another would answer with what is old.
async fn is_cluster_node(connection: &mut MySqlConnection) -> Result<bool, SqlxError> {
    match connection.fetch_one("SELECT @@wsrep_on").await {
        Ok(row) => Ok(row.try_get::<i64, _>(0)? == 1),
        Err(SqlxError::Database(error)) => match error.try_downcast_ref::<MySqlDatabaseError>() {
            // Only servers that can be a node know this variable.
            Some(known) if known.number() == UNKNOWN_VARIABLE => Ok(false),
            _ => Err(SqlxError::Database(error)),
        },
        Err(error) => Err(error),
    }
}

/// Two processes that switch a new file to write-ahead mode at once are told that it is locked,
/// whatever the busy timeout.
async fn open_file(
    settings: &Database,
    pool: SqlitePoolOptions,
    options: &SqliteConnectOptions,
) -> Result<SqlitePool, StoreError> {
    let deadline = Instant::now() + Duration::from_secs(settings.statement_seconds);
    loop {
        match pool
            .clone()
            .connect_with(options.clone())
            .await
            .map_err(StoreError::from)
        {
            Err(StoreError::Contended(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            result => return result,
        }
    }
}

/// SQLite: one connection that writes and several that read, in write-ahead mode; a commit is on
/// the disk when it returns.
async fn sqlite(settings: &Database, url: &str) -> Result<Store, StoreError> {
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(StoreError::Broken(
            "an in-memory SQLite database would be another one for each connection".to_owned(),
        ));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| options::refused(&error))?
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(settings.statement_seconds))
        .foreign_keys(false)
        .pragma("cache_size", "-16384")
        .pragma("wal_autocheckpoint", LOG_PAGES)
        .statement_cache_capacity(256);
    // It stays: with its last connection the log would go, and another one would come.
    let writer: SqlitePoolOptions = pool(settings)
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None);
    // The writer comes first and creates the file, so that the readers never do.
    let writer = open_file(settings, writer, &options).await?;
    let files = Files::new(options.get_filename());
    let most = settings.max_connections - 1;
    let readers: SqlitePoolOptions = pool(settings).max_connections(most);
    // There are many of them, and the system keeps the pages of the file, too.
    let options = options
        .create_if_missing(false)
        .pragma("query_only", "on")
        .pragma("cache_size", "-4096");
    let readers = readers.connect_lazy_with(options);
    let pool = |pool, most| {
        Pool::over(
            SqlxSqliteConnector::from_sqlx_sqlite_pool(pool),
            limits(settings, most),
        )
    };
    Ok(Store {
        files: Some(Arc::new(files)),
        ..Store::over(
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
    async fn a_commit_of_sqlite_is_on_the_disk_and_readers_cannot_write() {
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
            let connection = pool.current();
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
                "wal"
            );
            // 2 is FULL: a commit waits until the log is on the disk.
            assert_eq!(
                ask("synchronous").await.try_get_by_index::<i64>(0).unwrap(),
                2
            );
            assert_eq!(
                ask("query_only").await.try_get_by_index::<i64>(0).unwrap(),
                query_only
            );
        }
    }
}
