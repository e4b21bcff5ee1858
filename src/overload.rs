//! What is let in: so many requests and so many bytes of bodies at once. The rest is told at once to come again, before any work
//! is done for it, so that more load than there is room for costs neither memory nor the requests that are in.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::error::Error;

/// Bodies are counted in this unit; a smaller one is carried by its request.
const UNIT: usize = 64 * 1024;

/// The room there is.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    requests: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    all_bodies: u32,
}

/// A place in it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _request: OwnedSemaphorePermit,
    _body: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(crate) fn new(limits: &Limits) -> Self {
        let all_bodies = u32::try_from(limits.bodies_bytes / UNIT).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
        Self {
            requests: Arc::new(Semaphore::new(limits.requests)),
            bodies: Arc::new(Semaphore::new(all_bodies as usize)),
            all_bodies,
        }
    }

    /// A place for a request whose body may have `limit` bytes; one that does not say its length counts as the longest.
    ///
    /// # Errors
    /// [`Error::Overloaded`]: there is none.
    pub(crate) fn enter(&self, headers: &HeaderMap, limit: usize) -> Result<Place, Error> {
        let full = |what: &'static str| {
            metrics::counter!("recents_http_shed_total", "limit" => what).increment(1);
            Error::Overloaded
        };
        let request = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| full("requests"))?;
        let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // What is too long is refused after a while of reading, and not kept.
        let length: usize = if headers.contains_key(header::TRANSFER_ENCODING) { limit } else { said.unwrap_or(0).min(limit) };
        if length <= UNIT {
            return Ok(Place { _request: request, _body: None });
        }
        // One body may be as large as all: it then is alone.
        let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.all_bodies);
        let body = Arc::clone(&self.bodies).try_acquire_many_owned(units).map_err(|_| full("bodies"))?;
        Ok(Place { _request: request, _body: Some(body) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(requests: usize, bodies_bytes: usize) -> Room {
        Room::new(&Limits { requests, bodies_bytes, ..Limits::default() })
    }

    fn saying(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_LENGTH, length.into())])
    }

    #[test]
    fn as_many_requests_as_there_are_places() {
        let room = room(2, 0);
        let (one, _two) = (room.enter(&saying(10), 100).unwrap(), room.enter(&HeaderMap::new(), 100).unwrap());
        assert!(matches!(room.enter(&saying(10), 100), Err(Error::Overloaded)));
        drop(one);
        room.enter(&saying(10), 100).unwrap();
    }

    #[test]
    fn large_bodies_share_their_bytes_and_small_ones_take_none() {
        let room = room(100, 4 * UNIT);
        let large = room.enter(&saying(3 * UNIT), 10 * UNIT).unwrap();
        assert!(matches!(room.enter(&saying(UNIT + 1), 10 * UNIT), Err(Error::Overloaded)));
        room.enter(&saying(UNIT), 10 * UNIT).unwrap();
        let chunked = HeaderMap::from_iter([(header::TRANSFER_ENCODING, "chunked".parse().unwrap())]);
        assert!(room.enter(&chunked, 10 * UNIT).is_err(), "who does not say its length may be the longest");
        drop(large);
        // Longer than all of them together: alone, but not never.
        let alone = room.enter(&saying(9 * UNIT), 10 * UNIT).unwrap();
        assert!(room.enter(&saying(2 * UNIT), 10 * UNIT).is_err());
        drop(alone);
        room.enter(&chunked, 2 * UNIT).unwrap();
    }
}
