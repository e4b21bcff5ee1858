//! A budget: an amount that callers share, and the parts of it that they hold.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// How much may be held at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ceilings {
    /// By everybody.
    pub(super) all: usize,
    /// By callers that are not services.
    pub(super) guests: usize,
    /// For one address that is not a service's.
    pub(super) address: usize,
    /// By one user.
    pub(super) user: usize,
}

impl Ceilings {
    /// A quarter is kept for services. One address has at most half of the rest, one user a third
    /// of it.
    pub(super) fn of(all: usize) -> Self {
        let guests = (all - all / 4).max(1);
        Self {
            all,
            guests,
            address: (guests / 2).max(1),
            user: (guests / 3).max(1),
        }
    }
}

/// The caller for whom something is held, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) is_service: bool,
    /// The caller's address; `None` for a proxy, which stands for many callers.
    pub(crate) address: Option<IpAddr>,
    pub(crate) uid: Option<String>,
}

/// The ceiling that a share would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Server,
    Address,
    User,
}

impl From<Full> for Error {
    fn from(full: Full) -> Self {
        match full {
            Full::Server => Self::Overloaded,
            Full::Address => Self::TooManyAtOnce(
                "this address holds as much of the server as one address may".into(),
            ),
            Full::User => {
                Self::TooManyAtOnce("this user holds as much of the server as one user may".into())
            }
        }
    }
}

/// An amount that callers share.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    ceilings: Ceilings,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    guests: usize,
    addresses: HashMap<IpAddr, usize>,
    users: HashMap<String, usize>,
}

impl Budget {
    pub(super) fn new(name: &'static str, ceilings: Ceilings) -> Self {
        Self(Arc::new(Inner {
            name,
            ceilings,
            held: Mutex::default(),
        }))
    }

    /// A share of this amount.
    pub(crate) fn take(&self, holder: Holder, amount: usize) -> Result<Share, Full> {
        let mut share = Share {
            budget: self.clone(),
            holder: Holder {
                address: holder.address.map(network),
                ..holder
            },
            amount: 0,
        };
        share.grow(amount)?;
        Ok(share)
    }

    /// The amount that is held.
    pub(crate) fn held(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self, full: Full) -> Full {
        let by = match full {
            Full::Server => "server",
            Full::Address => "address",
            Full::User => "user",
        };
        metrics::counter!(crate::metrics::REQUESTS_REJECTED_TOTAL, "reason" => self.0.name, "by" => by)
            .increment(1);
        full
    }
}

/// A host of version 6 has 2^64 addresses.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        IpAddr::V4(_) => address,
    }
}

impl Held {
    fn fits(&self, ceilings: &Ceilings, holder: &Holder, amount: usize) -> Result<(), Full> {
        let left = ceilings.all.saturating_sub(self.all);
        if holder.is_service {
            return if left < amount {
                Err(Full::Server)
            } else {
                Ok(())
            };
        }
        let held_by_user = holder
            .uid
            .as_ref()
            .and_then(|uid| self.users.get(uid))
            .copied()
            .unwrap_or_default();
        if holder.uid.is_some() && ceilings.user.saturating_sub(held_by_user) < amount {
            return Err(Full::User);
        }
        let held_by_address = holder
            .address
            .and_then(|address| self.addresses.get(&address))
            .copied()
            .unwrap_or_default();
        if holder.address.is_some() && ceilings.address.saturating_sub(held_by_address) < amount {
            return Err(Full::Address);
        }
        if left.min(ceilings.guests.saturating_sub(self.guests)) < amount {
            Err(Full::Server)
        } else {
            Ok(())
        }
    }

    fn add(&mut self, holder: &Holder, amount: usize) {
        self.all += amount;
        if holder.is_service || amount == 0 {
            return;
        }
        self.guests += amount;
        if let Some(address) = holder.address {
            *self.addresses.entry(address).or_default() += amount;
        }
        if let Some(uid) = &holder.uid {
            match self.users.get_mut(uid) {
                Some(held) => *held += amount,
                None => drop(self.users.insert(uid.clone(), amount)),
            }
        }
    }

    fn remove(&mut self, holder: &Holder, amount: usize) {
        self.all -= amount;
        if holder.is_service || amount == 0 {
            return;
        }
        self.guests -= amount;
        if let Some(address) = &holder.address {
            subtract(&mut self.addresses, address, amount);
        }
        if let Some(uid) = &holder.uid {
            subtract(&mut self.users, uid, amount);
        }
    }
}

fn subtract<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K, amount: usize) {
    if let Some(held) = counts.get_mut(key) {
        *held -= amount;
        if *held == 0 {
            counts.remove(key);
        }
    }
}

/// A part of a budget, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    holder: Holder,
    amount: usize,
}

impl Share {
    /// Holds more, or as much as before.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Full> {
        let mut held = self.budget.lock();
        if let Err(full) = held.fits(&self.budget.0.ceilings, &self.holder, more) {
            drop(held);
            return Err(self.budget.full(full));
        }
        held.add(&self.holder, more);
        drop(held);
        self.amount += more;
        Ok(())
    }

    /// Holds this amount from now on.
    pub(crate) fn resize(&mut self, amount: usize) -> Result<(), Full> {
        match amount.checked_sub(self.amount) {
            Some(more) => self.grow(more),
            None => {
                let less = self.amount - amount;
                self.budget.lock().remove(&self.holder, less);
                self.amount = amount;
                Ok(())
            }
        }
    }

    /// Holds it for another caller, or for one that is known better, if that one may hold as much.
    pub(crate) fn hand_over(&mut self, holder: Holder) -> Result<(), Full> {
        let holder = Holder {
            address: holder.address.map(network),
            ..holder
        };
        let mut held = self.budget.lock();
        held.remove(&self.holder, self.amount);
        let fits = held.fits(&self.budget.0.ceilings, &holder, self.amount);
        if fits.is_ok() {
            self.holder = holder;
        }
        held.add(&self.holder, self.amount);
        drop(held);
        fits.map_err(|full| self.budget.full(full))
    }

    pub(crate) fn amount(&self) -> usize {
        self.amount
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.lock().remove(&self.holder, self.amount);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::budget) fn budget(all: usize) -> Budget {
        Budget::new("memory", Ceilings::of(all))
    }

    pub(in crate::budget) fn at(last: u8) -> Holder {
        Holder {
            address: Some([192, 0, 2, last].into()),
            ..Holder::default()
        }
    }

    pub(in crate::budget) fn user(last: u8, uid: &str) -> Holder {
        Holder {
            uid: Some(uid.to_owned()),
            ..at(last)
        }
    }

    pub(in crate::budget) fn service() -> Holder {
        Holder {
            is_service: true,
            ..Holder::default()
        }
    }

    #[test]
    fn no_address_and_no_user_takes_all_and_services_keep_a_quarter() {
        let budget = budget(800);
        let _one = budget.take(user(1, "ann"), 200).unwrap();
        assert_eq!(budget.take(user(2, "ann"), 1).unwrap_err(), Full::User);
        let _two = budget.take(at(1), 100).unwrap();
        assert_eq!(budget.take(at(1), 1).unwrap_err(), Full::Address);
        let _three = budget.take(at(2), 300).unwrap();
        assert_eq!(budget.take(at(3), 1).unwrap_err(), Full::Server);
        let four = budget.take(service(), 200).unwrap();
        assert_eq!(budget.take(service(), 1).unwrap_err(), Full::Server);
        drop(four);
        assert_eq!(budget.held(), 600);
    }

    #[test]
    fn a_share_that_grows_shrinks_and_goes_leaves_nothing_behind() {
        let budget = budget(800);
        let mut share = budget.take(at(1), 100).unwrap();
        assert_eq!(share.grow(300).unwrap_err(), Full::Address);
        share.resize(300).unwrap();
        assert_eq!((share.amount(), budget.held()), (300, 300));
        share.resize(10).unwrap();
        share.hand_over(user(1, "ann")).unwrap();
        assert_eq!(share.resize(201).unwrap_err(), Full::User);
        share.hand_over(service()).unwrap();
        share.resize(800).unwrap();
        assert_eq!(share.hand_over(user(1, "ann")).unwrap_err(), Full::User);
        assert_eq!(share.holder(), &service(), "it stays where it was");
        drop(share);
        let held = budget.lock();
        assert!(
            held.all == 0 && held.guests == 0 && held.addresses.is_empty() && held.users.is_empty(),
            "{held:?}"
        );
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let budget = budget(800);
        let of = |text: &str| Holder {
            address: Some(text.parse().unwrap()),
            ..Holder::default()
        };
        let _share = budget.take(of("2001:db8::1"), 300).unwrap();
        assert_eq!(
            budget.take(of("2001:db8::2"), 1).unwrap_err(),
            Full::Address
        );
        budget.take(of("2001:db8:0:1::2"), 1).unwrap();
    }
}
