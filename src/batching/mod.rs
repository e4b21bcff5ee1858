//! Group commit: runs concurrent requests of the same kind as one database transaction. Requests
//! that arrive while a batch is running form the next batch; a lone request runs at once.
//!
//! How to batch a new kind of request: implement [`BatchHandler`] next to its use case, add a
//! [`Batcher`] of it to the service, and call [`Batcher::submit`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::error::Error;
use crate::store::{LockPolicy, StoreError};

/// Maximum number of requests in one batch of small requests.
pub(crate) const MAX_BATCH_SIZE: usize = 128;
/// Number of `yield_now` calls between batches. Clients that were just answered get to enqueue
/// their next request, which makes batches about twice as large.
const YIELDS_BETWEEN_BATCHES: usize = 4;

/// Runs batches of one kind of request.
pub(crate) trait BatchHandler: Send + Sync + 'static {
    /// A request.
    type Request: Send + Sync + 'static;
    /// The reply to a request.
    type Reply: Send + 'static;

    /// Runs a batch, usually as one transaction, and returns one reply for each request, in order;
    /// `Err` fails the whole batch.
    ///
    /// With [`LockPolicy::SkipLocked`] the batch must not wait for row locks: requests that need a
    /// locked row get [`BatchReply::RowLocked`]. With [`LockPolicy::Wait`] it waits for them.
    fn run(
        &self,
        batch: Vec<Arc<Self::Request>>,
        lock_policy: LockPolicy,
    ) -> impl Future<Output = BatchResult<Self::Reply>> + Send;
}

/// The replies to a batch, in the order of its requests, or the error of the whole batch.
pub(crate) type BatchResult<R> = Result<Vec<BatchReply<R>>, Error>;

/// The reply to a request of a batch.
#[derive(Debug)]
pub(crate) enum BatchReply<R> {
    /// The result.
    Ready(Result<R, Error>),
    /// Nothing was done, because another transaction holds the row with this [`row_hash`]. Only
    /// with [`LockPolicy::SkipLocked`].
    RowLocked(u64),
}

/// Collects requests into batches. Requests of one shard run one batch after the other; shards run
/// concurrently. A shard never waits for a row lock: a request that needs a locked row moves to a
/// shard of its own, which it shares with all requests that need the same row.
pub(crate) struct Batcher<H: BatchHandler>(Arc<BatchQueues<H>>);

struct BatchQueues<H: BatchHandler> {
    handler: H,
    /// Waiting requests of each shard that has a worker.
    shards: Mutex<HashMap<ShardKey, Vec<QueuedRequest<H>>>>,
    max_batch_size: usize,
    timeout: Duration,
    /// One permit for each shard that may wait for a row lock at the same time: each of them
    /// occupies a connection.
    lock_wait_permits: Arc<Semaphore>,
}

/// The number of a shard, and whether its batches wait for row locks.
type ShardKey = (LockPolicy, u64);

type ReplyResult<H> = Result<<H as BatchHandler>::Reply, Error>;

type QueuedRequest<H> = (
    Arc<<H as BatchHandler>::Request>,
    oneshot::Sender<ReplyResult<H>>,
);

impl<H: BatchHandler> std::fmt::Debug for Batcher<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Batcher")
            .field("max_batch_size", &self.0.max_batch_size)
            .finish_non_exhaustive()
    }
}

impl<H: BatchHandler> Batcher<H> {
    /// Creates a batcher. A request waits for at most `timeout`, so that a database that does not
    /// respond blocks no shard forever.
    pub(crate) fn new(
        handler: H,
        max_batch_size: usize,
        timeout: Duration,
        lock_wait_permits: &Arc<Semaphore>,
    ) -> Self {
        Self(Arc::new(BatchQueues {
            handler,
            shards: Mutex::default(),
            max_batch_size,
            timeout,
            lock_wait_permits: Arc::clone(lock_wait_permits),
        }))
    }

    /// Runs `request` in the next batch of its shard.
    ///
    /// The batch is cancelled once all of its callers have gone; callers that left before it
    /// started are dropped. If it fails with an internal error, its requests are retried one at a
    /// time.
    ///
    /// # Errors
    /// The error of the handler; [`Error::Timeout`].
    pub(crate) async fn submit(
        &self,
        shard: u64,
        request: impl Into<Arc<H::Request>>,
    ) -> ReplyResult<H> {
        let (sender, reply) = oneshot::channel();
        ShardWorker::enqueue(
            &self.0,
            (LockPolicy::SkipLocked, shard),
            (request.into(), sender),
        );
        match tokio::time::timeout(self.0.timeout, reply).await {
            Ok(reply) => reply.unwrap_or_else(|_| Err(Error::Internal("a batch was aborted"))),
            Err(_) => Err(Error::Timeout),
        }
    }
}

/// Runs the batches of one shard until no request waits.
struct ShardWorker<H: BatchHandler> {
    queues: Arc<BatchQueues<H>>,
    shard: ShardKey,
    is_finished: bool,
}

impl<H: BatchHandler> Drop for ShardWorker<H> {
    fn drop(&mut self) {
        if !self.is_finished {
            // After a panic the waiting requests fail, and the next request starts a new worker.
            lock(&self.queues.shards).remove(&self.shard);
        }
    }
}

impl<H: BatchHandler> ShardWorker<H> {
    /// Adds a request to a shard, and starts a worker if the shard has none.
    fn enqueue(queues: &Arc<BatchQueues<H>>, shard: ShardKey, request: QueuedRequest<H>) {
        match lock(&queues.shards).entry(shard) {
            Entry::Occupied(mut queue) => {
                queue.get_mut().push(request);
                return;
            }
            Entry::Vacant(queue) => {
                queue.insert(vec![request]);
            }
        }
        let worker = Self {
            queues: Arc::clone(queues),
            shard,
            is_finished: false,
        };
        tokio::spawn(worker.run());
    }

    async fn run(mut self) {
        let queues = Arc::clone(&self.queues);
        let lock_policy = self.shard.0;
        loop {
            let _permit = match lock_policy {
                LockPolicy::SkipLocked => None,
                LockPolicy::Wait => queues.lock_wait_permits.acquire().await.ok(),
            };
            let Some(batch) = self.next_batch() else {
                return;
            };
            metrics::histogram!(crate::metrics::BATCH_SIZE).record(batch.len() as f64);
            let (requests, mut senders): (Vec<Arc<H::Request>>, Vec<_>) = batch.into_iter().unzip();
            let replies = tokio::select! {
                replies = queues.handler.run(requests.clone(), lock_policy) => replies,
                () = all_receivers_closed(&mut senders) => continue,
            };
            if let Err(Error::Store(StoreError::Internal(_)) | Error::Internal(_)) = &replies
                && requests.len() > 1
            {
                // A statement failed, so nothing was written (a COMMIT never fails like this).
                // Running the requests one at a time shows which of them causes the error.
                for (request, sender) in requests.into_iter().zip(senders) {
                    let alone = vec![Arc::clone(&request)];
                    let reply = match queues.handler.run(alone, lock_policy).await {
                        Ok(mut replies) => reply_or_missing(replies.pop()),
                        Err(error) => BatchReply::Ready(Err(error)),
                    };
                    self.reply((request, sender), reply);
                }
                continue;
            }
            let mut replies = replies.map(Vec::into_iter);
            for request in requests.into_iter().zip(senders) {
                let reply = match &mut replies {
                    Ok(replies) => reply_or_missing(replies.next()),
                    Err(error) => BatchReply::Ready(Err(error.clone())),
                };
                self.reply(request, reply);
            }
            for _ in 0..YIELDS_BETWEEN_BATCHES {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Sends the reply, or moves the request to the shard that waits for the locked row.
    fn reply(&self, (request, sender): QueuedRequest<H>, reply: BatchReply<H::Reply>) {
        let reply = match (reply, self.shard.0) {
            (BatchReply::Ready(reply), _) => reply,
            (BatchReply::RowLocked(row), LockPolicy::SkipLocked) => {
                metrics::counter!(crate::metrics::LOCKED_ROWS_TOTAL).increment(1);
                return Self::enqueue(&self.queues, (LockPolicy::Wait, row), (request, sender));
            }
            (BatchReply::RowLocked(_), LockPolicy::Wait) => Err(missing_reply()),
        };
        // The send fails if the caller has gone, which needs no action.
        let _ = sender.send(reply);
    }

    /// Takes the next batch. Removes the shard and returns `None` if no request waits.
    fn next_batch(&mut self) -> Option<Vec<QueuedRequest<H>>> {
        let mut shards = lock(&self.queues.shards);
        let queue = shards.get_mut(&self.shard)?;
        queue.retain(|(_, sender)| !sender.is_closed());
        if queue.is_empty() {
            shards.remove(&self.shard);
            drop(shards);
            self.is_finished = true;
            return None;
        }
        let count = queue.len().min(self.queues.max_batch_size);
        Some(queue.drain(..count).collect())
    }
}

fn reply_or_missing<R>(reply: Option<BatchReply<R>>) -> BatchReply<R> {
    reply.unwrap_or_else(|| BatchReply::Ready(Err(missing_reply())))
}

/// Identifies a locked row for [`BatchReply::RowLocked`].
pub(crate) fn row_hash(key: &impl Hash) -> u64 {
    shard_of(key, u64::MAX)
}

/// Returns the shard of a key, out of `shards`.
pub(crate) fn shard_of(key: &impl Hash, shards: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() % shards.max(1)
}

/// Waits until all callers have gone.
async fn all_receivers_closed<R>(senders: &mut [oneshot::Sender<R>]) {
    for sender in senders {
        sender.closed().await;
    }
}

fn missing_reply() -> Error {
    Error::Internal("a request of a batch has no reply")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
