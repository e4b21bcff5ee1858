//! `[proxy]`

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::check::{DAY_SECONDS, MAX_COUNT, check_http_url, check_ranges};
use super::server::check_addresses;
use super::source::list_or_text;
use super::{ConfigError, Secret, ServerConfig, Url, address_range};

/// `[proxy]`: recents at the address of a WuKongIM, whose other calls are passed on to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyConfig {
    /// Address of the WuKongIM's HTTP interface, such as `http://wukongim:5001`. recents then answers
    /// calls about conversations and history, does changes of channels there and here, and passes
    /// every other call on. Empty disables it.
    pub wukongim_url: Url,
    /// The WuKongIM's manager token, for calls that have no header `token`, and for changes of
    /// channels over GraphQL. Empty for a WuKongIM without one.
    pub wukongim_token: Secret,
    /// File that contains the token instead.
    pub wukongim_token_file: String,
    /// Addresses and ranges (10.0.0.0/8) of business servers that send no token: on WuKongIM's routes
    /// their calls are those of a service. No browser and no other proxy may run there.
    #[serde(deserialize_with = "list_or_text")]
    pub trusted_peers: Vec<String>,
    /// How long the WuKongIM may make a call wait: for a connection, while it takes the request, for
    /// the answer to begin, and between two parts of it. Less than `limits.request_timeout_seconds`,
    /// so that callers learn the reason.
    pub timeout_seconds: u64,
    /// Maximum number of connections to the WuKongIM. Further calls are refused at once with 503.
    pub max_connections: usize,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            wukongim_url: Url::default(),
            wukongim_token: Secret::default(),
            wukongim_token_file: String::new(),
            trusted_peers: Vec::new(),
            timeout_seconds: 20,
            max_connections: 256,
        }
    }
}

impl ProxyConfig {
    /// Returns whether calls are passed on to a WuKongIM.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.wukongim_url.reveal().is_empty()
    }

    pub(super) fn check(&self, server: &ServerConfig) -> Result<(), ConfigError> {
        check_ranges(
            "proxy",
            &[
                ("timeout_seconds", self.timeout_seconds, 1..=DAY_SECONDS),
                (
                    "max_connections",
                    self.max_connections as u64,
                    1..=MAX_COUNT,
                ),
            ],
        )?;
        let token = self.wukongim_token.reveal();
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError(
                "proxy.wukongim_token is sent in a header and may contain only ASCII without spaces"
                    .to_owned(),
            ));
        }
        check_addresses("proxy.trusted_peers", &self.trusted_peers)?;
        let is_everybody =
            |range: &&String| address_range(range).is_some_and(|range| range.prefix_len() == 0);
        if let Some(range) = self.trusted_peers.iter().find(is_everybody) {
            return Err(ConfigError(format!(
                "proxy.trusted_peers: {range:?} would let everybody call without a token"
            )));
        }
        if self.is_on() {
            return self.check_url(server);
        }
        let given = [
            ("trusted_peers", !self.trusted_peers.is_empty()),
            ("wukongim_token", !token.is_empty()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((key, _)) => Err(ConfigError(format!(
                "proxy.{key} is set, but proxy.wukongim_url is empty"
            ))),
            None => Ok(()),
        }
    }

    fn check_url(&self, server: &ServerConfig) -> Result<(), ConfigError> {
        let text = self.wukongim_url.reveal();
        check_http_url("proxy.wukongim_url", text)?;
        let parsed = reqwest::Url::parse(text).ok().filter(|url| {
            url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        let Some(url) = parsed else {
            return Err(ConfigError(
                "proxy.wukongim_url must be like http://wukongim:5001, without a user, a query or a \
                 fragment"
                    .to_owned(),
            ));
        };
        let (host, port) = (
            url.host_str().unwrap_or_default(),
            url.port_or_known_default(),
        );
        if is_own_address(host, port, &server.listen) {
            return Err(ConfigError(format!(
                "proxy.wukongim_url must be the address of the WuKongIM, but {} is this server's own \
                 (server.listen)",
                self.wukongim_url.redacted()
            )));
        }
        Ok(())
    }
}

/// Returns whether this host and port are an address that the server listens on, as far as the texts
/// tell: a name may stand for any address. Requests that come back all the same are recognised by
/// their `Via`.
fn is_own_address(host: &str, port: Option<u16>, listen: &str) -> bool {
    let Some((own_host, own_port)) = listen.rsplit_once(':') else {
        return false;
    };
    let address = |host: &str| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.eq_ignore_ascii_case("localhost") {
            return Some(IpAddr::from([127, 0, 0, 1]));
        }
        bare.parse()
            .ok()
            .map(|address: IpAddr| address.to_canonical())
    };
    if own_port.parse().ok() != port || port == Some(0) {
        return false;
    }
    match (address(host), address(own_host)) {
        (Some(given), Some(own)) => {
            given == own
                || given.is_unspecified()
                || given.is_loopback() && (own.is_unspecified() || own.is_loopback())
        }
        _ => host.eq_ignore_ascii_case(own_host),
    }
}
