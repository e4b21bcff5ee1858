//! Times of messages, which a `WuKongIM` gives in whole seconds.

use std::ops::Range;
use std::sync::Once;

use crate::model::EpochMs;

/// The last second of the year 9999, which is the latest time of a message.
const MAX_SECOND: i64 = 253_402_300_799;
/// The seconds from September 2001 to the end of 2099. Times in smaller units are recognised by
/// being later than these, and among these once they are converted.
const PLAUSIBLE_SECONDS: Range<i64> = 1_000_000_000..4_102_444_800;
/// Smaller units, with their number in a second.
const SMALLER_UNITS: [(&str, i64); 3] = [
    ("milliseconds", 1_000),
    ("microseconds", 1_000_000),
    ("nanoseconds", 1_000_000_000),
];

/// Converts a time in seconds. A time in a smaller unit, as some senders give it by mistake, is
/// recognised, and the first one is logged.
pub(crate) fn parse_timestamp(timestamp: i64) -> EpochMs {
    static WARNING: Once = Once::new();
    let smaller_unit = SMALLER_UNITS
        .into_iter()
        .find(|(_, per_second)| PLAUSIBLE_SECONDS.contains(&(timestamp / per_second)));
    let Some((unit, per_second)) = smaller_unit else {
        return EpochMs(timestamp.min(MAX_SECOND).saturating_mul(1000));
    };
    metrics::counter!(crate::metrics::TIMESTAMPS_CORRECTED_TOTAL, "unit" => unit).increment(1);
    WARNING.call_once(|| {
        tracing::warn!(
            timestamp,
            unit,
            "a message has its time in a smaller unit than seconds: such times are converted"
        );
    });
    EpochMs(timestamp / (per_second / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_units_than_seconds_are_recognised() {
        for (timestamp, expected) in [
            (1, 1_000),
            (1_795_393_001, 1_795_393_001_000),
            (4_102_444_800, 4_102_444_800_000),
            (1_795_393_001_234, 1_795_393_001_234),
            (1_795_393_001_234_567, 1_795_393_001_234),
            (1_795_393_001_234_567_890, 1_795_393_001_234),
            // Neither unit gives a time between 2001 and 2099.
            (999_999_999_999, MAX_SECOND * 1000),
            (4_102_444_800_000, MAX_SECOND * 1000),
            (i64::MAX, MAX_SECOND * 1000),
        ] {
            assert_eq!(parse_timestamp(timestamp), EpochMs(expected), "{timestamp}");
        }
    }
}
