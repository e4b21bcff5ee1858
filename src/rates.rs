//! How often one user, and one address, may ask. Services are not counted: they are few, known, and
//! act for many.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;

use crate::budget::network;
use crate::config::{Settings, address_range};
use crate::error::Error;
use crate::ids::Uid;

/// Who asks how often.
#[derive(Debug)]
pub(crate) struct Rates {
    users: Option<DefaultKeyedRateLimiter<String>>,
    addresses: Option<DefaultKeyedRateLimiter<IpAddr>>,
    proxies: Vec<IpNet>,
    clock: DefaultClock,
}

impl Rates {
    pub(crate) fn new(settings: &Settings) -> Self {
        let limits = &settings.limits;
        let proxies = settings.server.trusted_proxies.iter();
        Self {
            users: limiter(limits.user_requests_per_second),
            addresses: limiter(limits.address_requests_per_second),
            // What is neither was refused with the configuration.
            proxies: proxies.filter_map(|range| address_range(range)).collect(),
            clock: DefaultClock::default(),
        }
    }

    /// Where a request comes from: the other end of the connection, or, where that is a proxy of
    /// ours, the last address in `X-Forwarded-For` that is none. `None` when the server does not
    /// know its connections.
    pub(crate) fn address(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
        let mut address = peer.ip().to_canonical();
        let hops = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        // Anybody may write the beginning of the list; what our proxies wrote stands at its end.
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

    /// True for a proxy of ours.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|range| range.contains(&address))
    }

    /// # Errors
    /// [`Error::TooMany`].
    pub(crate) fn check_address(&self, address: Option<IpAddr>) -> Result<(), Error> {
        match (&self.addresses, address.map(network)) {
            (Some(limiter), Some(key)) => self.check(limiter, &key, "address"),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// [`Error::TooMany`].
    pub(crate) fn check_user(&self, uid: &Uid) -> Result<(), Error> {
        match &self.users {
            Some(limiter) => self.check(limiter, &uid.as_str().to_owned(), "user"),
            None => Ok(()),
        }
    }

    /// As [`Rates::check_user`], for a request that does several things: each counts as a request.
    /// All of them, or nothing is counted.
    ///
    /// # Errors
    /// [`Error::TooMany`]; [`Error::TooComplex`] for more than a user can ever do at once.
    pub(crate) fn check_user_for(&self, uid: &Uid, things: usize) -> Result<(), Error> {
        let Some(limiter) = &self.users else {
            return Ok(());
        };
        let things = u32::try_from(things).unwrap_or(u32::MAX);
        let Some(things) = NonZeroU32::new(things) else {
            return Ok(());
        };
        match limiter.check_key_n(&uid.as_str().to_owned(), things) {
            Ok(result) => result.map_err(|until| {
                metrics::counter!("recents_rate_limited_total", "limit" => "user").increment(1);
                Error::TooMany(until.wait_time_from(self.clock.now()).as_secs().max(1))
            }),
            Err(most) => Err(Error::TooComplex(
                format!("a user may do at most {} things at once", most.0).into(),
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
            metrics::counter!("recents_rate_limited_total", "limit" => limit).increment(1);
            Error::TooMany(until.wait_time_from(self.clock.now()).as_secs().max(1))
        })
    }

    /// Forgets who has not asked for a while.
    pub(crate) fn forget(&self) {
        if let Some(limiter) = &self.users {
            limiter.retain_recent();
        }
        if let Some(limiter) = &self.addresses {
            limiter.retain_recent();
        }
    }
}

/// So many a second on average, twice as many at once.
fn limiter<K: Clone + std::hash::Hash + Eq>(per_second: u32) -> Option<DefaultKeyedRateLimiter<K>> {
    let rate = NonZeroU32::new(per_second)?;
    Some(RateLimiter::keyed(Quota::per_second(rate).allow_burst(
        rate.saturating_mul(NonZeroU32::MIN.saturating_add(1)),
    )))
}

/// An address as proxies write it, with or without a port.
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

    fn rates(change: impl FnOnce(&mut Settings)) -> Rates {
        let mut settings = Settings::default();
        change(&mut settings);
        Rates::new(&settings)
    }

    #[test]
    fn only_proxies_of_ours_are_believed() {
        let rates = rates(|settings| {
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
                rates.address(&extensions, &headers),
                Some(expected.parse().unwrap()),
                "{peer} {forwarded}"
            );
        }
    }

    #[test]
    fn twice_the_rate_at_once_and_then_no_more() {
        let rates = rates(|settings| {
            settings.limits.user_requests_per_second = 2;
            settings.limits.address_requests_per_second = 0;
        });
        let (ann, bob) = (
            Uid::parse("uid", "ann").unwrap(),
            Uid::parse("uid", "bob").unwrap(),
        );
        for _ in 0..4 {
            rates.check_user(&ann).unwrap();
        }
        assert!(matches!(rates.check_user(&ann), Err(Error::TooMany(1))));
        rates.check_user(&bob).unwrap();
        for _ in 0..10_000 {
            rates.check_address(Some([127, 0, 0, 1].into())).unwrap();
        }
    }

    #[test]
    fn several_things_count_as_so_many_or_not_at_all() {
        let rates = rates(|settings| settings.limits.user_requests_per_second = 2);
        let ann = Uid::parse("uid", "ann").unwrap();
        assert!(
            matches!(rates.check_user_for(&ann, 5), Err(Error::TooComplex(_))),
            "more than four never pass"
        );
        rates.check_user_for(&ann, 0).unwrap();
        rates.check_user_for(&ann, 3).unwrap();
        assert!(matches!(
            rates.check_user_for(&ann, 2),
            Err(Error::TooMany(_))
        ));
        rates.check_user(&ann).unwrap();
        assert!(matches!(rates.check_user(&ann), Err(Error::TooMany(_))));
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let rates = rates(|settings| settings.limits.address_requests_per_second = 1);
        rates
            .check_address(Some("2001:db8::1".parse().unwrap()))
            .unwrap();
        rates
            .check_address(Some("2001:db8::2".parse().unwrap()))
            .unwrap();
        assert!(
            rates
                .check_address(Some("2001:db8::3".parse().unwrap()))
                .is_err()
        );
        rates
            .check_address(Some("2001:db8:0:1::3".parse().unwrap()))
            .unwrap();
    }
}
