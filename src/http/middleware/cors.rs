//! Cross-origin resource sharing: which web pages may read answers.

use axum::http::{HeaderMap, HeaderValue, header};

use super::Interface;
use crate::config::Settings;

/// Headers that a page may send. `*` would not allow `Authorization`.
const ALLOWED_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, accept, token, x-request-id");
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("x-request-id, retry-after");
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Adds the headers that let a page read the answer.
///
/// `WuKongIM`'s routes allow every page, as `WuKongIM` itself does: browsers add no token by
/// themselves. GraphQL, and every route of an open server, where no token is needed, allow the
/// origins in `server.cors_origins` only.
pub(super) fn allow_origins<I: Interface>(
    settings: &Settings,
    headers: &mut HeaderMap,
    origin: Option<HeaderValue>,
) {
    if I::ALLOWS_EVERY_ORIGIN && !settings.auth.is_open() {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        return;
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let origins = &settings.server.cors_origins;
    let Some(origin) = origin.filter(|origin| origins.iter().any(|known| origin == known)) else {
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
}
