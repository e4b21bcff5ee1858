//! GraphQL over WebSocket: the `graphql-transport-ws` protocol of the `graphql-ws` client.
//!
//! This is an implementation of its own over axum's WebSocket: async-graphql 7.2.1 closes with
//! other codes than the protocol's (4400, 4403, 4408), accepts two operations with one id, and has
//! no limits.
//!
//! Nothing is buffered for a client: the next event of an operation is computed after the last one
//! was sent. Clients that do not read for `live.write_timeout_seconds` are disconnected.

mod close_reason;
mod operations;
mod protocol;
mod session;

use std::num::NonZeroU32;

use axum::extract::WebSocketUpgrade;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use self::session::Session;
use super::http::error_response;
use crate::auth::Caller;
use crate::error::Error;
use crate::graphql::GraphqlState;
use crate::http::{ConnectionMeter, REQUEST_ID};
use crate::state::AppState;

const PROTOCOL: &str = "graphql-transport-ws";
/// Size of the read buffer in bytes.
const READ_BUFFER: usize = 4096;
/// The rate limit allows bursts of twice the messages per second.
const BURST_FACTOR: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// Returns whether a request asks for a WebSocket. Upgrades to HTTP/2 use the same header.
pub(crate) fn is_upgrade_request(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Upgrades the connection, if the origin of its page is allowed.
pub(super) fn upgrade(
    state: GraphqlState,
    caller: Option<Caller>,
    parts: &Parts,
    upgrade: WebSocketUpgrade,
) -> Response {
    let headers = &parts.headers;
    if !is_allowed_origin(&state.app, headers) {
        let text = "this page's origin is not in server.cors_origins";
        return error_response(headers, &Error::Forbidden(text.into()));
    }
    let max_message_bytes = state.app.settings.limits.socket_message_bytes;
    let address = state.app.rate_limiter.client_ip(&parts.extensions, headers);
    let request_id = headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(max_message_bytes)
        .max_frame_size(max_message_bytes);
    // Every connection has a read buffer, also idle ones.
    let upgrade = upgrade.read_buffer_size(READ_BUFFER).write_buffer_size(0);
    let meter = parts.extensions.get::<ConnectionMeter>().cloned();
    let connections = state.app.connections.clone();
    let rate = NonZeroU32::new(state.app.settings.limits.socket_messages_per_second)
        .unwrap_or(NonZeroU32::MIN);
    let messages =
        RateLimiter::direct(Quota::per_second(rate).allow_burst(rate.saturating_mul(BURST_FACTOR)));
    upgrade.on_upgrade(move |socket| {
        let connection = async move {
            if let Some(meter) = &meter {
                meter.upgraded_to_websocket(max_message_bytes);
            }
            let mut session = Session {
                socket,
                state,
                address,
                request_id,
                meter,
                messages,
                last_received_at: Instant::now(),
            };
            let (code, reason) = session.run(caller).await;
            session.close(code, reason).await;
        };
        connections.track(connection)
    })
}

/// Checks the `Origin` header: browsers send it with a WebSocket, but apply no CORS rules to it.
fn is_allowed_origin(app: &AppState, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let same = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .is_some_and(|(_, of)| of == host);
    same || app
        .settings
        .server
        .cors_origins
        .iter()
        .any(|known| origin == known)
}
