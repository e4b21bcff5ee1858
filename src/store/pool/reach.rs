//! Checks whether the database server can be reached, and reports why not.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::{DbErr, SqlxError};

use super::{Pool, ServerConnector};
use crate::store::StoreError;

/// Pause between two attempts to reach the database at startup.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

impl Pool {
    /// Checks with a separate connection that the server can be reached.
    pub(super) async fn probe_server(&self, server: &ServerConnector) -> Result<(), DbErr> {
        let result = match tokio::time::timeout(self.0.acquire_timeout, (server.connect)()).await {
            Ok(Ok(link)) => {
                link.close().await;
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => SqlxError::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no answer",
            )),
        };
        let error = DbErr::Conn(sea_orm::RuntimeErr::SqlxError(Arc::new(result)));
        let text = format!("{}: {error}", server.address);
        *self
            .0
            .last_refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
        Err(error)
    }

    /// Waits up to `wait` for a server that cannot be reached at present.
    pub(in crate::store) async fn wait_for_server(&self, wait: Duration) -> Result<(), StoreError> {
        let Some(server) = &self.0.server else {
            return Ok(());
        };
        let begun = Instant::now();
        let mut logged_at = None;
        loop {
            let Err(error) = self.probe_server(server).await else {
                return Ok(());
            };
            let error = StoreError::from(error);
            let is_over = begun.elapsed() + RETRY_INTERVAL > wait;
            match error {
                StoreError::Unavailable(cause) | StoreError::ConnectionLost(cause) if is_over => {
                    let waited = if wait.is_zero() {
                        String::new()
                    } else {
                        format!(" within {} s", wait.as_secs())
                    };
                    let text = format!("{} cannot be reached{waited}: {cause}", server.address);
                    return Err(StoreError::Unavailable(cause.with_text(text)));
                }
                StoreError::Unavailable(cause) | StoreError::ConnectionLost(cause) => {
                    if logged_at.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(5)) {
                        logged_at = Some(Instant::now());
                        let seconds = (wait - begun.elapsed()).as_secs();
                        tracing::warn!(
                            database = server.address,
                            reason = cause.text(),
                            "waiting for the database, {seconds} s at most"
                        );
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                StoreError::Internal(cause) => {
                    let text = format!("{} refuses: {cause}", server.address);
                    return Err(StoreError::Unavailable(cause.with_text(text)));
                }
                other => return Err(other),
            }
        }
    }
}
