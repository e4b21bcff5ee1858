//! Requests of one kind that are done together. A commit waits for the disk, and a statement for
//! the way to the database and back: whoever comes meanwhile waits, and is then done in one
//! transaction with all others who came. One alone waits for nobody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::error::Error;
use crate::store::{Locks, StoreError};

/// How often a lane lets everything else that can run go first before it takes the next ones:
/// whoever was answered just now comes back meanwhile, and is done together with those who waited.
/// Without it half of the clients wait while the other half is done.
const GIVES_WAY: usize = 4;

/// Those who wait, in lanes: what must be done one after the other is in one lane. A lane never
/// waits for a row that somebody else has locked: who needs it leaves the lane, and waits in one
/// that all who need that row share.
#[derive(Debug)]
pub struct Together<T, R> {
    /// Of each lane that is being worked on those who came meanwhile.
    lanes: Arc<Lanes<T, R>>,
    at_once: usize,
    patience: Duration,
    /// A place for each lane that may wait for a locked row at the same time: each has a
    /// connection.
    waiters: Arc<Semaphore>,
}

/// A lane's number, and whether those in it wait for a row that somebody else has locked.
type Lane = (Locks, u64);
type Lanes<T, R> = Mutex<HashMap<Lane, Vec<Waiting<T, R>>>>;
type Waiting<T, R> = (Arc<T>, oneshot::Sender<Result<R, Error>>);

/// What became of each, in the order in which they came; or what became of all of them.
pub(crate) type Answers<R> = Result<Vec<Done<R>>, Error>;

/// What became of one of those who were done together.
#[derive(Debug)]
pub(crate) enum Done<R> {
    /// Its answer.
    Answer(Result<R, Error>),
    /// Nothing was done: somebody else holds the row with this name. Only where nobody waits for
    /// rows.
    Held(u64),
}

impl<T: Send + Sync + 'static, R: Send + 'static> Together<T, R> {
    /// At most so many are done together, and nobody waits for longer: a database that does not
    /// answer stops no lane for good.
    #[must_use]
    pub fn new(at_once: usize, patience: Duration, waiters: &Arc<Semaphore>) -> Self {
        Self {
            lanes: Arc::default(),
            at_once,
            patience,
            waiters: Arc::clone(waiters),
        }
    }

    /// Does `item` together with others of its lane: `work` does them in one transaction, leaving
    /// out whose rows are locked by others, or waiting for these rows, as it is told. It goes on
    /// for as long as any of them waits; who went away before it began is left out. Where one of
    /// them is our mistake, each is done by itself.
    ///
    /// # Errors
    /// What `work` says of this item; [`Error::Timeout`].
    pub(crate) async fn run<Work, Doing>(
        &self,
        lane: u64,
        item: impl Into<Arc<T>>,
        work: Work,
    ) -> Result<R, Error>
    where
        Work: Fn(Vec<Arc<T>>, Locks) -> Doing + Send + Sync + 'static,
        Doing: Future<Output = Answers<R>> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let (lanes, waiters) = (Arc::clone(&self.lanes), Arc::clone(&self.waiters));
        let running = Running {
            lanes,
            lane: (Locks::Skip, lane),
            at_once: self.at_once,
            is_over: false,
            waiters,
        };
        running.take((item.into(), sender), &Arc::new(work));
        match tokio::time::timeout(self.patience, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| {
                Err(StoreError::Broken("what was done together broke off".to_owned()).into())
            }),
            Err(_) => Err(Error::Timeout),
        }
    }
}

/// A lane that is being worked on.
struct Running<T, R> {
    lanes: Arc<Lanes<T, R>>,
    lane: Lane,
    at_once: usize,
    is_over: bool,
    waiters: Arc<Semaphore>,
}

impl<T, R> Drop for Running<T, R> {
    fn drop(&mut self) {
        if !self.is_over {
            // After a panic those who wait are told, and the next one begins anew.
            lock(&self.lanes).remove(&self.lane);
        }
    }
}

impl<T: Send + Sync + 'static, R: Send + 'static> Running<T, R> {
    /// Takes one more into this lane, and begins to work on it if nobody does.
    fn take<Work, Doing>(mut self, waiting: Waiting<T, R>, work: &Arc<Work>)
    where
        Work: Fn(Vec<Arc<T>>, Locks) -> Doing + Send + Sync + 'static,
        Doing: Future<Output = Answers<R>> + Send + 'static,
    {
        let begins = match lock(&self.lanes).entry(self.lane) {
            Entry::Occupied(mut all) => {
                all.get_mut().push(waiting);
                false
            }
            Entry::Vacant(lane) => {
                lane.insert(vec![waiting]);
                true
            }
        };
        if begins {
            tokio::spawn(self.run(Arc::clone(work)));
        } else {
            self.is_over = true;
        }
    }

    async fn run<Work, Doing>(mut self, work: Arc<Work>)
    where
        Work: Fn(Vec<Arc<T>>, Locks) -> Doing + Send + Sync + 'static,
        Doing: Future<Output = Answers<R>> + Send + 'static,
    {
        let locks = self.lane.0;
        let waiters = Arc::clone(&self.waiters);
        loop {
            let _place = match locks {
                Locks::Skip => None,
                Locks::Wait => waiters.acquire().await.ok(),
            };
            let Some(some) = self.next() else { return };
            metrics::histogram!("recents_shared_transaction_requests").record(some.len() as f64);
            let (items, mut senders): (Vec<Arc<T>>, Vec<_>) = some.into_iter().unzip();
            let answers = tokio::select! {
                answers = work(items.clone(), locks) => answers,
                () = all_closed(&mut senders) => continue,
            };
            if let Err(Error::Store(StoreError::Broken(_))) = &answers
                && items.len() > 1
            {
                // A statement failed, so nothing was done (a COMMIT never fails like this): whose
                // fault it is shows when each is alone.
                for (item, sender) in items.into_iter().zip(senders) {
                    let answers = work(vec![Arc::clone(&item)], locks).await;
                    let answer = answers.map_or_else(
                        |error| Done::Answer(Err(error)),
                        |mut answers| one(answers.pop()),
                    );
                    self.tell((item, sender), answer, &work);
                }
                continue;
            }
            let mut answers = answers.map(Vec::into_iter);
            for waiting in items.into_iter().zip(senders) {
                let answer = match &mut answers {
                    Ok(answers) => one(answers.next()),
                    Err(error) => Done::Answer(Err(error.clone())),
                };
                self.tell(waiting, answer, &work);
            }
            for _ in 0..GIVES_WAY {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Answers one, or lets it wait for the row that it needs.
    fn tell<Work, Doing>(&self, (item, sender): Waiting<T, R>, answer: Done<R>, work: &Arc<Work>)
    where
        Work: Fn(Vec<Arc<T>>, Locks) -> Doing + Send + Sync + 'static,
        Doing: Future<Output = Answers<R>> + Send + 'static,
    {
        let answer = match (answer, self.lane.0) {
            (Done::Answer(answer), _) => answer,
            (Done::Held(row), Locks::Skip) => {
                metrics::counter!("recents_locked_rows_total").increment(1);
                let (lanes, waiters) = (Arc::clone(&self.lanes), Arc::clone(&self.waiters));
                let apart = Self {
                    lanes,
                    lane: (Locks::Wait, row),
                    at_once: self.at_once,
                    is_over: false,
                    waiters,
                };
                return apart.take((item, sender), work);
            }
            (Done::Held(_), Locks::Wait) => Err(left_out()),
        };
        // Nobody there any more is no failure.
        let _ = sender.send(answer);
    }

    /// Those who wait, or the end.
    fn next(&mut self) -> Option<Vec<Waiting<T, R>>> {
        let mut lanes = lock(&self.lanes);
        let waiting = lanes.get_mut(&self.lane)?;
        waiting.retain(|(_, sender)| !sender.is_closed());
        if waiting.is_empty() {
            lanes.remove(&self.lane);
            drop(lanes);
            self.is_over = true;
            return None;
        }
        let count = waiting.len().min(self.at_once);
        Some(waiting.drain(..count).collect())
    }
}

fn one<R>(answer: Option<Done<R>>) -> Done<R> {
    answer.unwrap_or_else(|| Done::Answer(Err(left_out())))
}

/// The name of a row that somebody holds, for [`Done::Held`].
pub(crate) fn row(name: &impl Hash) -> u64 {
    lane(name, u64::MAX)
}

/// A lane for what has this name, of so many.
pub(crate) fn lane(name: &impl Hash, of: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() % of.max(1)
}

/// Waits until nobody waits any more.
async fn all_closed<R>(senders: &mut [oneshot::Sender<R>]) {
    for sender in senders {
        sender.closed().await;
    }
}

fn left_out() -> Error {
    StoreError::Broken("one of those done together has no answer".to_owned()).into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn together<R: Send + 'static>(patience: Duration) -> Together<u64, R> {
        Together::new(64, patience, &Arc::new(Semaphore::new(2)))
    }

    #[tokio::test]
    async fn who_needs_a_locked_row_leaves_the_lane_and_the_others_go_on() {
        let together = Arc::new(together::<usize>(PATIENCE));
        let (free, waits) = tokio::sync::watch::channel(false);
        let run = |number: u64| {
            let (together, waits) = (Arc::clone(&together), waits.clone());
            tokio::spawn(async move {
                let work = move |items: Vec<Arc<u64>>, locks| {
                    let mut waits = waits.clone();
                    async move {
                        if locks == Locks::Wait {
                            assert!(
                                items.iter().all(|item| item.is_multiple_of(10)),
                                "{items:?} in the lane of a locked row"
                            );
                            waits.wait_for(|free| *free).await.unwrap();
                        }
                        let done = |item: &Arc<u64>| match locks {
                            Locks::Skip if item.is_multiple_of(10) => Done::Held(**item),
                            _ => Done::Answer(Ok(items.len())),
                        };
                        Ok(items.iter().map(done).collect())
                    }
                };
                together.run(0, number, work).await
            })
        };
        // Two rows are locked: each has a lane, which those who come later share.
        let held: Vec<_> = [10, 10, 20, 10].map(run).into();
        for number in (1..30).filter(|number| number % 10 > 0) {
            tokio::time::timeout(Duration::from_secs(1), run(number))
                .await
                .unwrap()
                .unwrap()
                .unwrap();
        }
        assert!(held.iter().all(|waiting| !waiting.is_finished()));
        free.send(true).unwrap();
        for waiting in held {
            assert!(waiting.await.unwrap().unwrap() <= 3);
        }
    }

    /// Answers each number with itself and how many were done with it; 13 breaks what it is in.
    async fn count(items: Vec<Arc<u64>>, _: Locks) -> Answers<(u64, usize)> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!items.iter().any(|item| **item == 666), "a panic");
        if items.iter().any(|item| **item == 13) {
            return Err(StoreError::Broken("thirteen".to_owned()).into());
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
            .map(Done::Answer)
            .collect())
    }

    #[tokio::test]
    async fn who_comes_meanwhile_is_done_together_and_each_gets_its_own_answer() {
        let together = together(PATIENCE);
        let all =
            futures_util::future::join_all((14..164).map(|number| together.run(7, number, count)))
                .await;
        for (number, answer) in (14..164).zip(&all) {
            match answer {
                Err(Error::NotFound("hundred")) => assert_eq!(number, 100),
                Ok((own, with)) => assert!(
                    *own == number && (2..=64).contains(with),
                    "{number}: {own}, {with}"
                ),
                other => panic!("{number}: {other:?}"),
            }
        }
        assert_eq!(together.run(7, 1, count).await.unwrap(), (1, 1));
    }

    #[tokio::test]
    async fn a_mistake_is_the_one_that_makes_it_and_a_panic_ends_nothing_for_good() {
        let together = together(PATIENCE);
        let all =
            futures_util::future::join_all((10..20).map(|number| together.run(0, number, count)))
                .await;
        assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 9);
        assert!(all[3].is_err());
        assert!(together.run(0, 666, count).await.is_err());
        assert_eq!(together.run(0, 5, count).await.unwrap(), (5, 1));
    }

    #[tokio::test]
    async fn who_went_away_is_left_out_and_others_are_done() {
        let together = Arc::new(together::<()>(PATIENCE));
        let done = Arc::new(AtomicUsize::new(0));
        let run = |number| {
            let (together, done) = (Arc::clone(&together), Arc::clone(&done));
            tokio::spawn(async move {
                let work = move |items: Vec<Arc<u64>>, _| {
                    let done = Arc::clone(&done);
                    async move {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        done.fetch_add(items.len(), Ordering::SeqCst);
                        Ok(items.iter().map(|_| Done::Answer(Ok(()))).collect())
                    }
                };
                together.run(0, number, work).await
            })
        };
        let alone = run(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let waiting = run(2);
        let (gone, stays) = (run(3), run(4));
        tokio::time::sleep(Duration::from_millis(5)).await;
        waiting.abort();
        alone.abort();
        tokio::time::sleep(Duration::from_millis(20)).await;
        gone.abort();
        stays.await.unwrap().unwrap();
        assert_eq!(
            done.load(Ordering::SeqCst),
            2,
            "the third had begun with the fourth"
        );
    }

    #[tokio::test]
    async fn what_is_never_done_is_given_up_and_the_next_one_is_done() {
        let together = together(Duration::from_millis(50));
        let never = |items: Vec<Arc<u64>>, _| async move {
            if *items[0] == 1 {
                std::future::pending::<()>().await;
            }
            Ok(items.iter().map(|item| Done::Answer(Ok(**item))).collect())
        };
        assert!(matches!(
            together.run(0, 1, never).await,
            Err(Error::Timeout)
        ));
        assert_eq!(together.run(0, 2, never).await.unwrap(), 2);
    }
}
