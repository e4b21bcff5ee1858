//! Repeats work that failed because of the database.

use std::future::Future;
use std::time::Duration;

use crate::error::Error;

/// The first delay after a failure of the database; it doubles each time up to the maximum.
const RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Repeats `work` until it succeeds or fails permanently.
pub(super) async fn retry_transient<T, Work: Future<Output = Result<T, Error>>>(
    mut work: impl FnMut() -> Work,
) -> Result<T, Error> {
    let mut delay = RETRY_DELAY;
    loop {
        match work().await {
            Err(error) if error.is_transient() => {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_RETRY_DELAY);
            }
            result => return result,
        }
    }
}
