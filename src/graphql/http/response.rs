//! Builds responses.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::format::ResponseFormat;
use crate::error::Error;
use crate::graphql::operation::{ExecutionResult, bad_request};
use crate::http::REQUEST_ID;

/// Builds the response to a GET, with caching headers.
pub(super) fn get_response(
    headers: &HeaderMap,
    format: ResponseFormat,
    result: &ExecutionResult,
) -> Response {
    let status = format.status(result);
    let body = result.body();
    // A client's own cache may store the response but must revalidate it; shared caches may not
    // store it.
    let etag = result
        .response
        .errors
        .is_empty()
        .then(|| format!("W/\"{}\"", hex::encode(&Sha256::digest(&body)[..16])));
    let is_known = etag.as_ref().is_some_and(|etag| {
        let known = headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok());
        known
            .flat_map(|value| value.split(','))
            .any(|known| known.trim() == etag)
    });
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json_response(format, status, body)
    };
    let headers = response.headers_mut();
    let control = if etag.is_some() {
        "private, no-cache"
    } else {
        "no-store"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
    headers.insert(
        header::VARY,
        HeaderValue::from_static("accept, authorization, token"),
    );
    if let Some(Ok(etag)) = etag.map(HeaderValue::try_from) {
        headers.insert(header::ETAG, etag);
    }
    if result.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// Builds the response for an error that occurred before execution, with the status from the table
/// of error kinds.
#[must_use]
pub(crate) fn error_response(headers: &HeaderMap, error: &Error) -> Response {
    let mut result = ExecutionResult::from_error(error);
    if result.status == StatusCode::INTERNAL_SERVER_ERROR {
        let id = headers
            .get(REQUEST_ID)
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        for error in &mut result.response.errors {
            error
                .extensions
                .get_or_insert_default()
                .set("requestId", id);
        }
    }
    let mut response = result_response(ResponseFormat::negotiate_or_json(headers), &result);
    if let Some(seconds) = error.retry_after() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    if result.status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response.extensions_mut().insert(error.clone());
    response
}

pub(super) fn not_acceptable() -> Response {
    let response =
        bad_request("Accept must allow application/graphql-response+json or application/json");
    result_response(
        ResponseFormat::Json,
        &ExecutionResult::not_executed(StatusCode::NOT_ACCEPTABLE, response),
    )
}

pub(super) fn result_response(format: ResponseFormat, result: &ExecutionResult) -> Response {
    json_response(format, format.status(result), result.body())
}

pub(super) fn json_response(format: ResponseFormat, status: StatusCode, body: Vec<u8>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, format.content_type())],
        body,
    )
        .into_response()
}
