//! Rate limits for each user and each address. Services are exempt: they are few, trusted, and act
//! for many users.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use ipnet::IpNet;

use crate::budget::network;
use crate::config::{Settings, address_range};
use crate::error::Error;
use crate::model::Uid;

/// Limits requests by user and by address, and finds out the addresses of clients.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    users: Option<DefaultKeyedRateLimiter<String>>,
    addresses: Option<DefaultKeyedRateLimiter<IpAddr>>,
    proxies: Vec<IpNet>,
    clock: DefaultClock,
}

impl RateLimiter {
    pub(crate) fn new(settings: &Settings) -> Self {
        let limits = &settings.limits;
        let proxies = settings.server.trusted_proxies.iter();
        Self {
            users: limiter(limits.user_requests_per_second),
            addresses: limiter(limits.address_requests_per_second),
            // The configuration was checked: every entry parses.
            proxies: proxies.filter_map(|range| address_range(range)).collect(),
            clock: DefaultClock::default(),
        }
    }

    /// Returns the address of the client: the peer of the connection or, if the peer is a trusted
    /// proxy, the last address in `X-Forwarded-For` that is not a trusted proxy. `None` if the
    /// server does not know the peer.
    pub(crate) fn client_ip(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
        let mut address = peer.ip().to_canonical();
        let hops = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        // Clients can forge the beginning of the list; trusted proxies append to its end.
        for hop in hops.collect::<Vec<_>>().into_iter().rev() {
            if !self.is_proxy(address) {
                break;
            }
            let Some(before) = parse_hop(hop.trim()) else {
                break;
            };
            address = before;
        }
        Some(address)
    }

    /// Returns whether the address is in `server.trusted_proxies`.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|range| range.contains(&address))
    }

    /// # Errors
    /// [`Error::RateLimited`].
    pub(crate) fn check_address(&self, address: Option<IpAddr>) -> Result<(), Error> {
        match (&self.addresses, address.map(network)) {
            (Some(limiter), Some(key)) => self.check(limiter, &key, "address"),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// [`Error::RateLimited`].
    pub(crate) fn check_user(&self, uid: &Uid) -> Result<(), Error> {
        match &self.users {
            Some(limiter) => self.check(limiter, &uid.as_str().to_owned(), "user"),
            None => Ok(()),
        }
    }

    /// Counts a request of several operations, each of them as one request. Counts all of them or,
    /// if they are too many, none.
    ///
    /// # Errors
    /// [`Error::RateLimited`]; [`Error::TooComplex`] for more operations than the limit allows at
    /// once.
    pub(crate) fn check_user_operations(&self, uid: &Uid, operations: usize) -> Result<(), Error> {
        let Some(limiter) = &self.users else {
            return Ok(());
        };
        let operations = u32::try_from(operations).unwrap_or(u32::MAX);
        let Some(operations) = NonZeroU32::new(operations) else {
            return Ok(());
        };
        match limiter.check_key_n(&uid.as_str().to_owned(), operations) {
            Ok(result) => result.map_err(|until| {
                metrics::counter!(crate::metrics::RATE_LIMITED_TOTAL, "limit" => "user")
                    .increment(1);
                Error::RateLimited(until.wait_time_from(self.clock.now()).as_secs().max(1))
            }),
            Err(max) => Err(Error::TooComplex(
                format!("a user may run at most {} operations at once", max.0).into(),
            )),
        }
    }

    fn check<K: Clone + std::hash::Hash + Eq>(
        &self,
        limiter: &DefaultKeyedRateLimiter<K>,
        key: &K,
        limit: &'static str,
    ) -> Result<(), Error> {
        limiter.check_key(key).map_err(|until| {
            metrics::counter!(crate::metrics::RATE_LIMITED_TOTAL, "limit" => limit).increment(1);
            Error::RateLimited(until.wait_time_from(self.clock.now()).as_secs().max(1))
        })
    }

    /// Drops callers whose limit has fully recovered, to bound the memory.
    pub(crate) fn evict_idle(&self) {
        if let Some(limiter) = &self.users {
            limiter.retain_recent();
        }
        if let Some(limiter) = &self.addresses {
            limiter.retain_recent();
        }
    }
}

/// Returns a limiter that allows this rate on average and twice as many requests at once; `None`
/// for no limit.
fn limiter<K: Clone + std::hash::Hash + Eq>(per_second: u32) -> Option<DefaultKeyedRateLimiter<K>> {
    let rate = NonZeroU32::new(per_second)?;
    Some(governor::RateLimiter::keyed(
        Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::MIN.saturating_add(1))),
    ))
}

/// Parses an address as proxies write it, with or without a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.split_once(']'))
        .map_or(text, |(address, _)| address);
    let address = bare
        .parse()
        .ok()
        .or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter_with(change: impl FnOnce(&mut Settings)) -> RateLimiter {
        let mut settings = Settings::default();
        change(&mut settings);
        RateLimiter::new(&settings)
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let limiter = limiter_with(|settings| {
            settings.server.trusted_proxies = vec!["10.0.0.0/8".to_owned(), "::1".to_owned()]
        });
        for (peer, forwarded, expected) in [
            ("203.0.113.9:1", "198.51.100.1", "203.0.113.9"),
            ("10.0.0.1:1", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1:1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
            ("10.0.0.1:1", "198.51.100.1, 10.1.1.1", "198.51.100.1"),
            ("10.0.0.1:1", "198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1:1", "[2001:db8::1]:4711", "2001:db8::1"),
            ("10.0.0.1:1", "198.51.100.1, nonsense", "10.0.0.1"),
            ("10.0.0.1:1", "", "10.0.0.1"),
            ("[::ffff:10.0.0.1]:1", "198.51.100.1", "198.51.100.1"),
            ("[::1]:1", "198.51.100.1", "198.51.100.1"),
        ] {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
            let headers = HeaderMap::from_iter([(
                "x-forwarded-for".parse().unwrap(),
                forwarded.parse().unwrap(),
            )]);
            assert_eq!(
                limiter.client_ip(&extensions, &headers),
                Some(expected.parse().unwrap()),
                "{peer} {forwarded}"
            );
        }
    }

    #[test]
    fn a_burst_is_twice_the_rate() {
        let limiter = limiter_with(|settings| {
            settings.limits.user_requests_per_second = 2;
            settings.limits.address_requests_per_second = 0;
        });
        let (ann, bob) = (
            Uid::parse("uid", "ann").unwrap(),
            Uid::parse("uid", "bob").unwrap(),
        );
        for _ in 0..4 {
            limiter.check_user(&ann).unwrap();
        }
        assert!(matches!(
            limiter.check_user(&ann),
            Err(Error::RateLimited(1))
        ));
        limiter.check_user(&bob).unwrap();
        for _ in 0..10_000 {
            limiter.check_address(Some([127, 0, 0, 1].into())).unwrap();
        }
    }

    #[test]
    fn several_operations_are_counted_together_or_not_at_all() {
        let limiter = limiter_with(|settings| settings.limits.user_requests_per_second = 2);
        let ann = Uid::parse("uid", "ann").unwrap();
        assert!(
            matches!(
                limiter.check_user_operations(&ann, 5),
                Err(Error::TooComplex(_))
            ),
            "more than four never pass"
        );
        limiter.check_user_operations(&ann, 0).unwrap();
        limiter.check_user_operations(&ann, 3).unwrap();
        assert!(matches!(
            limiter.check_user_operations(&ann, 2),
            Err(Error::RateLimited(_))
        ));
        limiter.check_user(&ann).unwrap();
        assert!(matches!(
            limiter.check_user(&ann),
            Err(Error::RateLimited(_))
        ));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let limiter = limiter_with(|settings| settings.limits.address_requests_per_second = 1);
        limiter
            .check_address(Some("2001:db8::1".parse().unwrap()))
            .unwrap();
        limiter
            .check_address(Some("2001:db8::2".parse().unwrap()))
            .unwrap();
        assert!(
            limiter
                .check_address(Some("2001:db8::3".parse().unwrap()))
                .is_err()
        );
        limiter
            .check_address(Some("2001:db8:0:1::3".parse().unwrap()))
            .unwrap();
    }
}
