//! Webhooks: stored here and sent to every target, at the same time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use super::attempts::{Attempts, Progress};
use super::places::Places;
use super::request::ForwardedRequest;
use super::target::Target;
use crate::budget::spawn_in_request;
use crate::error::Error;

/// Maximum number of webhooks that are still being stored after their time limit.
const MAX_LATE_STORES: usize = 64;

/// Forwards webhooks.
#[derive(Clone, Debug)]
pub(crate) struct WebhookForwarder(Arc<WebhookForwarderInner>);

#[derive(Debug)]
struct WebhookForwarderInner {
    targets: Vec<Target>,
    places: Arc<Places>,
    attempts: Attempts,
    late_stores: Arc<Semaphore>,
    time_limit: Duration,
}

impl WebhookForwarder {
    pub(super) fn new(targets: Vec<Target>, places: Arc<Places>, time_limit: Duration) -> Self {
        Self(Arc::new(WebhookForwarderInner {
            targets,
            places,
            attempts: Attempts::new(),
            late_stores: Arc::new(Semaphore::new(MAX_LATE_STORES)),
            time_limit,
        }))
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.0.targets.iter()
    }

    /// Stores a webhook with `store`, and sends it to the targets; of a repeat only what is not done
    /// yet. All of it goes on when the caller is gone, so that the repeat finds it done.
    ///
    /// # Errors
    /// An error of the server, of `store` before that of a target. Then a refusal by `store`: the
    /// targets have taken the webhook in that case, and a repeat does not reach them again.
    pub(crate) async fn deliver(
        &self,
        request: ForwardedRequest,
        store: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Result<(), Error> {
        let this = Arc::clone(&self.0);
        let (sender, answer) = oneshot::channel();
        spawn_in_request(async move {
            let progress =
                this.attempts
                    .progress(&request.event, &request.body, this.targets.len());
            let deadline = Instant::now() + this.time_limit;
            let (stored, forwarded) = tokio::join!(
                this.store(store, &progress, deadline),
                this.forward(&request, &progress, deadline)
            );
            let result = combine(stored, forwarded);
            let is_done = result.is_ok();
            // A caller that is gone does not know the result, and sends the webhook again.
            if sender.send(result).is_ok() && is_done {
                this.attempts.forget(&progress);
            }
        });
        answer
            .await
            .unwrap_or(Err(Error::Internal("forwarding a webhook was aborted")))
    }
}

impl WebhookForwarderInner {
    /// Stores a webhook. If that takes too long, it goes on, and the repeat waits for its outcome.
    async fn store(
        &self,
        store: impl Future<Output = Result<(), Error>> + Send + 'static,
        progress: &Arc<Progress>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let progress = Arc::clone(progress);
        let mut storing = spawn_in_request(async move {
            let mut stored = progress.stored.lock().await;
            if !*stored {
                store.await?;
                *stored = true;
            }
            Ok(())
        });
        if let Ok(result) = timeout_at(deadline, &mut storing).await {
            return result.unwrap_or(Err(Error::Internal("storing a webhook was aborted")));
        }
        match Arc::clone(&self.late_stores).try_acquire_owned() {
            Ok(permit) => drop(tokio::spawn(async move {
                let _ = storing.await;
                drop(permit);
            })),
            Err(_) => storing.abort(),
        }
        Err(Error::Timeout)
    }

    /// Sends a webhook to the targets that have not taken it yet.
    async fn forward(
        &self,
        request: &ForwardedRequest,
        progress: &Progress,
        deadline: Instant,
    ) -> Result<(), Error> {
        let _place = self.places.take(request.body.len())?;
        let sent = self
            .targets
            .iter()
            .zip(&progress.taken)
            .map(async |(target, taken)| {
                let Ok(mut taken) = timeout_at(deadline, taken.lock()).await else {
                    return Err(Error::Timeout);
                };
                if *taken {
                    target.count("known");
                } else {
                    target.send(request, self.time_limit, deadline).await?;
                    *taken = true;
                }
                Ok(())
            });
        join_all(sent).await.into_iter().collect()
    }
}

/// Combines the results. A refusal of the body by this server comes last, because it is the only
/// one that no repeat can change.
fn combine(stored: Result<(), Error>, forwarded: Result<(), Error>) -> Result<(), Error> {
    match stored {
        Err(error) if error.kind().status.is_server_error() => Err(error),
        stored => forwarded.and(stored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_body_is_answered_as_such_only_if_the_targets_have_taken_it() {
        let refused = || Err(Error::BadRequest("no".into()));
        let failed = || Err(Error::ForwardFailed("failed".into()));
        for (stored, forwarded, expected) in [
            (Ok(()), Ok(()), None),
            (refused(), Ok(()), Some("no")),
            (refused(), failed(), Some("failed")),
            (Ok(()), failed(), Some("failed")),
            (
                Err(Error::Timeout),
                failed(),
                Some("the request took too long, try again"),
            ),
        ] {
            let combined = combine(stored, forwarded).err();
            assert_eq!(combined.map(|error| error.to_string()).as_deref(), expected);
        }
    }
}
