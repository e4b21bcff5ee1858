//! Checks of an open server, which has neither token nor key and lets every caller do everything,
//! so that only this machine may reach it. Listening on loopback is not enough: a web page in a
//! browser on this machine can reach loopback under another name (DNS rebinding) or across origins,
//! and so can a proxy that forwards requests from elsewhere.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, header};
use reqwest::Url;

use crate::config::Settings;
use crate::error::Error;

/// The end of every error.
const EXPLANATION: &str =
    "this server has no authentication: set auth.manager_token, or a key in auth.jwt";
/// Headers in which proxies name the client, beside `x-forwarded-…`.
const FORWARDING_HEADERS: [&str; 14] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-original-forwarded-for",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "true-client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "x-envoy-external-address",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-appengine-user-ip",
];
/// Headers in which browsers describe where a request comes from.
pub(super) const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Refuses requests that an open server must not answer. Accepts every request on a server with
/// authentication.
///
/// # Errors
/// [`Error::Forbidden`] for a host other than this machine, a page of another origin, and a
/// forwarded request.
pub(crate) fn check(
    settings: &Settings,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Error> {
    if !settings.auth.is_open() {
        return Ok(());
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    if !is_loopback(host) {
        return Err(refused(
            "it answers only requests to localhost, 127.0.0.1 and [::1]",
        ));
    }
    if let Some(name) = forwarding_header(headers) {
        return Err(refused(&format!(
            "it answers no forwarded requests (header {name})"
        )));
    }
    let origins = headers.get_all(header::ORIGIN);
    let is_allowed = |origin: &str| {
        is_own_origin(origin, host)
            || settings
                .server
                .cors_origins
                .iter()
                .any(|known| known == origin)
    };
    if !origins
        .iter()
        .all(|origin| origin.to_str().is_ok_and(is_allowed))
    {
        return Err(refused(
            "it answers only its own pages, and those in server.cors_origins",
        ));
    }
    // Requests for a script or an image carry no origin. Links from other pages are fine.
    let has =
        |name: &HeaderName, value: &str| headers.get(name).is_some_and(|given| given == value);
    let is_link = method == Method::GET && has(&FETCH_MODE, "navigate");
    if has(&FETCH_SITE, "cross-site") && origins.iter().next().is_none() && !is_link {
        return Err(refused(
            "it answers only its own pages, and those in server.cors_origins",
        ));
    }
    Ok(())
}

/// Returns the header of a request that shows that a proxy forwarded it.
pub(super) fn forwarding_header(headers: &HeaderMap) -> Option<&HeaderName> {
    headers.keys().find(|name| {
        name.as_str().starts_with("x-forwarded-") || FORWARDING_HEADERS.contains(&name.as_str())
    })
}

/// Returns whether a page comes from the host that it calls. Compares parsed hosts, because
/// browsers write the host in lower case and leave out the default port.
pub(super) fn is_own_origin(origin: &str, host: &str) -> bool {
    let Ok(page) = Url::parse(origin) else {
        return false;
    };
    let called = Url::parse(&format!("{}://{host}", page.scheme()));
    ["http", "https"].contains(&page.scheme())
        && called.is_ok_and(|called| called.origin() == page.origin())
}

fn refused(reason: &str) -> Error {
    Error::Forbidden(format!("{reason}; {EXPLANATION}").into())
}

/// Returns whether a `Host` header names this machine.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    // A host has neither user nor password.
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Refuses requests without exactly one `Host`, which HTTP/1.1 requires.
///
/// # Errors
/// [`Error::BadRequest`].
pub(crate) fn check_host(version: axum::http::Version, headers: &HeaderMap) -> Result<(), Error> {
    match headers.get_all(header::HOST).iter().count() {
        1 => Ok(()),
        0 if version < axum::http::Version::HTTP_11 => Ok(()),
        0 => Err(Error::BadRequest("the header Host is missing".into())),
        _ => Err(Error::BadRequest(
            "the header Host may be there only once".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_of_the_called_host() {
        for (origin, host) in [
            ("http://localhost:5001", "localhost:5001"),
            ("http://localhost:5001", "LOCALHOST:5001"),
            ("http://localhost", "localhost:80"),
            ("https://localhost", "localhost:443"),
            ("http://[::1]:5001", "[::1]:5001"),
        ] {
            assert!(is_own_origin(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://localhost:3000", "localhost:5001"),
            ("http://127.0.0.1:5001", "localhost:5001"),
            ("http://localhost", "localhost:443"),
            ("null", "localhost"),
            ("file://", "localhost"),
            ("http://evil.example@localhost", "evil.example"),
            ("", ""),
        ] {
            assert!(!is_own_origin(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn hosts_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:5001",
            "127.0.0.1",
            "127.9.8.7:80",
            "[::1]:5001",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example:5001",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "192.0.2.1",
            "[::2]:5001",
            "x@localhost",
            "a b",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
