//! The place and the memory that one request holds, and those of the request that is running.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;

use super::share::{Holder, Share};
use super::turns::{Turn, Turns};
use crate::error::Error;

tokio::task_local! {
    /// The reservation of the request that this task answers.
    static REQUEST: Reservation;
}

/// The place and the memory that one request holds. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Reservation(Arc<Mutex<Reserved>>, Arc<Turns>);

#[derive(Debug)]
struct Reserved {
    /// Until the request is answered.
    place: Option<Share>,
    /// Until the answer is written.
    memory: Share,
}

impl Reservation {
    pub(super) fn new(place: Option<Share>, memory: Share, turns: &Arc<Turns>) -> Self {
        Self(
            Arc::new(Mutex::new(Reserved { place, memory })),
            Arc::clone(turns),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Reserved> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds more memory.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), Error> {
        Ok(self.lock().memory.grow(bytes)?)
    }

    /// Counts for this user, too, from now on.
    ///
    /// # Errors
    /// As [`Reservation::hold`].
    pub(crate) fn identify(&self, uid: &str) -> Result<(), Error> {
        let Reserved { place, memory } = &mut *self.lock();
        for share in place.iter_mut().chain([memory]) {
            let holder = Holder {
                uid: Some(uid.to_owned()),
                ..share.holder().clone()
            };
            share.hand_over(holder)?;
        }
        Ok(())
    }

    /// The request is answered: another one may have its place.
    pub(crate) fn leave(&self) {
        self.lock().place = None;
    }

    /// Holds just so many bytes from now on.
    ///
    /// # Errors
    /// As [`Reservation::hold`].
    pub(crate) fn hold_just(&self, bytes: usize) -> Result<(), Error> {
        Ok(self.lock().memory.resize(bytes)?)
    }

    /// Bytes that hold the reservation for as long as they are there.
    pub(crate) fn kept(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept {
            bytes,
            _reservation: self.clone(),
        })
    }

    /// A stream whose work holds memory for this reservation until it has something to tell.
    pub(crate) fn scope_stream<S: Stream, B: FnOnce() -> S>(self, begin: B) -> ScopedStream<S> {
        let stream = Box::pin(REQUEST.sync_scope(self.clone(), begin));
        ScopedStream {
            stream,
            reservation: self,
        }
    }

    /// Does work that holds memory for this request.
    pub(crate) async fn scope<F: Future>(self, work: F) -> F::Output {
        REQUEST.scope(self, work).await
    }
}

/// See [`Reservation::scope_stream`].
pub(crate) struct ScopedStream<S> {
    stream: Pin<Box<S>>,
    reservation: Reservation,
}

impl<S: Stream> Stream for ScopedStream<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = &mut *self;
        let next = REQUEST.sync_scope(this.reservation.clone(), || {
            this.stream.as_mut().poll_next(cx)
        });
        if next.is_ready() {
            // Less is always allowed.
            let _ = this.reservation.hold_just(0);
        }
        next
    }
}

/// The reservation of the request that runs, if one does: work of the server itself is bounded in
/// other ways.
pub(crate) fn current() -> Option<Reservation> {
    REQUEST.try_with(Reservation::clone).ok()
}

/// Holds memory for the request that runs.
///
/// # Errors
/// As [`Reservation::hold`].
pub(crate) fn hold(bytes: usize) -> Result<(), Error> {
    REQUEST
        .try_with(|reservation| reservation.hold(bytes))
        .unwrap_or(Ok(()))
}

/// Waits for a turn of the user of the current request. A user has two turns, and users that take
/// much of the server share a few places, so that other users need not wait for them. Services take
/// no turns. The holder of a turn must not wait for another one.
pub(crate) async fn turn() -> Option<Turn> {
    let Reservation(reserved, turns) = current()?;
    let uid = reserved
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .memory
        .holder()
        .uid
        .clone()?;
    turns.take(uid).await
}

/// Bytes with the reservation that they are counted in.
struct Kept {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::share::tests::{at, budget};

    #[tokio::test]
    async fn an_answer_is_held_until_its_last_byte_is_gone() {
        let budget = budget(800);
        let memory = budget.take(at(1), 10).unwrap();
        let reservation = Reservation::new(None, memory, &Arc::default());
        let kept = reservation
            .clone()
            .scope(async {
                hold(200).unwrap();
                assert!(hold(200).is_err());
                let reservation = current().unwrap();
                reservation.hold_just(50).unwrap();
                reservation.kept(Bytes::from(vec![0; 50]))
            })
            .await;
        drop(reservation);
        assert_eq!(budget.held(), 50);
        let part = kept.slice(10..20);
        drop(kept);
        assert_eq!(budget.held(), 50);
        drop(part);
        assert_eq!(budget.held(), 0);
        hold(1 << 40).unwrap();
    }
}
