//! `[server]`

use serde::{Deserialize, Serialize};

use super::check::{DAY_SECONDS, check_ranges};
use super::source::list_or_text;
use super::{ConfigError, address_range};

/// `[server]`: the listener, the shutdown and the web pages that may call the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    /// Address to listen on. Port 0 takes any free port. Without `auth.manager_token` or a key in
    /// `auth.jwt`, only loopback addresses are allowed.
    pub listen: String,
    /// How long a shutdown waits for running requests.
    pub shutdown_seconds: u64,
    /// Origins of web pages (`https://chat.example.com`) that may use GraphQL over HTTP and
    /// WebSocket, besides the server's own pages.
    #[serde(deserialize_with = "list_or_text")]
    pub cors_origins: Vec<String>,
    /// Addresses and ranges (10.0.0.0/8) of proxies whose X-Forwarded-For is trusted.
    #[serde(deserialize_with = "list_or_text")]
    pub trusted_proxies: Vec<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:5001".to_owned(),
            shutdown_seconds: 10,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

impl ServerConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges(
            "server",
            &[("shutdown_seconds", self.shutdown_seconds, 1..=DAY_SECONDS)],
        )?;
        check_addresses("server.trusted_proxies", &self.trusted_proxies)?;
        self.cors_origins
            .iter()
            .try_for_each(|origin| check_origin(origin))
    }
}

/// Checks a list of addresses and ranges.
pub(super) fn check_addresses(key: &str, ranges: &[String]) -> Result<(), ConfigError> {
    match ranges.iter().find(|range| address_range(range).is_none()) {
        Some(range) => Err(ConfigError(format!(
            "{key}: {range:?} is neither an address nor a range like 10.0.0.0/8"
        ))),
        None => Ok(()),
    }
}

/// Checks that an origin is spelled as browsers send it.
fn check_origin(origin: &str) -> Result<(), ConfigError> {
    let normalized = reqwest::Url::parse(origin)
        .ok()
        .filter(|url| ["http", "https"].contains(&url.scheme()))
        .map(|url| url.origin().ascii_serialization())
        .filter(|_| !origin.contains('*'));
    match normalized {
        Some(normalized) if normalized == *origin => Ok(()),
        Some(normalized) => Err(ConfigError(format!(
            "server.cors_origins: browsers do not send {origin:?}; did you mean {normalized}?"
        ))),
        None => Err(ConfigError(format!(
            "server.cors_origins: {origin:?} is not an origin like https://chat.example.com"
        ))),
    }
}
