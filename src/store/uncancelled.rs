//! Work that is not stopped half-way when nobody waits for it any more.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sea_orm::sqlx::Connection;
use tokio::runtime::Handle;

/// A future that a drop does not end: once it was begun it goes on by itself, in a task of its own.
/// As long as somebody waits for it there is no task, so it costs an allocation and nothing else.
///
/// A statement whose answer nobody reads leaves its connection in a state that nobody knows: a
/// transaction may be open, an answer that is for no one on its way. So everything that is asked of
/// the database is asked through this.
pub(super) struct Uncancelled<T: Send + 'static> {
    work: Option<BoxFuture<'static, T>>,
    begun: bool,
    patience: Duration,
}

/// What `work` says. Given up, it goes on for as long as `patience`: then not even the database
/// ends it.
pub(super) fn uncancelled<T: Send + 'static>(
    patience: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Uncancelled<T> {
    Uncancelled {
        work: Some(Box::pin(work)),
        begun: false,
        patience,
    }
}

impl<T: Send + 'static> Future for Uncancelled<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        // Taken out, so that one that panics is not begun again.
        let Some(mut work) = self.work.take() else {
            return Poll::Pending;
        };
        let answer = work.as_mut().poll(context);
        if answer.is_pending() {
            self.work = Some(work);
        }
        answer
    }
}

impl<T: Send + 'static> Drop for Uncancelled<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && self.begun
        {
            metrics::counter!("recents_sql_abandoned_total").increment(1);
            go_on(self.patience, work);
        }
    }
}

/// Does `work` in a task of its own.
pub(super) fn go_on<T: Send + 'static>(
    patience: Duration,
    work: impl Future<Output = T> + Send + 'static,
) {
    // Without a runtime the process ends, and its connections with it.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            let mut work = std::pin::pin!(work);
            if tokio::time::timeout(patience, &mut work).await.is_err() {
                // Before `work` is dropped and its connection comes back.
                UNFINISHED.fetch_add(1, Ordering::SeqCst);
                tracing::warn!("the database does not end a statement that nobody waits for: its connection is closed");
            }
        });
    }
}

/// Work that was given up although it had not ended, whose connections have not come back yet.
static UNFINISHED: AtomicU32 = AtomicU32::new(0);
/// How long a connection may take to answer then.
const PING: Duration = Duration::from_secs(1);

/// Whether a connection that comes back can be used again. Every transaction is committed or rolled
/// back before; one where that failed has a ROLLBACK that was not sent, and is closed: the database
/// then rolls back by itself. Nothing is asked of the database for it, but where a statement was
/// given up: nobody knows which connection that was.
pub(super) async fn is_clean<C: Connection>(connection: &mut C) -> bool {
    if connection.should_flush() || connection.is_in_transaction() {
        return false;
    }
    if UNFINISHED.load(Ordering::SeqCst) == 0 {
        return true;
    }
    if matches!(
        tokio::time::timeout(PING, connection.ping()).await,
        Ok(Ok(()))
    ) {
        return true;
    }
    let _ = UNFINISHED.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
        count.checked_sub(1)
    });
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn what_was_begun_is_finished_and_what_was_not_is_not_begun() {
        let done = Arc::new(AtomicUsize::new(0));
        let work = || {
            let done = Arc::clone(&done);
            uncancelled(PATIENCE, async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                done.fetch_add(1, Ordering::SeqCst)
            })
        };
        assert_eq!(work().await, 0);
        let given_up = tokio::time::timeout(Duration::from_millis(1), work()).await;
        assert!(given_up.is_err());
        drop(work());
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn what_never_ends_is_dropped_in_the_end() {
        struct Told(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.take().map(|sender| sender.send(()));
            }
        }
        let (sender, told) = tokio::sync::oneshot::channel();
        let held = Told(Some(sender));
        let endless = uncancelled(Duration::from_millis(10), async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(1), endless)
                .await
                .is_err()
        );
        tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
    }
}
