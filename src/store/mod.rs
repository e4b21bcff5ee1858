//! The only place that knows sea-orm and SQL.
//!
//! Reading needs no transaction: every use case reads what belongs together in one statement. Writing happens in
//! `Store::transaction`, which begins again when the database says so (deadlock, serialization failure).
//!
//! Locks are taken in one order everywhere: `user_cursor` by uid, `channel` by id, `conversation` by (channel, uid).
//!
//! How to add a query:
//! 1. A method of `Store` (outside of transactions) or `Tx` (inside) beside its table: `channels`, `conversations`, `messages`,
//!    `cursors`. sea-query builds it, so that every engine gets its own dialect.
//! 2. When it is on the hot path: a line in that file's `hot_statements`; `tests/statements.rs` asks every engine for its plan.

mod channels;
mod connect;
mod conversations;
mod cursors;
mod error;
mod imports;
mod messages;
mod migrate;

use std::future::Future;
use std::time::Duration;

use sea_orm::sea_query::InsertStatement;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

pub use self::channels::Head;
pub use self::conversations::{Changed, ConversationRow, NewConversation, ReadMark, Stamp, State};
pub use self::error::StoreError;
pub use self::messages::{Position, Window};
pub use self::migrate::MigrationStatus;
use crate::config::Database;
use crate::error::Error;

/// How often a transaction is begun again before the caller is told that it is too busy.
const ATTEMPTS: u32 = 20;
/// Rows of one multi-row statement at most: below every engine's limit on parameters.
const ROWS_PER_STATEMENT: usize = 1000;

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    /// For statements outside of transactions. SQLite: connections that only read.
    read: DatabaseConnection,
    /// For transactions. SQLite: one connection, because there is one writer.
    write: DatabaseConnection,
}

/// An open transaction. Dropped without [`Tx::commit`], it is rolled back.
#[derive(Debug)]
pub struct Tx(DatabaseTransaction);

impl Tx {
    /// Commits; only then is there a result to answer with.
    ///
    /// # Errors
    /// What the database says. Nothing was committed, unless the connection broke just then.
    pub async fn commit<T>(self, result: T) -> Result<T, Error> {
        self.0.commit().await.map_err(StoreError::from)?;
        Ok(result)
    }
}

impl Store {
    /// Connects, lazily: the first statement tells whether the database is there.
    ///
    /// # Errors
    /// A URL that is none.
    pub async fn connect(settings: &Database) -> Result<Self, StoreError> {
        connect::connect(settings).await
    }

    /// Does `work` in a transaction, again from its beginning when the database rolled it back for the sake of another.
    ///
    /// # Errors
    /// What `work` fails with.
    pub(crate) async fn transaction<T, Work>(&self, mut work: impl FnMut(Tx) -> Work) -> Result<T, Error>
    where
        Work: Future<Output = Result<T, Error>>,
    {
        // SQLite must say at BEGIN that it is going to write; READ COMMITTED is set on every connection of the others.
        let options =
            TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = match self.write.begin_with_options(options).await {
                Ok(tx) => work(Tx(tx)).await,
                Err(error) => Err(StoreError::from(error).into()),
            };
            match result {
                Err(Error::Store(error)) if error.is_retryable() && attempt < ATTEMPTS => {
                    metrics::counter!("recents_transactions_retried_total").increment(1);
                    tracing::debug!(error = %error, attempt, "a transaction begins again");
                    // A little longer each time, so that the same two do not meet again; no need for randomness: they wake
                    // in the order in which they were rolled back.
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt * attempt).min(100))).await;
                }
                other => return other,
            }
        }
    }

    /// One statement that inserts, again when the database says so.
    async fn insert(&self, statement: &InsertStatement) -> Result<(), Error> {
        self.transaction(|tx| async move {
            tx.0.execute(statement).await.map_err(StoreError::from)?;
            tx.commit(()).await
        })
        .await
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read.execute_unprepared("SELECT 1").await?;
        Ok(())
    }

    /// Closes the connections.
    pub async fn close(&self) {
        for connection in [&self.read, &self.write] {
            if let Err(error) = connection.close_by_ref().await {
                tracing::warn!(error = %error, "a connection did not close");
            }
        }
    }
}

/// The statements of the hot path as text, each with the tables that its plan must never read as a whole: for tests that ask
/// the engines for their plans.
#[doc(hidden)]
#[must_use]
pub fn hot_statements(
    backend: sea_orm::DbBackend,
    uid: &str,
    channel_id: i64,
    small_channel_id: i64,
) -> Vec<(&'static str, String, &'static [&'static str])> {
    let statements =
        conversations::hot_statements(uid, small_channel_id).into_iter().chain(messages::hot_statements(backend, channel_id));
    let text =
        |statement: sea_orm::sea_query::SelectStatement| sea_orm::StatementBuilder::build(&statement, &backend).to_string();
    statements.map(|(name, statement, tables)| (name, text(statement), tables)).collect()
}
