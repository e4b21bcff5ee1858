//! What a failing database means, decided in one place.

use sea_orm::sqlx::error::{DatabaseError, ErrorKind};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError};

/// A failure of the database, by what can be done about it. The texts are for the log only.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Rolled back for the sake of another transaction: begin again.
    #[error("contended: {0}")]
    Contended(String),
    /// The connection broke, or COMMIT failed without a rollback. Whether it was committed is not
    /// known, so nothing may begin again.
    #[error("connection lost: {0}")]
    Lost(String),
    /// Cannot be reached, is starting, full, read-only, or too slow: try later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The database's file holds what is no database: somebody must look at it.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Anything else is our mistake.
    #[error("broken: {0}")]
    Broken(String),
}

impl StoreError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Contended(_) | Self::Lost(_) | Self::Unavailable(_) | Self::Damaged(_)
        )
    }

    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Contended(_))
    }

    /// What a caller may read.
    pub(crate) fn public_text(&self) -> &'static str {
        match self {
            Self::Contended(_) => "too busy just now, try again",
            Self::Lost(_) => {
                "the database did not confirm this, so its outcome is not known: repeating it is safe (for a message: with the \
                 same client_msg_no), try again"
            }
            Self::Unavailable(_) | Self::Damaged(_) => {
                "the database cannot be reached just now, try again"
            }
            Self::Broken(_) => "internal error",
        }
    }

    /// The meaning of a failed COMMIT. Only after a sure rollback may a transaction begin again:
    /// every other error leaves open whether the database committed, whatever the same code means
    /// after a statement.
    pub(super) fn of_commit(error: &DbErr) -> Self {
        let text = format!("COMMIT: {error}");
        if was_rolled_back(error) {
            Self::Contended(text)
        } else {
            Self::Lost(text)
        }
    }
}

fn was_rolled_back(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(inner))
    | DbErr::Exec(RuntimeErr::SqlxError(inner))
    | DbErr::Query(RuntimeErr::SqlxError(inner))) = error
    else {
        return false;
    };
    let Some(error) = inner.as_database_error() else {
        return false;
    };
    let code = error.code().unwrap_or_default();
    if let Some(mysql) = error.try_downcast_ref::<sea_orm::SqlxMySqlError>() {
        // Deadlock; a node of a cluster says the same when its certification of the transaction
        // fails.
        return mysql.number() == 1213;
    }
    if error
        .try_downcast_ref::<sea_orm::SqlxPostgresError>()
        .is_some()
    {
        // Serialization failure, deadlock.
        return ["40001", "40P01"].contains(&code.as_ref());
    }
    // SQLite: after BUSY and LOCKED the transaction is still open, and dropping it rolls it back.
    matches!(code.parse::<i32>().map(|code| code & 0xff), Ok(5 | 6))
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        let text = error.to_string();
        match &error {
            DbErr::ConnectionAcquire(
                ConnAcquireErr::Timeout | ConnAcquireErr::ConnectionClosed,
            ) => Self::Unavailable(text),
            DbErr::Conn(RuntimeErr::SqlxError(inner))
            | DbErr::Exec(RuntimeErr::SqlxError(inner))
            | DbErr::Query(RuntimeErr::SqlxError(inner)) => classify(inner, text),
            _ => Self::Broken(text),
        }
    }
}

impl From<SqlxError> for StoreError {
    fn from(error: SqlxError) -> Self {
        classify(&error, error.to_string())
    }
}

fn classify(error: &SqlxError, text: String) -> StoreError {
    match error {
        SqlxError::Io(_) | SqlxError::Protocol(_) => StoreError::Lost(text),
        SqlxError::Tls(_)
        | SqlxError::PoolTimedOut
        | SqlxError::PoolClosed
        | SqlxError::WorkerCrashed
        | SqlxError::BeginFailed => StoreError::Unavailable(text),
        SqlxError::Database(error) => classify_database(error.as_ref(), text),
        _ => StoreError::Broken(text),
    }
}

fn classify_database(error: &dyn DatabaseError, text: String) -> StoreError {
    // Two that inserted the same row at once: the next attempt finds it.
    if error.kind() == ErrorKind::UniqueViolation {
        return StoreError::Contended(text);
    }
    let code = error.code().unwrap_or_default();
    if let Some(mysql) = error.try_downcast_ref::<sea_orm::SqlxMySqlError>() {
        return match mysql.number() {
            // Lock wait timeout, deadlock, lock table full, snapshot isolation (record has changed
            // since last read); TiDB: write conflict, schema changed, can be retried.
            1020 | 1205 | 1206 | 1213 | 8002 | 8022 | 8028 | 9007 => StoreError::Contended(text),
            // Two migrations on two nodes of a cluster that made, or removed, the same table,
            // column or index: the next attempt finds it.
            1050 | 1051 | 1060 | 1061 | 1091 => StoreError::Contended(text),
            // No savepoint: our mark at the beginning was rolled back meanwhile. A function or
            // procedure that does not exist has the same number.
            1305 if mysql.message().starts_with("SAVEPOINT") => StoreError::Contended(text),
            // Connection killed, disconnected by the server.
            1927 | 4031 => StoreError::Lost(text),
            // Too many connections (1226: of this user), shutting down, disk full, read-only (1290,
            // 1792, 1836), out of resources, killed (1317), statement timeout (1969 MariaDB, 3024
            // MySQL), host blocked or unknown, a node of a cluster that is not ready (1047) or lost
            // the majority while it committed (1180).
            1021 | 1037 | 1040 | 1041 | 1047 | 1053 | 1114 | 1129 | 1135 | 1180 | 1203 | 1226
            | 1290 | 1317 | 1792 | 1836 | 1969 | 3024 | 3100 => StoreError::Unavailable(text),
            _ => StoreError::Broken(text),
        };
    }
    if error
        .try_downcast_ref::<sea_orm::SqlxPostgresError>()
        .is_some()
    {
        return match code.as_ref() {
            // Serialization failure, deadlock, lock not available.
            "40001" | "40P01" | "55P03" => StoreError::Contended(text),
            // Ended by an administrator or a crash; the transaction was idle, or took, too long.
            "57P01" | "57P02" | "25P03" | "25P04" => StoreError::Lost(text),
            // Connection exceptions, insufficient resources (disk, memory, connections), operator
            // intervention (shutdown, starting, statement timeout), read-only transaction, system
            // errors.
            _ if ["08", "53", "57", "58"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "25006" =>
            {
                StoreError::Unavailable(text)
            }
            _ => StoreError::Broken(text),
        };
    }
    // SQLite: the low byte of an extended code is its kind.
    match code.parse::<i32>().map(|code| code & 0xff) {
        // BUSY, LOCKED
        Ok(5 | 6) => StoreError::Contended(text),
        // PERM, INTERRUPT, READONLY, IOERR, FULL, CANTOPEN
        Ok(3 | 8 | 9 | 10 | 13 | 14) => StoreError::Unavailable(text),
        // CORRUPT, NOTADB
        Ok(11 | 26) => StoreError::Damaged(text),
        _ => StoreError::Broken(text),
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Database, TransactionTrait};

    use super::*;

    #[tokio::test]
    async fn only_a_commit_that_was_surely_rolled_back_may_begin_again() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", folder.path().join("db").display());
        let connection = Database::connect(&url).await.unwrap();
        connection
            .execute_unprepared("CREATE TABLE one (id INTEGER PRIMARY KEY)")
            .await
            .unwrap();
        let other =
            "CREATE TABLE other (id INTEGER REFERENCES one (id) DEFERRABLE INITIALLY DEFERRED)";
        connection.execute_unprepared(other).await.unwrap();

        // Without a write-ahead log a reader keeps a writer from committing.
        let reader = Database::connect(&url)
            .await
            .unwrap()
            .begin()
            .await
            .unwrap();
        reader
            .execute_unprepared("SELECT * FROM one")
            .await
            .unwrap();
        let writer = connection.begin().await.unwrap();
        writer
            .execute_unprepared("PRAGMA busy_timeout = 0; INSERT INTO one VALUES (1)")
            .await
            .unwrap();
        let busy = StoreError::of_commit(&writer.commit().await.unwrap_err());
        assert!(matches!(busy, StoreError::Contended(_)), "{busy:?}");
        reader.rollback().await.unwrap();

        let writer = connection.begin().await.unwrap();
        writer
            .execute_unprepared("INSERT INTO other VALUES (7)")
            .await
            .unwrap();
        let refused = StoreError::of_commit(&writer.commit().await.unwrap_err());
        assert!(matches!(refused, StoreError::Lost(_)), "{refused:?}");
    }
}
