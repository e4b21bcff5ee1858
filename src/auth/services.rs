//! Addresses of services: connections from them may use the part of the budgets that is kept for
//! services before their first request arrives.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

/// Maximum number of addresses.
const MAX_ADDRESSES: usize = 256;

/// The addresses that services have used since the start.
#[derive(Debug, Default)]
pub(crate) struct ServiceAddresses(RwLock<HashSet<IpAddr>>);

impl ServiceAddresses {
    /// Returns whether a service has used this address.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&address)
    }

    /// Records the address of an authenticated service.
    pub(crate) fn add(&self, address: IpAddr) {
        if self.has(address) {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_ADDRESSES {
            known.insert(address);
        }
    }
}
