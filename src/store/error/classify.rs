//! Classifies the errors of the three databases.

use std::sync::Arc;

use sea_orm::sqlx::error::{DatabaseError, ErrorKind};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError};

use super::{Cause, StoreError};

/// Returns the error of sqlx behind an error of sea-orm.
pub(super) fn sqlx_error(error: &DbErr) -> Option<&Arc<SqlxError>> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(inner))
        | DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

pub(super) fn was_rolled_back(error: &DbErr) -> bool {
    let Some(error) = sqlx_error(error).and_then(|inner| inner.as_database_error()) else {
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
        let cause = Cause::from(&error);
        match &error {
            DbErr::ConnectionAcquire(
                ConnAcquireErr::Timeout | ConnAcquireErr::ConnectionClosed,
            ) => Self::Unavailable(cause),
            _ => match sqlx_error(&error) {
                Some(inner) => classify(inner, cause),
                None => Self::Internal(cause),
            },
        }
    }
}

impl From<SqlxError> for StoreError {
    fn from(error: SqlxError) -> Self {
        let error = Arc::new(error);
        classify(&error, Cause::from(Arc::clone(&error)))
    }
}

fn classify(error: &SqlxError, cause: Cause) -> StoreError {
    match error {
        SqlxError::Io(_) | SqlxError::Protocol(_) => StoreError::ConnectionLost(cause),
        SqlxError::Tls(_)
        | SqlxError::PoolTimedOut
        | SqlxError::PoolClosed
        | SqlxError::WorkerCrashed
        | SqlxError::BeginFailed => StoreError::Unavailable(cause),
        SqlxError::Database(error) => classify_database(error.as_ref(), cause),
        _ => StoreError::Internal(cause),
    }
}

fn classify_database(error: &dyn DatabaseError, cause: Cause) -> StoreError {
    // Two transactions inserted the same row at the same time: the next attempt finds it.
    if error.kind() == ErrorKind::UniqueViolation {
        return StoreError::Conflict(cause);
    }
    let code = error.code().unwrap_or_default();
    if let Some(mysql) = error.try_downcast_ref::<sea_orm::SqlxMySqlError>() {
        return match mysql.number() {
            // Lock wait timeout, deadlock, lock table full, snapshot isolation (record has changed
            // since last read); TiDB: write conflict, schema changed, can be retried.
            1020 | 1205 | 1206 | 1213 | 8002 | 8022 | 8028 | 9007 => StoreError::Conflict(cause),
            // Two migrations on two Galera nodes created, or dropped, the same table, column or
            // index: the next attempt sees it.
            1050 | 1051 | 1060 | 1061 | 1091 => StoreError::Conflict(cause),
            // Missing savepoint: the transaction was rolled back after our marker. A missing
            // function or procedure has the same number.
            1305 if mysql.message().starts_with("SAVEPOINT") => StoreError::Conflict(cause),
            // Connection killed, disconnected by the server.
            1927 | 4031 => StoreError::ConnectionLost(cause),
            // Too many connections (1226: of this user), shutting down, disk full, read-only (1290,
            // 1792, 1836), out of resources, killed (1317), statement timeout (1969 MariaDB, 3024
            // MySQL), host blocked or unknown, a node of a cluster that is not ready (1047) or lost
            // the majority while it committed (1180).
            1021 | 1037 | 1040 | 1041 | 1047 | 1053 | 1114 | 1129 | 1135 | 1180 | 1203 | 1226
            | 1290 | 1317 | 1792 | 1836 | 1969 | 3024 | 3100 => StoreError::Unavailable(cause),
            _ => StoreError::Internal(cause),
        };
    }
    if error
        .try_downcast_ref::<sea_orm::SqlxPostgresError>()
        .is_some()
    {
        return match code.as_ref() {
            // Serialization failure, deadlock, lock not available.
            "40001" | "40P01" | "55P03" => StoreError::Conflict(cause),
            // Ended by an administrator or a crash, or idle or running for too long.
            "57P01" | "57P02" | "25P03" | "25P04" => StoreError::ConnectionLost(cause),
            // Connection exceptions, insufficient resources (disk, memory, connections), operator
            // intervention (shutdown, starting, statement timeout), read-only transaction, system
            // errors.
            _ if ["08", "53", "57", "58"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "25006" =>
            {
                StoreError::Unavailable(cause)
            }
            _ => StoreError::Internal(cause),
        };
    }
    // SQLite: the low byte of an extended code is the primary code.
    match code.parse::<i32>().map(|code| code & 0xff) {
        // BUSY, LOCKED
        Ok(5 | 6) => StoreError::Conflict(cause),
        // PERM, INTERRUPT, READONLY, IOERR, FULL, CANTOPEN
        Ok(3 | 8 | 9 | 10 | 13 | 14) => StoreError::Unavailable(cause),
        // CORRUPT, NOTADB
        Ok(11 | 26) => StoreError::Damaged(cause),
        _ => StoreError::Internal(cause),
    }
}
