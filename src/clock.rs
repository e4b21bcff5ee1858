//! Time and randomness, passed in: everything else asks here, so that tests can say what time it
//! is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What time it is.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A clock that stands where it was put.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// Epoch milliseconds.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    pub fn now_ms(&self) -> i64 {
        match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
                }),
            Self::Fixed(at) => at.load(Ordering::Relaxed),
        }
    }
}

/// The epoch of `WuKongIM`'s snowflakes, 2010-11-04 (Twitter's): our ids continue theirs.
const SNOWFLAKE_EPOCH_MS: i64 = 1_288_834_974_657;

/// Ids that the server gives.
#[derive(Debug)]
pub struct Ids {
    rng: Mutex<StdRng>,
    node: i64,
    last_snowflake: AtomicI64,
}

impl Ids {
    /// From the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self::new(StdRng::from_os_rng())
    }

    /// The same ids at every start, for tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::new(StdRng::seed_from_u64(seed))
    }

    fn new(mut rng: StdRng) -> Self {
        let node = rng.random_range(0..1024);
        Self {
            rng: Mutex::new(rng),
            node,
            last_snowflake: AtomicI64::new(0),
        }
    }

    /// A global message id: 41 bits of milliseconds, 10 of this process (random), 12 that count.
    /// Two processes that drew the same 10 bits can give the same id; the database's unique index
    /// finds that, and the send is tried again.
    #[must_use]
    pub fn message_id(&self, now_ms: i64) -> i64 {
        let at_least = ((now_ms - SNOWFLAKE_EPOCH_MS).max(0) << 12) & (i64::MAX >> 10);
        let previous = self
            .last_snowflake
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(at_least.max(last + 1))
            })
            .unwrap_or_default();
        let tick = at_least.max(previous + 1);
        ((tick >> 12) << 22) | (self.node << 12) | (tick & 0xfff)
    }

    /// A name for one request, to find it again in the log: 16 hexadecimal digits.
    #[must_use]
    pub fn request_id(&self) -> String {
        let bits: u64 = self
            .rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .random();
        format!("{bits:016x}")
    }

    /// A `client_msg_no` for a sender that gave none, as `WuKongIM` makes them: a uuid without
    /// dashes and a `0`.
    #[must_use]
    pub fn client_msg_no(&self) -> String {
        let bits: u128 = self
            .rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .random();
        format!(
            "{}0",
            uuid::Builder::from_random_bytes(bits.to_be_bytes())
                .into_uuid()
                .simple()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_grow_even_when_the_clock_does_not() {
        let ids = Ids::seeded(1);
        let mut last = 0;
        for now in [
            1_795_393_127_614,
            1_795_393_127_614,
            1_795_393_127_000,
            1_795_393_127_615,
        ] {
            for _ in 0..5000 {
                let id = ids.message_id(now);
                assert!(id > last);
                last = id;
            }
        }
    }

    #[test]
    fn message_ids_are_like_those_of_wukongim() {
        // Recorded: WuKongIM gave 2124658887163379712 at this millisecond.
        assert_eq!(
            Ids::seeded(1).message_id(1_795_393_127_610) >> 32,
            2_124_658_887_163_379_712_i64 >> 32
        );
    }
}
