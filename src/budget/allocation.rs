//! A budget: an amount that callers share, with limits for each of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// The maximum amounts that may be in use at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BudgetLimits {
    /// Of all callers together.
    pub(super) total: usize,
    /// Of all callers that are not services.
    pub(super) non_services: usize,
    /// Of one address, services excluded.
    pub(super) per_address: usize,
    /// Of one user.
    pub(super) per_user: usize,
}

impl BudgetLimits {
    /// Returns limits that reserve a quarter for services. One address may use half of the rest,
    /// one user a third of it.
    pub(super) fn from_total(total: usize) -> Self {
        let non_services = (total - total / 4).max(1);
        Self {
            total,
            non_services,
            per_address: (non_services / 2).max(1),
            per_user: (non_services / 3).max(1),
        }
    }
}

/// The caller that an allocation is counted for, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallerIdentity {
    pub(crate) is_service: bool,
    /// The caller's address; `None` for a proxy, which forwards the requests of many callers.
    pub(crate) address: Option<IpAddr>,
    pub(crate) uid: Option<String>,
}

/// The limit that an allocation would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitExceeded {
    Server,
    Address,
    User,
}

impl From<LimitExceeded> for Error {
    fn from(exceeded: LimitExceeded) -> Self {
        match exceeded {
            LimitExceeded::Server => Self::Overloaded,
            LimitExceeded::Address => Self::TooManyAtOnce(
                "this address uses as much of the server as one address may".into(),
            ),
            LimitExceeded::User => {
                Self::TooManyAtOnce("this user uses as much of the server as one user may".into())
            }
        }
    }
}

/// An amount that callers share.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<BudgetInner>);

#[derive(Debug)]
struct BudgetInner {
    name: &'static str,
    limits: BudgetLimits,
    usage: Mutex<Usage>,
}

/// The amounts in use.
#[derive(Debug, Default)]
struct Usage {
    total: usize,
    non_services: usize,
    by_address: HashMap<IpAddr, usize>,
    by_user: HashMap<String, usize>,
}

impl Budget {
    pub(super) fn new(name: &'static str, limits: BudgetLimits) -> Self {
        Self(Arc::new(BudgetInner {
            name,
            limits,
            usage: Mutex::default(),
        }))
    }

    /// Acquires an allocation of this amount.
    ///
    /// # Errors
    /// The limit that leaves too little.
    pub(crate) fn try_acquire(
        &self,
        identity: CallerIdentity,
        amount: usize,
    ) -> Result<Allocation, LimitExceeded> {
        let mut allocation = Allocation {
            budget: self.clone(),
            identity: CallerIdentity {
                address: identity.address.map(network),
                ..identity
            },
            amount: 0,
        };
        allocation.grow(amount)?;
        Ok(allocation)
    }

    /// Returns the amount in use.
    pub(crate) fn used(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.0.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a rejection in the metrics.
    fn count_rejection(&self, exceeded: LimitExceeded) -> LimitExceeded {
        let by = match exceeded {
            LimitExceeded::Server => "server",
            LimitExceeded::Address => "address",
            LimitExceeded::User => "user",
        };
        metrics::counter!(crate::metrics::REQUESTS_REJECTED_TOTAL, "reason" => self.0.name, "by" => by)
            .increment(1);
        exceeded
    }
}

/// Returns the /64 network of an IPv6 address, because one host can use all addresses of it.
/// Returns IPv4 addresses unchanged.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        IpAddr::V4(_) => address,
    }
}

impl Usage {
    /// Checks that an additional amount stays within the limits.
    fn check(
        &self,
        limits: &BudgetLimits,
        identity: &CallerIdentity,
        amount: usize,
    ) -> Result<(), LimitExceeded> {
        let left = limits.total.saturating_sub(self.total);
        if identity.is_service {
            return if left < amount {
                Err(LimitExceeded::Server)
            } else {
                Ok(())
            };
        }
        let user_usage = identity
            .uid
            .as_ref()
            .and_then(|uid| self.by_user.get(uid))
            .copied()
            .unwrap_or_default();
        if identity.uid.is_some() && limits.per_user.saturating_sub(user_usage) < amount {
            return Err(LimitExceeded::User);
        }
        let address_usage = identity
            .address
            .and_then(|address| self.by_address.get(&address))
            .copied()
            .unwrap_or_default();
        if identity.address.is_some() && limits.per_address.saturating_sub(address_usage) < amount {
            return Err(LimitExceeded::Address);
        }
        if left.min(limits.non_services.saturating_sub(self.non_services)) < amount {
            Err(LimitExceeded::Server)
        } else {
            Ok(())
        }
    }

    fn add(&mut self, identity: &CallerIdentity, amount: usize) {
        self.total += amount;
        if identity.is_service || amount == 0 {
            return;
        }
        self.non_services += amount;
        if let Some(address) = identity.address {
            *self.by_address.entry(address).or_default() += amount;
        }
        if let Some(uid) = &identity.uid {
            match self.by_user.get_mut(uid) {
                Some(usage) => *usage += amount,
                None => drop(self.by_user.insert(uid.clone(), amount)),
            }
        }
    }

    fn remove(&mut self, identity: &CallerIdentity, amount: usize) {
        self.total -= amount;
        if identity.is_service || amount == 0 {
            return;
        }
        self.non_services -= amount;
        if let Some(address) = &identity.address {
            subtract(&mut self.by_address, address, amount);
        }
        if let Some(uid) = &identity.uid {
            subtract(&mut self.by_user, uid, amount);
        }
    }
}

fn subtract<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K, amount: usize) {
    if let Some(usage) = counts.get_mut(key) {
        *usage -= amount;
        if *usage == 0 {
            counts.remove(key);
        }
    }
}

/// A part of a budget; dropping it returns its amount.
#[derive(Debug)]
pub(crate) struct Allocation {
    budget: Budget,
    identity: CallerIdentity,
    amount: usize,
}

impl Allocation {
    /// Adds an amount. After an error the allocation is unchanged.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), LimitExceeded> {
        let mut usage = self.budget.lock();
        if let Err(exceeded) = usage.check(&self.budget.0.limits, &self.identity, more) {
            drop(usage);
            return Err(self.budget.count_rejection(exceeded));
        }
        usage.add(&self.identity, more);
        drop(usage);
        self.amount += more;
        Ok(())
    }

    /// Changes the amount. A smaller amount is never refused.
    pub(crate) fn resize(&mut self, amount: usize) -> Result<(), LimitExceeded> {
        match amount.checked_sub(self.amount) {
            Some(more) => self.grow(more),
            None => {
                let less = self.amount - amount;
                self.budget.lock().remove(&self.identity, less);
                self.amount = amount;
                Ok(())
            }
        }
    }

    /// Counts the allocation for another caller, or for the same caller after its user is known. If
    /// that exceeds a limit, the allocation is unchanged.
    pub(crate) fn transfer(&mut self, identity: CallerIdentity) -> Result<(), LimitExceeded> {
        let identity = CallerIdentity {
            address: identity.address.map(network),
            ..identity
        };
        let mut usage = self.budget.lock();
        usage.remove(&self.identity, self.amount);
        let checked = usage.check(&self.budget.0.limits, &identity, self.amount);
        if checked.is_ok() {
            self.identity = identity;
        }
        usage.add(&self.identity, self.amount);
        drop(usage);
        checked.map_err(|exceeded| self.budget.count_rejection(exceeded))
    }

    pub(crate) fn amount(&self) -> usize {
        self.amount
    }

    pub(crate) fn identity(&self) -> &CallerIdentity {
        &self.identity
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.budget.lock().remove(&self.identity, self.amount);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::budget) fn budget(total: usize) -> Budget {
        Budget::new("memory", BudgetLimits::from_total(total))
    }

    pub(in crate::budget) fn address(last: u8) -> CallerIdentity {
        CallerIdentity {
            address: Some([192, 0, 2, last].into()),
            ..CallerIdentity::default()
        }
    }

    pub(in crate::budget) fn user(last: u8, uid: &str) -> CallerIdentity {
        CallerIdentity {
            uid: Some(uid.to_owned()),
            ..address(last)
        }
    }

    pub(in crate::budget) fn service() -> CallerIdentity {
        CallerIdentity {
            is_service: true,
            ..CallerIdentity::default()
        }
    }

    #[test]
    fn addresses_and_users_are_limited_and_a_quarter_is_reserved_for_services() {
        let budget = budget(800);
        let _first = budget.try_acquire(user(1, "ann"), 200).unwrap();
        assert_eq!(
            budget.try_acquire(user(2, "ann"), 1).unwrap_err(),
            LimitExceeded::User
        );
        let _second = budget.try_acquire(address(1), 100).unwrap();
        assert_eq!(
            budget.try_acquire(address(1), 1).unwrap_err(),
            LimitExceeded::Address
        );
        let _third = budget.try_acquire(address(2), 300).unwrap();
        assert_eq!(
            budget.try_acquire(address(3), 1).unwrap_err(),
            LimitExceeded::Server
        );
        let fourth = budget.try_acquire(service(), 200).unwrap();
        assert_eq!(
            budget.try_acquire(service(), 1).unwrap_err(),
            LimitExceeded::Server
        );
        drop(fourth);
        assert_eq!(budget.used(), 600);
    }

    #[test]
    fn dropped_share_returns_its_whole_amount() {
        let budget = budget(800);
        let mut allocation = budget.try_acquire(address(1), 100).unwrap();
        assert_eq!(allocation.grow(300).unwrap_err(), LimitExceeded::Address);
        allocation.resize(300).unwrap();
        assert_eq!((allocation.amount(), budget.used()), (300, 300));
        allocation.resize(10).unwrap();
        allocation.transfer(user(1, "ann")).unwrap();
        assert_eq!(allocation.resize(201).unwrap_err(), LimitExceeded::User);
        allocation.transfer(service()).unwrap();
        allocation.resize(800).unwrap();
        assert_eq!(
            allocation.transfer(user(1, "ann")).unwrap_err(),
            LimitExceeded::User
        );
        assert_eq!(
            allocation.identity(),
            &service(),
            "a refused transfer must not change the caller"
        );
        drop(allocation);
        let usage = budget.lock();
        assert!(
            usage.total == 0
                && usage.non_services == 0
                && usage.by_address.is_empty()
                && usage.by_user.is_empty(),
            "{usage:?}"
        );
    }

    #[test]
    fn ipv6_network_counts_as_one_address() {
        let budget = budget(800);
        let identity = |text: &str| CallerIdentity {
            address: Some(text.parse().unwrap()),
            ..CallerIdentity::default()
        };
        let _first = budget.try_acquire(identity("2001:db8::1"), 300).unwrap();
        assert_eq!(
            budget.try_acquire(identity("2001:db8::2"), 1).unwrap_err(),
            LimitExceeded::Address
        );
        budget.try_acquire(identity("2001:db8:0:1::2"), 1).unwrap();
    }
}
