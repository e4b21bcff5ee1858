//! `[server]`

use axum::http::HeaderName;
use serde::{Deserialize, Serialize};

use super::check::{DAY_SECONDS, check_ranges};
use super::source::list_or_text;
use super::{ConfigError, address_range};

/// The headers of this server, of GraphQL clients, and of tracing (W3C, Zipkin, Sentry, Datadog).
const DEFAULT_CORS_HEADERS: [&str; 26] = [
    "accept",
    "authorization",
    "content-type",
    "last-event-id",
    "token",
    "x-request-id",
    "x-requested-with",
    "apollo-require-preflight",
    "apollographql-client-name",
    "apollographql-client-version",
    "graphql-client-name",
    "graphql-client-version",
    "x-apollo-operation-id",
    "x-apollo-operation-name",
    "b3",
    "baggage",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-datadog-origin",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-trace-id",
];

/// `[server]`: the listener, the shutdown and the web pages that may call the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    /// Address to listen on. Port 0 takes any free port. Without `auth.manager_token` or a key in
    /// `auth.jwt`, only loopback addresses are allowed.
    pub listen: String,
    /// How long after SIGTERM the server still takes requests, while `/readyz` answers 503: the time
    /// that load balancers need to notice.
    pub drain_seconds: u64,
    /// How long a shutdown then waits for running requests.
    pub shutdown_timeout_seconds: u64,
    /// Origins of web pages (`https://chat.example.com`) that may use GraphQL over HTTP and
    /// WebSocket, besides the server's own pages.
    #[serde(deserialize_with = "list_or_text")]
    pub cors_origins: Vec<String>,
    /// Headers that web pages of other origins may send. The default has those of GraphQL clients
    /// and of tracing.
    #[serde(deserialize_with = "list_or_text")]
    pub cors_headers: Vec<String>,
    /// Addresses and ranges (10.0.0.0/8) of proxies whose X-Forwarded-For is trusted.
    #[serde(deserialize_with = "list_or_text")]
    pub trusted_proxies: Vec<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:5001".to_owned(),
            drain_seconds: 0,
            shutdown_timeout_seconds: 10,
            cors_origins: Vec::new(),
            cors_headers: DEFAULT_CORS_HEADERS.map(str::to_owned).to_vec(),
            trusted_proxies: Vec::new(),
        }
    }
}

impl ServerConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges(
            "server",
            &[
                ("drain_seconds", self.drain_seconds, 0..=DAY_SECONDS),
                (
                    "shutdown_timeout_seconds",
                    self.shutdown_timeout_seconds,
                    1..=DAY_SECONDS,
                ),
            ],
        )?;
        check_addresses("server.trusted_proxies", &self.trusted_proxies)?;
        self.cors_origins
            .iter()
            .try_for_each(|origin| check_origin(origin))?;
        // Browsers never apply `*` to `Authorization`.
        let is_name = |name: &str| name != "*" && name.parse::<HeaderName>().is_ok();
        match self.cors_headers.iter().find(|name| !is_name(name)) {
            Some(name) => Err(ConfigError(format!(
                "server.cors_headers: {name:?} is not the name of a header"
            ))),
            None => Ok(()),
        }
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
