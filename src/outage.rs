//! The log of outages: one line when a dependency begins to fail, and one when it works again,
//! instead of one for each attempt.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Logs the outages of one dependency.
#[derive(Debug)]
pub(crate) struct OutageLog {
    /// The line at the beginning of an outage.
    failed: &'static str,
    /// The line at its end.
    recovered: &'static str,
    /// Bits of the parts that must all work before an outage is over.
    parts: u8,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug)]
struct Outage {
    began: Instant,
    /// Bits of the parts that have worked since the last failure.
    working_parts: u8,
}

impl OutageLog {
    pub(crate) const fn new(failed: &'static str, recovered: &'static str) -> Self {
        Self::with_parts(1, failed, recovered)
    }

    /// For a dependency that is used over several connections: an outage is over when each of them
    /// works again. At most 8.
    pub(crate) const fn with_parts(
        count: u8,
        failed: &'static str,
        recovered: &'static str,
    ) -> Self {
        Self {
            failed,
            recovered,
            parts: u8::MAX >> (8 - count),
            outage: Mutex::new(None),
        }
    }

    /// Records a failed attempt.
    pub(crate) fn failed(&self, error: &dyn Display) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outage) = &mut *outage {
            outage.working_parts = 0;
            tracing::debug!(error = %error, "still: {}", self.failed);
            return;
        }
        *outage = Some(Outage {
            began: Instant::now(),
            working_parts: 0,
        });
        tracing::warn!(error = %error, "{}", self.failed);
    }

    /// Records an attempt that succeeded.
    pub(crate) fn worked(&self) {
        self.part_worked(0);
    }

    /// Records that the part with this number, counted from 0, works.
    pub(crate) fn part_worked(&self, part: u8) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = &mut *outage else { return };
        current.working_parts |= 1 << part;
        if current.working_parts == self.parts {
            let seconds = current.began.elapsed().as_secs();
            *outage = None;
            tracing::info!(seconds, "{}", self.recovered);
        }
    }

    /// Returns for how long an outage has lasted, if it is not over yet.
    pub(crate) fn ongoing_for(&self) -> Option<Duration> {
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.as_ref().map(|outage| outage.began.elapsed())
    }

    /// Returns whether an outage is not over yet.
    pub(crate) fn is_ongoing(&self) -> bool {
        self.ongoing_for().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    /// The text of a log.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns the log of `work`, without times.
    fn logged(work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn an_outage_is_logged_when_it_begins_and_when_it_ends() {
        let log = OutageLog::new("it fails", "it works");
        let text = logged(|| {
            log.worked();
            for round in 0..2 {
                log.failed(&"refused");
                log.failed(&"no answer");
                assert!(log.is_ongoing(), "outage {round}");
                log.worked();
                log.worked();
                assert!(!log.is_ongoing(), "outage {round}");
            }
        });
        let expected = " WARN it fails error=refused\n INFO it works seconds=0\n";
        assert_eq!(text, expected.repeat(2));
    }

    #[test]
    fn an_outage_is_over_when_every_part_works_again() {
        let log = OutageLog::with_parts(2, "it fails", "it works");
        let text = logged(|| {
            log.failed(&"refused");
            log.part_worked(0);
            log.part_worked(0);
            log.failed(&"refused");
            log.part_worked(1);
            assert!(log.is_ongoing());
            log.part_worked(0);
            log.part_worked(1);
        });
        assert_eq!(
            text,
            " WARN it fails error=refused\n INFO it works seconds=0\n"
        );
    }
}
