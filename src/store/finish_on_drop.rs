//! Futures that run to completion even if their caller is cancelled.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sea_orm::sqlx::Connection;
use tokio::runtime::Handle;

/// A future that continues in its own task if it is dropped after its first poll. No task is needed
/// while a caller waits for it, so the only cost is one allocation.
///
/// A statement whose result nobody reads leaves its connection in an unknown state: a transaction
/// may be open, or a result may be on its way. Therefore all database calls go through this type.
pub(super) struct FinishOnDrop<T: Send + 'static> {
    work: Option<BoxFuture<'static, T>>,
    started: bool,
    timeout: Duration,
}

/// Wraps `work`. After a drop it continues for at most `timeout`, in case not even the database
/// ends it.
pub(super) fn finish_on_drop<T: Send + 'static>(
    timeout: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> FinishOnDrop<T> {
    FinishOnDrop {
        work: Some(Box::pin(work)),
        started: false,
        timeout,
    }
}

impl<T: Send + 'static> Future for FinishOnDrop<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.started = true;
        // Taken out, so that work that panics is not polled again.
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

impl<T: Send + 'static> Drop for FinishOnDrop<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && self.started
        {
            metrics::counter!(crate::metrics::SQL_ABANDONED_TOTAL).increment(1);
            spawn_with_timeout(self.timeout, work);
        }
    }
}

/// Runs `work` in its own task, for at most `timeout`.
pub(super) fn spawn_with_timeout<T: Send + 'static>(
    timeout: Duration,
    work: impl Future<Output = T> + Send + 'static,
) {
    // Without a runtime the process is ending, and its connections with it.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            let mut work = std::pin::pin!(work);
            if tokio::time::timeout(timeout, &mut work).await.is_err() {
                // Counted before `work` is dropped and its connection returns to the pool.
                ABANDONED.fetch_add(1, Ordering::SeqCst);
                tracing::warn!("an abandoned statement timed out: closing its connection");
            }
        });
    }
}

/// Number of statements that timed out in the background and whose connections have not returned to
/// the pool yet.
static ABANDONED: AtomicU32 = AtomicU32::new(0);
/// Time limit of the check of a returned connection.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns whether a returned connection can be used again. Every transaction is committed or
/// rolled back before that; if the rollback failed, the connection has an unsent ROLLBACK and is
/// closed, and the database then rolls back. This check needs no round trip, except after an
/// abandoned statement, because it is not known which connection ran it.
pub(super) async fn is_clean<C: Connection>(connection: &mut C) -> bool {
    if connection.should_flush() || connection.is_in_transaction() {
        return false;
    }
    if ABANDONED.load(Ordering::SeqCst) == 0 {
        return true;
    }
    if matches!(
        tokio::time::timeout(PING_TIMEOUT, connection.ping()).await,
        Ok(Ok(()))
    ) {
        return true;
    }
    let _ = ABANDONED.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
        count.checked_sub(1)
    });
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn polled_futures_finish_and_unpolled_futures_never_start() {
        let done = Arc::new(AtomicUsize::new(0));
        let work = || {
            let done = Arc::clone(&done);
            finish_on_drop(TIMEOUT, async move {
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
    async fn a_hung_future_is_dropped_after_its_timeout() {
        struct NotifyOnDrop(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for NotifyOnDrop {
            fn drop(&mut self) {
                let _ = self.0.take().map(|sender| sender.send(()));
            }
        }
        let (sender, dropped) = tokio::sync::oneshot::channel();
        let held = NotifyOnDrop(Some(sender));
        let endless = finish_on_drop(Duration::from_millis(10), async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(1), endless)
                .await
                .is_err()
        );
        tokio::time::timeout(TIMEOUT, dropped)
            .await
            .unwrap()
            .unwrap();
    }
}
