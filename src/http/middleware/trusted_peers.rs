//! Business servers that send no token: `proxy.trusted_peers`.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, header};

use super::Interface;
use crate::auth::Authenticator;
use crate::http::open_mode::{FETCH_SITE, forwarding_header};
use crate::state::AppState;

/// Returns whether a request is a service's because of its address: it has no credential, comes from
/// `proxy.trusted_peers`, and began there. A request that somebody else forwarded, or that a web page
/// made in a browser there, did not.
pub(super) fn is_trusted<I: Interface>(state: &AppState, request: &Request) -> bool {
    let Some(proxy) = state.core.proxy.as_ref().filter(|_| I::TRUSTS_PEERS) else {
        return false;
    };
    let (headers, extensions) = (request.headers(), request.extensions());
    if Authenticator::credential(headers).is_some() || is_from_page(headers) {
        return false;
    }
    let Some(ConnectInfo(peer)) = extensions.get::<ConnectInfo<SocketAddr>>() else {
        return false;
    };
    let peer = peer.ip().to_canonical();
    let limiter = &state.rate_limiter;
    match forwarding_header(headers) {
        None => proxy.trusts(peer),
        // A proxy that is trusted to name its clients, and that did so.
        Some(_) if limiter.is_proxy(peer) => limiter
            .client_ip(extensions, headers)
            .is_some_and(|client| !limiter.is_proxy(client) && proxy.trusts(client)),
        Some(_) => false,
    }
}

fn is_from_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(FETCH_SITE)
}
