//! Budgets: how much memory, how many requests and how many connections callers hold at once. Every
//! share counts against the server, the address and the user it is held for, so that no caller can
//! take all of it; a part is kept for services.
//!
//! Memory is counted where it is held: what a connection has read and nobody has used yet, a body
//! as it arrives, the values that are parsed from it, the messages of an answer, and the answer
//! until it is written. A share that does not fit is refused before the memory is taken. Caches
//! have limits of their own (`cache.recent_messages_bytes`, `graphql.apq_cache_bytes`).

mod json_size;
mod reservation;
mod share;
mod turns;

use std::sync::Arc;

pub(crate) use self::json_size::parsed_size;
pub(crate) use self::reservation::{Reservation, current, hold, turn};
use self::share::{Budget, Ceilings};
pub(crate) use self::share::{Holder, Share, network};
pub(crate) use self::turns::Turn;
use self::turns::Turns;
use crate::config::Limits;
use crate::error::Error;

/// Bytes of a request with a small body and a small answer.
const REQUEST_BYTES: usize = 16 * 1024;

/// Every budget of a server.
#[derive(Clone, Debug)]
pub(crate) struct Budgets {
    /// Bytes.
    pub(crate) memory: Budget,
    /// Requests that are being answered.
    pub(crate) requests: Budget,
    /// Open connections.
    pub(crate) connections: Budget,
    turns: Arc<Turns>,
}

impl Budgets {
    pub(crate) fn new(limits: &Limits) -> Self {
        let requests = Ceilings {
            user: limits.user_requests,
            ..Ceilings::of(limits.max_concurrent_requests)
        };
        let connections = Ceilings::of(limits.open_connections);
        let address = connections.address.min(limits.address_connections).max(1);
        Self {
            memory: Budget::new("memory", Ceilings::of(limits.memory_bytes)),
            requests: Budget::new("requests", requests),
            connections: Budget::new(
                "connections",
                Ceilings {
                    address,
                    ..connections
                },
            ),
            turns: Arc::default(),
        }
    }

    /// A place for a request, and the memory that every request takes.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
    pub(crate) fn admit(&self, holder: Holder) -> Result<Reservation, Error> {
        let place = Some(self.requests.take(holder.clone(), 1)?);
        Ok(Reservation::new(
            place,
            self.memory.take(holder, REQUEST_BYTES)?,
            &self.turns,
        ))
    }

    /// Memory for what is told to a subscriber.
    ///
    /// # Errors
    /// As [`Budgets::admit`].
    pub(crate) fn subscribe(&self, holder: Holder) -> Result<Reservation, Error> {
        Ok(Reservation::new(
            None,
            self.memory.take(holder, 0)?,
            &self.turns,
        ))
    }
}
