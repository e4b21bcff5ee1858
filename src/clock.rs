//! Clock and random generator, passed in so that tests can set them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::model::{EpochMs, MessageId};

/// Source of the current time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system clock.
    System,
    /// A clock that changes only when it is set.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// Returns the current time.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    pub fn now_ms(&self) -> EpochMs {
        let ms = match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
                }),
            Self::Fixed(at) => at.load(Ordering::Relaxed),
        };
        EpochMs(ms)
    }
}

/// The epoch of `WuKongIM`'s snowflakes, 2010-11-04 (Twitter's): our ids continue theirs.
const SNOWFLAKE_EPOCH_MS: i64 = 1_288_834_974_657;

/// Generates ids.
#[derive(Debug)]
pub struct IdGenerator {
    rng: Mutex<StdRng>,
    node: i64,
    last_snowflake: AtomicI64,
}

impl IdGenerator {
    /// Creates a generator with random bits from the operating system.
    #[must_use]
    pub fn random() -> Self {
        Self::new(StdRng::from_os_rng())
    }

    /// Creates a generator with the same ids in every run, for tests.
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

    /// Returns a global message id: 41 bits of milliseconds, 10 random bits of this process, 12
    /// bits of a counter. Two processes that drew the same 10 bits can generate the same id; the
    /// unique index of the database detects it, and the send is retried.
    #[must_use]
    pub fn message_id(&self, now_ms: EpochMs) -> MessageId {
        let at_least = ((now_ms.0 - SNOWFLAKE_EPOCH_MS).max(0) << 12) & (i64::MAX >> 10);
        let previous = self
            .last_snowflake
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(at_least.max(last + 1))
            })
            .unwrap_or_default();
        let tick = at_least.max(previous + 1);
        MessageId(((tick >> 12) << 22) | (self.node << 12) | (tick & 0xfff))
    }

    /// Returns an id for a request, to find it in the log: 16 hexadecimal digits.
    #[must_use]
    pub fn request_id(&self) -> String {
        let bits: u64 = self
            .rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .random();
        format!("{bits:016x}")
    }

    /// Returns a `client_msg_no` for a sender that gave none, in `WuKongIM`'s form: a UUID without
    /// dashes, and a `0`.
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
    fn message_ids_increase_when_the_clock_stands_still() {
        let ids = IdGenerator::seeded(1);
        let mut last = MessageId(0);
        for now in [
            1_795_393_127_614,
            1_795_393_127_614,
            1_795_393_127_000,
            1_795_393_127_615,
        ] {
            for _ in 0..5000 {
                let id = ids.message_id(EpochMs(now));
                assert!(id > last, "{id:?} at {now} follows {last:?}");
                last = id;
            }
        }
    }

    #[test]
    fn message_ids_have_the_format_of_wukongim() {
        // Recorded: WuKongIM generated 2124658887163379712 in this millisecond.
        assert_eq!(
            IdGenerator::seeded(1)
                .message_id(EpochMs(1_795_393_127_610))
                .0
                >> 32,
            2_124_658_887_163_379_712_i64 >> 32
        );
    }
}
