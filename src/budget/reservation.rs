//! The slot and the memory that are reserved for a request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::allocation::{Allocation, CallerIdentity};
use super::user_permits::{UserPermit, UserPermits};
use crate::error::Error;

tokio::task_local! {
    /// The reservation of the request that the task processes.
    static REQUEST: Reservation;
}

/// The slot and the memory that are reserved for a request. Clones share one reservation.
#[derive(Clone, Debug)]
pub(crate) struct Reservation(Arc<Mutex<Allocations>>, Arc<UserPermits>);

#[derive(Debug)]
struct Allocations {
    /// The slot of a request, until it is processed.
    slot: Option<Allocation>,
    /// The memory, until the answer is written.
    memory: Allocation,
}

impl Reservation {
    pub(super) fn new(
        slot: Option<Allocation>,
        memory: Allocation,
        user_permits: &Arc<UserPermits>,
    ) -> Self {
        Self(
            Arc::new(Mutex::new(Allocations { slot, memory })),
            Arc::clone(user_permits),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Allocations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves more memory.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
    pub(crate) fn reserve_memory(&self, bytes: usize) -> Result<(), Error> {
        Ok(self.lock().memory.grow(bytes)?)
    }

    /// Counts the reservation for this user as well.
    ///
    /// # Errors
    /// Like [`Reservation::reserve_memory`].
    pub(crate) fn set_user(&self, uid: &str) -> Result<(), Error> {
        let Allocations { slot, memory } = &mut *self.lock();
        for allocation in slot.iter_mut().chain([memory]) {
            let identity = CallerIdentity {
                uid: Some(uid.to_owned()),
                ..allocation.identity().clone()
            };
            allocation.transfer(identity)?;
        }
        Ok(())
    }

    /// Releases the slot after the request was processed; the memory stays reserved.
    pub(crate) fn release_slot(&self) {
        self.lock().slot = None;
    }

    /// Changes the reserved memory to `bytes`.
    ///
    /// # Errors
    /// Like [`Reservation::reserve_memory`].
    pub(crate) fn resize_memory(&self, bytes: usize) -> Result<(), Error> {
        Ok(self.lock().memory.resize(bytes)?)
    }

    /// Returns bytes that keep the reservation until the last reference to them is dropped.
    pub(crate) fn attach_to(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(ReservedBytes {
            bytes,
            _reservation: self.clone(),
        })
    }

    /// Returns a stream that reserves memory from this reservation while it is polled. Each item
    /// releases the memory.
    pub(crate) fn scope_stream<S: Stream, B: FnOnce() -> S>(self, begin: B) -> ScopedStream<S> {
        let stream = Box::pin(REQUEST.sync_scope(self.clone(), begin));
        ScopedStream {
            stream,
            reservation: self,
        }
    }

    /// Runs `work`, which reserves memory from this reservation.
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
            // A smaller amount is never refused.
            let _ = this.reservation.resize_memory(0);
        }
        next
    }
}

/// Runs `work` in a task of its own, which keeps the current request's reservation and goes on when
/// the caller is gone.
pub(crate) fn spawn_in_request<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let work = work.in_current_span();
    match current() {
        Some(reservation) => tokio::spawn(reservation.scope(work)),
        None => tokio::spawn(work),
    }
}

/// Returns the reservation of the current request; `None` in background tasks of the server, which
/// have limits of their own.
pub(crate) fn current() -> Option<Reservation> {
    REQUEST.try_with(Reservation::clone).ok()
}

/// Reserves more memory for the current request.
///
/// # Errors
/// Like [`Reservation::reserve_memory`].
pub(crate) fn reserve_memory(bytes: usize) -> Result<(), Error> {
    REQUEST
        .try_with(|reservation| reservation.reserve_memory(bytes))
        .unwrap_or(Ok(()))
}

/// Waits for a permit of the current request's user. A user has two permits. Heavy users also need
/// one of a few permits that they share, so that other users do not wait for them. Services need no
/// permits.
///
/// A task that has a permit must not wait for another one.
pub(crate) async fn acquire_user_permit() -> Option<UserPermit> {
    let Reservation(allocations, user_permits) = current()?;
    let uid = allocations
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .memory
        .identity()
        .uid
        .clone()?;
    user_permits.acquire(uid).await
}

/// Bytes that keep the reservation of their memory.
struct ReservedBytes {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::allocation::tests::{address, budget};

    #[tokio::test]
    async fn memory_is_reserved_until_all_references_to_the_answer_are_dropped() {
        let budget = budget(800);
        let memory = budget.try_acquire(address(1), 10).unwrap();
        let reservation = Reservation::new(None, memory, &Arc::default());
        let answer = reservation
            .clone()
            .scope(async {
                reserve_memory(200).unwrap();
                assert!(reserve_memory(200).is_err());
                let reservation = current().unwrap();
                reservation.resize_memory(50).unwrap();
                reservation.attach_to(Bytes::from(vec![0; 50]))
            })
            .await;
        drop(reservation);
        assert_eq!(budget.used(), 50);
        let part = answer.slice(10..20);
        drop(answer);
        assert_eq!(budget.used(), 50);
        drop(part);
        assert_eq!(budget.used(), 0);
        reserve_memory(1 << 40).unwrap();
    }
}
