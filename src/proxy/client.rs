//! The HTTP client of the proxy, and the address that it calls.

use std::time::Duration;

use axum::body::Body;
use axum::http::Uri;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::config::ConfigError;
use crate::error::Error;

/// How long a connection waits for the next call. Less than servers usually wait, so that calls
/// seldom meet a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of connections that wait for the next call.
const MAX_IDLE_CONNECTIONS: usize = 32;
/// Bytes that are read ahead of an answer; its head must fit.
const READ_AHEAD: usize = 64 * 1024;
/// TCP probes find connections to a server that vanished.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

pub(super) type HttpClient = Client<HttpsConnector<HttpConnector>, Body>;

/// Builds the client. It follows no redirects, and speaks HTTP/1.1.
pub(super) fn build(connect_timeout: Duration) -> Result<HttpClient, ConfigError> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_keepalive(Some(KEEPALIVE_INTERVAL));
    let connector = HttpsConnectorBuilder::new()
        .try_with_platform_verifier()
        .map_err(|error| {
            ConfigError(format!(
                "cannot create an HTTP client for proxy.wukongim_url: {error}"
            ))
        })?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .http1_max_buf_size(READ_AHEAD)
        .build(connector))
}

/// The address of the `WuKongIM`.
#[derive(Clone, Debug)]
pub(super) struct Target {
    scheme: Scheme,
    authority: Authority,
    /// The path of the address, without a slash at its end.
    base_path: String,
}

impl Target {
    /// # Errors
    /// Not an absolute URI; the configuration was checked before.
    pub(super) fn parse(url: &str) -> Result<Self, ConfigError> {
        let parts = url.parse::<Uri>().map(Uri::into_parts).ok();
        let parts = parts.and_then(|parts| {
            let base_path = parts
                .path_and_query?
                .path()
                .trim_end_matches('/')
                .to_owned();
            Some(Self {
                scheme: parts.scheme?,
                authority: parts.authority?,
                base_path,
            })
        });
        parts.ok_or_else(|| ConfigError("proxy.wukongim_url must be a URL".to_owned()))
    }

    /// Returns the address of a call. Only the path and the query of the caller's address count: an
    /// absolute one may name any host.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for an address without a path.
    pub(super) fn uri(&self, requested: &Uri) -> Result<Uri, Error> {
        let invalid = || Error::BadRequest("the request has no path".into());
        let path = requested
            .path_and_query()
            .filter(|path| path.path().starts_with('/'))
            .ok_or_else(invalid)?;
        let path = if self.base_path.is_empty() {
            path.clone()
        } else {
            let joined = format!("{}{path}", self.base_path);
            PathAndQuery::from_maybe_shared(bytes::Bytes::from(joined)).map_err(|_| invalid())?
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|_| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_path_and_query_of_a_request_count() {
        let target = Target::parse("http://wukongim:5001/").unwrap();
        for (requested, expected) in [
            ("/route?uid=ann", "http://wukongim:5001/route?uid=ann"),
            (
                "http://evil.example/route?uid=ann",
                "http://wukongim:5001/route?uid=ann",
            ),
            ("//evil.example/x", "http://wukongim:5001//evil.example/x"),
            ("/@evil.example/", "http://wukongim:5001/@evil.example/"),
            (
                "/a/../%2e%2E/b%20c?q=%7C|'",
                "http://wukongim:5001/a/../%2e%2E/b%20c?q=%7C|'",
            ),
            ("http://evil.example", "http://wukongim:5001/"),
        ] {
            let uri = target.uri(&requested.parse().unwrap()).unwrap();
            assert_eq!(uri.to_string(), expected, "{requested}");
        }
        let target = Target::parse("https://gateway/im/").unwrap();
        assert_eq!(
            target.uri(&"/route".parse().unwrap()).unwrap().to_string(),
            "https://gateway/im/route"
        );
        for requested in ["*", "evil.example:443"] {
            assert!(
                target.uri(&requested.parse().unwrap()).is_err(),
                "{requested}"
            );
        }
    }
}
