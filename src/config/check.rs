//! Checks that several sections share.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use axum::http::uri::Authority;

use super::{ConfigError, Secret};

/// Maximum of every time limit.
pub(super) const DAY_SECONDS: u64 = 86_400;
/// Maximum of every number of requests, connections and operations.
pub(super) const MAX_COUNT: u64 = 1_000_000;
/// Maximum of every other number: more than any machine has room for (a TiB, if it is bytes).
pub(super) const MAX_VALUE: u64 = 1 << 40;

/// Checks that each number of a section is in its range. The items are key, value and range.
pub(super) fn check_ranges(
    section: &str,
    numbers: &[(&str, u64, RangeInclusive<u64>)],
) -> Result<(), ConfigError> {
    match numbers
        .iter()
        .find(|(_, value, allowed)| !allowed.contains(value))
    {
        Some((key, _, allowed)) => Err(ConfigError(format!(
            "{section}.{key} must be between {} and {}",
            allowed.start(),
            allowed.end()
        ))),
        None => Ok(()),
    }
}

/// Checks that a URL, unless it is empty, is one of HTTP.
pub(super) fn check_http_url(key: &str, url: &str) -> Result<(), ConfigError> {
    match reqwest::Url::parse(url) {
        _ if url.is_empty() => Ok(()),
        Ok(parsed) if ["http", "https"].contains(&parsed.scheme()) => Ok(()),
        Ok(_) => Err(ConfigError(format!(
            "{key} must begin with https:// or http://"
        ))),
        Err(_) => Err(ConfigError(format!("{key} must be a URL"))),
    }
}

/// Checks that an address, unless it is empty, is a host and a port.
pub(super) fn check_host_and_port(key: &str, address: &str) -> Result<(), ConfigError> {
    let is_valid = |authority: Authority| {
        authority.port_u16().is_some_and(|port| port > 0)
            && !authority.host().is_empty()
            && !address.contains('@')
    };
    if address.is_empty() || address.parse().is_ok_and(is_valid) {
        return Ok(());
    }
    Err(ConfigError(format!(
        "{key} must be a host and a port, such as business:6979"
    )))
}

/// Checks that a host and a port are not those of this server's listener, as far as their texts
/// show it.
pub(super) fn check_not_own_address(
    key: &str,
    (host, port): (&str, u16),
    (listen_key, listen): (&str, &str),
) -> Result<(), ConfigError> {
    let Some((own_host, own_port)) = listen.rsplit_once(':') else {
        return Ok(());
    };
    let is_this_machine = |host: &str| {
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        host.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|address| address.is_loopback() || address.is_unspecified())
    };
    let is_own =
        host.eq_ignore_ascii_case(own_host) || (is_this_machine(host) && is_this_machine(own_host));
    if is_own && own_port.parse() == Ok(port) {
        return Err(ConfigError(format!(
            "{key} is the address of this server itself ({listen_key}): name the server to which \
             WuKongIM sent before"
        )));
    }
    Ok(())
}

/// Checks that a previous secret, which is accepted during rotation, has a current one beside it.
pub(super) fn check_previous_secret(
    (previous_key, previous): (&str, &Secret),
    (key, current): (&str, &Secret),
) -> Result<(), ConfigError> {
    if !previous.reveal().is_empty() && current.reveal().is_empty() {
        return Err(ConfigError(format!(
            "{previous_key} is set, but {key} is empty"
        )));
    }
    Ok(())
}
