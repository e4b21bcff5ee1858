//! Classification of database errors.

use sea_orm::sqlx::error::{DatabaseError, ErrorKind};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError};

/// A database error, classified by the possible reactions. The texts are for the log only.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Rolled back because of a concurrent transaction. The transaction can be retried.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The connection broke, or COMMIT failed without a rollback. It is not known whether the
    /// transaction was committed, so it must not be retried.
    #[error("connection lost: {0}")]
    ConnectionLost(String),
    /// The database cannot be reached, is starting, full, read-only or too slow. The request can be
    /// repeated later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The database file is corrupt. An operator must repair it.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Any other error: a mistake in this program.
    #[error("internal: {0}")]
    Internal(String),
}

impl StoreError {
    /// Returns whether the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Conflict(_) | Self::ConnectionLost(_) | Self::Unavailable(_) | Self::Damaged(_)
        )
    }

    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }

    /// The text for clients.
    pub(crate) fn public_text(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "too busy just now, try again",
            Self::ConnectionLost(_) => {
                "the database did not confirm this, so its outcome is not known: repeating it is safe (for a message: with the \
                 same client_msg_no), try again"
            }
            Self::Unavailable(_) | Self::Damaged(_) => {
                "the database cannot be reached just now, try again"
            }
            Self::Internal(_) => "internal error",
        }
    }

    /// Classifies an error of COMMIT. A transaction may be retried only after a certain rollback:
    /// every other error leaves open whether the database committed, whatever the same code means
    /// for a statement.
    pub(super) fn from_commit_error(error: &DbErr) -> Self {
        let text = format!("COMMIT: {error}");
        if was_rolled_back(error) {
            Self::Conflict(text)
        } else {
            Self::ConnectionLost(text)
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
        // Deadlock. A Galera node reports the same code when the certification of the transaction
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
            _ => Self::Internal(text),
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
        SqlxError::Io(_) | SqlxError::Protocol(_) => StoreError::ConnectionLost(text),
        SqlxError::Tls(_)
        | SqlxError::PoolTimedOut
        | SqlxError::PoolClosed
        | SqlxError::WorkerCrashed
        | SqlxError::BeginFailed => StoreError::Unavailable(text),
        SqlxError::Database(error) => classify_database(error.as_ref(), text),
        _ => StoreError::Internal(text),
    }
}

fn classify_database(error: &dyn DatabaseError, text: String) -> StoreError {
    // Two transactions inserted the same row at the same time: the next attempt finds it.
    if error.kind() == ErrorKind::UniqueViolation {
        return StoreError::Conflict(text);
    }
    let code = error.code().unwrap_or_default();
    if let Some(mysql) = error.try_downcast_ref::<sea_orm::SqlxMySqlError>() {
        return match mysql.number() {
            // Lock wait timeout, deadlock, lock table full, snapshot isolation (record has changed
            // since last read); TiDB: write conflict, schema changed, can be retried.
            1020 | 1205 | 1206 | 1213 | 8002 | 8022 | 8028 | 9007 => StoreError::Conflict(text),
            // Two migrations on two Galera nodes created, or dropped, the same table, column or
            // index: the next attempt sees it.
            1050 | 1051 | 1060 | 1061 | 1091 => StoreError::Conflict(text),
            // Missing savepoint: the transaction was rolled back after our marker. A missing
            // function or procedure has the same number.
            1305 if mysql.message().starts_with("SAVEPOINT") => StoreError::Conflict(text),
            // Connection killed, disconnected by the server.
            1927 | 4031 => StoreError::ConnectionLost(text),
            // Too many connections (1226: of this user), shutting down, disk full, read-only (1290,
            // 1792, 1836), out of resources, killed (1317), statement timeout (1969 MariaDB, 3024
            // MySQL), host blocked or unknown, a node of a cluster that is not ready (1047) or lost
            // the majority while it committed (1180).
            1021 | 1037 | 1040 | 1041 | 1047 | 1053 | 1114 | 1129 | 1135 | 1180 | 1203 | 1226
            | 1290 | 1317 | 1792 | 1836 | 1969 | 3024 | 3100 => StoreError::Unavailable(text),
            _ => StoreError::Internal(text),
        };
    }
    if error
        .try_downcast_ref::<sea_orm::SqlxPostgresError>()
        .is_some()
    {
        return match code.as_ref() {
            // Serialization failure, deadlock, lock not available.
            "40001" | "40P01" | "55P03" => StoreError::Conflict(text),
            // Ended by an administrator or a crash, or idle or running for too long.
            "57P01" | "57P02" | "25P03" | "25P04" => StoreError::ConnectionLost(text),
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
            _ => StoreError::Internal(text),
        };
    }
    // SQLite: the low byte of an extended code is the primary code.
    match code.parse::<i32>().map(|code| code & 0xff) {
        // BUSY, LOCKED
        Ok(5 | 6) => StoreError::Conflict(text),
        // PERM, INTERRUPT, READONLY, IOERR, FULL, CANTOPEN
        Ok(3 | 8 | 9 | 10 | 13 | 14) => StoreError::Unavailable(text),
        // CORRUPT, NOTADB
        Ok(11 | 26) => StoreError::Damaged(text),
        _ => StoreError::Internal(text),
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Database, TransactionTrait};

    use super::*;

    #[tokio::test]
    async fn only_a_commit_with_certain_rollback_is_retried() {
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
        let busy = StoreError::from_commit_error(&writer.commit().await.unwrap_err());
        assert!(matches!(busy, StoreError::Conflict(_)), "{busy:?}");
        reader.rollback().await.unwrap();

        let writer = connection.begin().await.unwrap();
        writer
            .execute_unprepared("INSERT INTO other VALUES (7)")
            .await
            .unwrap();
        let refused = StoreError::from_commit_error(&writer.commit().await.unwrap_err());
        assert!(
            matches!(refused, StoreError::ConnectionLost(_)),
            "{refused:?}"
        );
    }
}
