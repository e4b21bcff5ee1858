//! Checks that several sections share.

use std::ops::RangeInclusive;

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
