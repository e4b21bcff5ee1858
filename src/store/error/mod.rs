//! Classification of database errors.

mod cause;
mod classify;

use std::error::Error;
use std::fmt;

use sea_orm::DbErr;

pub use self::cause::Cause;
use self::classify::was_rolled_back;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sea_orm::{ConnectionTrait, Database, RuntimeErr, SqlxError, TransactionTrait};

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
            assert!(
                matches!(source.downcast_ref::<SqlxError>(), Some(SqlxError::Tls(_))),
                "{error:?}"
            );
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
