//! Cross-origin resource sharing: which web pages may read answers.
//!
//! tower-http's layer would answer preflight requests with 200, where `WuKongIM` answers 204, would
//! leave the allowed methods and headers out of other answers, where `WuKongIM` has them, and would
//! send them to refused origins, too.

use axum::http::{HeaderMap, HeaderValue, header};

use super::Interface;
use crate::http::CorsPolicy;
use crate::state::AppState;

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("x-request-id, retry-after");
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Adds the headers that let a page read the answer.
///
/// `WuKongIM`'s routes allow every page, as `WuKongIM` itself does: browsers add no token by
/// themselves. GraphQL, and every route of an open server, where no token is needed, allow the
/// origins in `server.cors_origins` only.
pub(super) fn allow_origins<I: Interface>(
    state: &AppState,
    cors: &CorsPolicy,
    request_headers: &HeaderMap,
    headers: &mut HeaderMap,
) {
    if I::ALLOWS_EVERY_ORIGIN && !state.settings.auth.is_open() {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.allowed_headers());
        return;
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = cors.allowed_origin(request_headers) else {
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.allowed_headers());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
}
