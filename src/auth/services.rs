//! Addresses from which services came: their connections may use what is kept for services, before
//! they have said anything.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

/// Services are few.
const MOST: usize = 256;

/// The addresses of services, as far as they are known since the start.
#[derive(Debug, Default)]
pub(crate) struct ServiceAddresses(RwLock<HashSet<IpAddr>>);

impl ServiceAddresses {
    /// True if a service came from there.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&address)
    }

    /// A service came from there, with its token or secret.
    pub(crate) fn add(&self, address: IpAddr) {
        if self.has(address) {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST {
            known.insert(address);
        }
    }
}
