use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

type TestBatch = Vec<Arc<u64>>;

/// Runs batches with a closure.
struct TestHandler<R>(
    Box<dyn Fn(TestBatch, LockPolicy) -> BoxFuture<'static, BatchResult<R>> + Send + Sync>,
);

impl<R: Send + 'static> BatchHandler for TestHandler<R> {
    type Request = u64;
    type Reply = R;

    async fn run(&self, batch: TestBatch, lock_policy: LockPolicy) -> BatchResult<R> {
        (self.0)(batch, lock_policy).await
    }
}

fn batcher<R, Run>(
    timeout: Duration,
    run: impl Fn(TestBatch, LockPolicy) -> Run + Send + Sync + 'static,
) -> Arc<Batcher<TestHandler<R>>>
where
    R: Send + 'static,
    Run: Future<Output = BatchResult<R>> + Send + 'static,
{
    let handler = TestHandler(Box::new(move |batch, lock_policy| {
        run(batch, lock_policy).boxed()
    }));
    Arc::new(Batcher::new(
        handler,
        64,
        timeout,
        &Arc::new(Semaphore::new(2)),
    ))
}

#[tokio::test]
async fn a_locked_row_does_not_block_its_shard() {
    let (free, waits) = tokio::sync::watch::channel(false);
    let batcher = batcher(TIMEOUT, move |items: TestBatch, lock_policy| {
        let mut waits = waits.clone();
        async move {
            if lock_policy == LockPolicy::Wait {
                assert!(
                    items.iter().all(|item| item.is_multiple_of(10)),
                    "{items:?} in the shard of a locked row"
                );
                waits.wait_for(|free| *free).await.unwrap();
            }
            let reply = |item: &Arc<u64>| match lock_policy {
                LockPolicy::SkipLocked if item.is_multiple_of(10) => BatchReply::RowLocked(**item),
                _ => BatchReply::Ready(Ok(items.len())),
            };
            Ok(items.iter().map(reply).collect())
        }
    });
    let submit = |number: u64| {
        let batcher = Arc::clone(&batcher);
        tokio::spawn(async move { batcher.submit(0, number).await })
    };
    // Two rows are locked: each has a shard, which later requests for the row share.
    let blocked: Vec<_> = [10, 10, 20, 10].map(submit).into();
    for number in (1..30).filter(|number| number % 10 > 0) {
        tokio::time::timeout(Duration::from_secs(1), submit(number))
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
    assert!(blocked.iter().all(|waiting| !waiting.is_finished()));
    free.send(true).unwrap();
    for (number, waiting) in blocked.into_iter().enumerate() {
        let size = waiting.await.unwrap().unwrap();
        assert!(size <= 3, "request {number}: a batch of {size}");
    }
}

/// Returns each number with the size of its batch; 13 fails its batch, and 666 panics.
async fn count(items: TestBatch, _: LockPolicy) -> BatchResult<(u64, usize)> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(!items.iter().any(|item| **item == 666), "a panic");
    if items.iter().any(|item| **item == 13) {
        return Err(StoreError::Internal("thirteen".into()).into());
    }
    Ok(items
        .iter()
        .map(|item| {
            if **item == 100 {
                Err(Error::NotFound("hundred"))
            } else {
                Ok((**item, items.len()))
            }
        })
        .map(BatchReply::Ready)
        .collect())
}

#[tokio::test]
async fn concurrent_requests_share_one_batch() {
    let batcher = batcher(TIMEOUT, count);
    let all = join_all((14..164).map(|number| batcher.submit(7, number))).await;
    for (number, answer) in (14..164).zip(&all) {
        match answer {
            Err(Error::NotFound("hundred")) => assert_eq!(number, 100, "{number}"),
            Ok((own, with)) => assert!(
                *own == number && (2..=64).contains(with),
                "{number}: {own}, {with}"
            ),
            other => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!(batcher.submit(7, 1).await.unwrap(), (1, 1));
}

#[tokio::test]
async fn failing_request_fails_alone_and_panic_does_not_poison_the_shard() {
    let batcher = batcher(TIMEOUT, count);
    let all = join_all((10..20).map(|number| batcher.submit(0, number))).await;
    assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 9);
    assert!(all[3].is_err());
    assert!(matches!(
        batcher.submit(0, 666).await,
        Err(Error::Internal("a batch was aborted"))
    ));
    assert_eq!(batcher.submit(0, 5).await.unwrap(), (5, 1));
}

#[tokio::test]
async fn a_missing_reply_is_an_internal_error_of_its_request() {
    let batcher = batcher(TIMEOUT, |items: TestBatch, _| async move {
        Ok(items
            .iter()
            .skip(1)
            .map(|_| BatchReply::Ready(Ok(())))
            .collect())
    });
    assert!(matches!(
        batcher.submit(0, 1).await,
        Err(Error::Internal("a request of a batch has no reply"))
    ));
}

#[tokio::test]
async fn cancelled_requests_are_dropped_and_others_run() {
    let done = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&done);
    let batcher = batcher(TIMEOUT, move |items: TestBatch, _| {
        let done = Arc::clone(&counter);
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            done.fetch_add(items.len(), Ordering::SeqCst);
            Ok(items.iter().map(|_| BatchReply::Ready(Ok(()))).collect())
        }
    });
    let submit = |number: u64| {
        let batcher = Arc::clone(&batcher);
        tokio::spawn(async move { batcher.submit(0, number).await })
    };
    let alone = submit(1);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let waiting = submit(2);
    let (cancelled, stays) = (submit(3), submit(4));
    tokio::time::sleep(Duration::from_millis(5)).await;
    waiting.abort();
    alone.abort();
    tokio::time::sleep(Duration::from_millis(20)).await;
    cancelled.abort();
    stays.await.unwrap().unwrap();
    assert_eq!(
        done.load(Ordering::SeqCst),
        2,
        "the third request had started with the fourth"
    );
}

#[tokio::test]
async fn a_hung_batch_times_out_and_does_not_block_the_shard() {
    let batcher = batcher(
        Duration::from_millis(50),
        |items: TestBatch, _| async move {
            if *items[0] == 1 {
                std::future::pending::<()>().await;
            }
            Ok(items
                .iter()
                .map(|item| BatchReply::Ready(Ok(**item)))
                .collect())
        },
    );
    assert!(matches!(batcher.submit(0, 1).await, Err(Error::Timeout)));
    assert_eq!(batcher.submit(0, 2).await.unwrap(), 2);
}
