//! The progress of a request on its way to the `WuKongIM`, for its time limit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The progress of a request. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    last_at: Instant,
    /// True if the next part has to come from the caller.
    waits_for_caller: bool,
    caller_failed: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            last_at: Instant::now(),
            waits_for_caller: false,
            caller_failed: false,
        })))
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a part of the body was taken, or that the body ended.
    pub(super) fn moved(&self) {
        let mut state = self.lock();
        state.last_at = Instant::now();
        state.waits_for_caller = false;
    }

    /// Records that the next part of the body has not arrived. The time that the `WuKongIM` took
    /// before it asked for it does not count against the caller.
    pub(super) fn waiting_for_caller(&self) {
        let mut state = self.lock();
        if !state.waits_for_caller {
            state.last_at = Instant::now();
            state.waits_for_caller = true;
        }
    }

    /// Records that the caller's body ended early.
    pub(super) fn caller_has_failed(&self) {
        self.lock().caller_failed = true;
    }

    pub(super) fn last_at(&self) -> Instant {
        self.lock().last_at
    }

    pub(super) fn waits_for_caller(&self) -> bool {
        self.lock().waits_for_caller
    }

    pub(super) fn caller_failed(&self) -> bool {
        self.lock().caller_failed
    }
}
