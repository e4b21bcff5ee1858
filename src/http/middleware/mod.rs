//! Middleware: one concern a file. The two interfaces refuse requests in different forms, so the
//! middleware is generic over the [`Interface`] that it is layered on.

mod authenticate;
mod catch_panic;
mod cors;
mod load_shed;
mod request_context;
mod request_id;
mod trusted_peers;

use axum::http::HeaderMap;
use axum::response::Response;

pub(crate) use self::authenticate::authenticate;
pub(crate) use self::catch_panic::catch_panic;
pub(crate) use self::load_shed::load_shed;
pub(crate) use self::request_context::request_context;
pub(crate) use self::request_id::{NewRequestId, REQUEST_ID, remove_unacceptable_id};
use crate::error::Error;

/// The properties of an interface that its middleware depends on.
pub(crate) trait Interface: 'static {
    /// True if pages of every origin may call the interface, on a server with authentication.
    const ALLOWS_EVERY_ORIGIN: bool;

    /// True if callers from `proxy.trusted_peers` need no token.
    const TRUSTS_PEERS: bool;

    /// Renders an error in the form of the interface.
    fn refuse(headers: &HeaderMap, error: Error) -> Response;

    /// Returns whether a request without a credential may pass, because its client authenticates
    /// later.
    fn authenticates_later(_headers: &HeaderMap) -> bool {
        false
    }
}
