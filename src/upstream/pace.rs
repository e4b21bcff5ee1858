//! The rate of requests.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Timers are exact to a millisecond, so at high rates some requests are let through together.
const SLACK: Duration = Duration::from_millis(20);

/// Spaces the requests of several tasks.
#[derive(Debug)]
pub(super) struct Pace {
    period: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    pub(super) fn per_second(rate: u32) -> Self {
        Self {
            period: Duration::from_secs(1) / rate.max(1),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until the next request may be sent.
    pub(super) async fn wait(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = (*next).max(now.checked_sub(SLACK).unwrap_or(now));
            *next = at + self.period;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_share_the_rate() {
        for rate in [100, 2_000, 10_000] {
            let pace = Pace::per_second(rate);
            let started = Instant::now();
            let tasks = (0..8).map(|_| async {
                for _ in 0..rate / 20 {
                    pace.wait().await;
                }
            });
            futures_util::future::join_all(tasks).await;
            let seconds = started.elapsed().as_secs_f64();
            // A busy machine makes it slower, nothing makes it faster.
            assert!((0.36..2.0).contains(&seconds), "{rate}: {seconds}");
        }
    }

    #[tokio::test]
    async fn idle_time_is_not_saved_up() {
        let pace = Pace::per_second(1_000);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let started = Instant::now();
        for _ in 0..100 {
            pace.wait().await;
        }
        assert!(started.elapsed() > Duration::from_millis(70));
    }
}
