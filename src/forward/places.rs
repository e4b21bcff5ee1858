//! Places for requests that wait for targets. A target that hangs must not use up the request slots
//! and the memory of other callers, so the places are the quarter that is reserved for services.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::error::Error;

/// Unit of memory, because permits are counted in 32 bits.
const UNIT_BYTES: usize = 1024;
const MAX_UNITS: usize = 1 << 28;

/// Limits the number and the size of requests that wait for targets.
#[derive(Debug)]
pub(super) struct Places {
    requests: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    memory_units: usize,
}

/// The place of one request.
#[derive(Debug)]
pub(super) struct Place {
    _request: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        let memory_units = (limits.memory_bytes / 4 / UNIT_BYTES).clamp(1, MAX_UNITS);
        Self {
            requests: Arc::new(Semaphore::new((limits.max_concurrent_requests / 4).max(1))),
            memory: Arc::new(Semaphore::new(memory_units)),
            memory_units,
        }
    }

    /// Takes a place for a request with a body of this size. A body that is larger than all places
    /// together takes all of them.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub(super) fn take(&self, body_bytes: usize) -> Result<Place, Error> {
        let units = body_bytes.div_ceil(UNIT_BYTES).min(self.memory_units);
        let request = Arc::clone(&self.requests).try_acquire_owned();
        let memory = Arc::clone(&self.memory)
            .try_acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX));
        match (request, memory) {
            (Ok(request), Ok(memory)) => Ok(Place {
                _request: request,
                _memory: memory,
            }),
            _ => {
                metrics::counter!(crate::metrics::REQUESTS_REJECTED_TOTAL, "reason" => "forwarding", "by" => "server")
                    .increment(1);
                Err(Error::Overloaded)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_requests_and_memory_may_wait() {
        let limits = Limits {
            max_concurrent_requests: 12,
            memory_bytes: 4 << 20,
            ..Limits::default()
        };
        let places = Places::new(&limits);
        let taken: Vec<Place> = (0..3).map(|_| places.take(0).unwrap()).collect();
        assert!(places.take(0).is_err(), "a fourth request");
        drop(taken);
        let large = places.take(1 << 30).unwrap();
        assert!(places.take(1).is_err(), "another body beside a large one");
        drop(large);
        let half = places.take(512 << 10).unwrap();
        assert!(places.take((512 << 10) + 1).is_err());
        let other_half = places.take(512 << 10).unwrap();
        drop((half, other_half));
    }
}
