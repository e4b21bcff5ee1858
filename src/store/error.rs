//! Classification of database errors.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use sea_orm::sqlx::error::{DatabaseError, ErrorKind};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError};

/// A database error, classified by the possible reactions. The texts are for the log only.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// Rolled back because of a concurrent transaction. The transaction can be retried.
    Conflict(Cause),
    /// The connection broke, or COMMIT failed without a rollback. It is not known whether the
    /// transaction was committed, so it must not be retried.
    ConnectionLost(Cause),
    /// The database cannot be reached, is starting, full, read-only or too slow. The request can be
    /// repeated later.
    Unavailable(Cause),
    /// The database file is corrupt. An operator must repair it.
    Damaged(Cause),
    /// Any other error: a mistake in this program.
    Internal(Cause),
}

/// The cause of a [`StoreError`]: a text, and the error of the library if there is one.
#[derive(Clone)]
pub struct Cause {
    text: Cow<'static, str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Cause {
    /// Returns the text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Replaces the text and keeps the error of the library.
    pub(super) fn with_text(self, text: String) -> Self {
        Self {
            text: text.into(),
            ..self
        }
    }
}

impl From<&'static str> for Cause {
    fn from(text: &'static str) -> Self {
        Self {
            text: text.into(),
            source: None,
        }
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self {
            text: text.into(),
            source: None,
        }
    }
}

impl From<&DbErr> for Cause {
    fn from(error: &DbErr) -> Self {
        let source: Arc<dyn Error + Send + Sync> = match sqlx_error(error) {
            // sea-orm has the text of this error, but does not name it as a source.
            Some(inner) => Arc::<SqlxError>::clone(inner),
            None => Arc::new(error.clone()),
        };
        Self {
            text: error.to_string().into(),
            source: Some(source),
        }
    }
}

impl From<Arc<SqlxError>> for Cause {
    fn from(error: Arc<SqlxError>) -> Self {
        Self {
            text: error.to_string().into(),
            source: Some(error),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Shows the text only: the debug form of a library's error contains values of rows.
impl fmt::Debug for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self {
            Self::Conflict(_) => "conflict",
            Self::ConnectionLost(_) => "connection lost",
            Self::Unavailable(_) => "unavailable",
            Self::Damaged(_) => "damaged",
            Self::Internal(_) => "internal",
        };
        write!(formatter, "{class}: {}", self.as_cause())
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.as_cause().source.as_deref()?;
        Some(source)
    }
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

    fn as_cause(&self) -> &Cause {
        match self {
            Self::Conflict(cause)
            | Self::ConnectionLost(cause)
            | Self::Unavailable(cause)
            | Self::Damaged(cause)
            | Self::Internal(cause) => cause,
        }
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
        let cause = Cause::from(error).with_text(format!("COMMIT: {error}"));
        if was_rolled_back(error) {
            Self::Conflict(cause)
        } else {
            Self::ConnectionLost(cause)
        }
    }
}

/// Returns the error of sqlx behind an error of sea-orm.
fn sqlx_error(error: &DbErr) -> Option<&Arc<SqlxError>> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(inner))
        | DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

fn was_rolled_back(error: &DbErr) -> bool {
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

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Database, TransactionTrait};

    use super::*;
    use crate::telemetry::text_with_sources;

    /// An error of TLS, whose text lacks that of its source.
    #[derive(Debug, thiserror::Error)]
    #[error("the certificate was refused")]
    struct CertificateError(#[source] std::io::Error);

    fn tls_error() -> DbErr {
        let inner = CertificateError(std::io::Error::other("it has expired"));
        DbErr::Conn(RuntimeErr::SqlxError(Arc::new(SqlxError::Tls(
            inner.into(),
        ))))
    }

    #[test]
    fn source_is_the_error_of_the_library() {
        for error in [
            StoreError::from(tls_error()),
            StoreError::from_commit_error(&tls_error()),
        ] {
            let source = error.source().unwrap();
            assert!(matches!(
                source.downcast_ref::<SqlxError>(),
                Some(SqlxError::Tls(_))
            ));
            let text = text_with_sources(&error);
            assert!(
                text.ends_with("TLS connection: the certificate was refused: it has expired"),
                "{text}"
            );
            assert_eq!(text.matches("the certificate").count(), 1, "{text}");
        }
        let error = StoreError::from(SqlxError::PoolTimedOut);
        assert!(error.source().unwrap().is::<SqlxError>());
        let error = StoreError::from(DbErr::Custom("why".to_owned()));
        assert!(error.source().unwrap().is::<DbErr>());
        assert!(StoreError::Internal("why".into()).source().is_none());
    }

    #[test]
    fn another_text_keeps_class_and_source() {
        let cause = Cause::from(&tls_error()).with_text("the server refuses".to_owned());
        let error = StoreError::Unavailable(cause);
        assert_eq!(error.to_string(), "unavailable: the server refuses");
        assert_eq!(format!("{error:?}"), r#"Unavailable("the server refuses")"#);
        assert!(error.source().is_some());
    }

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
