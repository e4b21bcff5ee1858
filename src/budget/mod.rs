//! Budgets limit the memory, the concurrent requests and the connections of callers. Each allocation
//! is counted for the server, for the caller's address and for its user, so that no caller can use up
//! a budget; a part is reserved for services.
//!
//! The memory budget covers the unprocessed bytes of a connection, a body as it arrives, the values
//! that are parsed from it, the messages of an answer, and the answer until it is written. An
//! allocation that would exceed a limit is refused before the memory is allocated. Caches have limits of their
//! own (`cache.recent_messages_bytes`, `graphql.apq_cache_bytes`).

mod allocation;
mod json_size;
mod reservation;
mod user_permits;

use std::sync::Arc;

pub(crate) use self::allocation::{Allocation, CallerIdentity, network};
use self::allocation::{Budget, BudgetLimits};
pub(crate) use self::json_size::parsed_size;
pub(crate) use self::reservation::{
    Reservation, acquire_user_permit, current, reserve_memory, spawn_in_request,
};
pub(crate) use self::user_permits::UserPermit;
use self::user_permits::UserPermits;
use crate::config::Limits;
use crate::error::Error;

/// Memory of a request with a small body and a small answer.
const REQUEST_BYTES: usize = 16 * 1024;

/// All budgets of the server.
#[derive(Clone, Debug)]
pub(crate) struct Budgets {
    /// In bytes.
    pub(crate) memory: Budget,
    /// Requests in progress.
    pub(crate) requests: Budget,
    /// Open connections.
    pub(crate) connections: Budget,
    user_permits: Arc<UserPermits>,
}

impl Budgets {
    pub(crate) fn new(limits: &Limits) -> Self {
        let requests = BudgetLimits {
            per_user: limits.user_requests,
            ..BudgetLimits::from_total(limits.max_concurrent_requests)
        };
        let connections = BudgetLimits::from_total(limits.open_connections);
        let per_address = connections
            .per_address
            .min(limits.address_connections)
            .max(1);
        Self {
            memory: Budget::new("memory", BudgetLimits::from_total(limits.memory_bytes)),
            requests: Budget::new("requests", requests),
            connections: Budget::new(
                "connections",
                BudgetLimits {
                    per_address,
                    ..connections
                },
            ),
            user_permits: Arc::default(),
        }
    }

    /// Reserves a slot for a request, and the memory that every request needs.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
    pub(crate) fn admit(&self, identity: CallerIdentity) -> Result<Reservation, Error> {
        let slot = Some(self.requests.try_acquire(identity.clone(), 1)?);
        Ok(Reservation::new(
            slot,
            self.memory.try_acquire(identity, REQUEST_BYTES)?,
            &self.user_permits,
        ))
    }

    /// Creates an empty reservation, for the events of a subscription.
    ///
    /// # Errors
    /// Like [`Budgets::admit`].
    pub(crate) fn admit_subscription(
        &self,
        identity: CallerIdentity,
    ) -> Result<Reservation, Error> {
        Ok(Reservation::new(
            None,
            self.memory.try_acquire(identity, 0)?,
            &self.user_permits,
        ))
    }
}
