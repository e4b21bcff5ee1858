//! GraphQL over HTTP (the specification's draft of 2025): POST with a JSON body, GET for queries.
//! Every error is a GraphQL response.
//!
//! This is a handler of its own over async-graphql's executor: the handler of async-graphql-axum
//! 7.2.1 runs mutations on GET, reads bodies of any size, accepts `text/plain`, and panics on some
//! multipart bodies.

use axum::Router;
use axum::extract::{FromRequestParts, Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::operation::{
    ExecutionResult, GraphqlRequest, RequestContext, TransportCapabilities, bad_request, code,
    prepare,
};
use super::{sse, websocket};
use crate::auth::Caller;
use crate::budget::{hold, parsed_size};
use crate::error::Error;
use crate::graphql::GraphqlState;
use crate::http::middleware::Interface;
use crate::http::{REQUEST_ID, read_body};

/// The path of the GraphQL endpoint.
pub const PATH: &str = "/graphql";

const JSON: &str = "application/json";
const GRAPHQL_JSON: &str = "application/graphql-response+json";

/// Returns the route of the GraphQL endpoint.
pub(crate) fn routes() -> Router<GraphqlState> {
    Router::new().route(PATH, get(handle_get).post(handle_post))
}

/// GraphQL, for middleware.
pub(crate) struct GraphqlInterface;

impl Interface for GraphqlInterface {
    const ALLOWS_EVERY_ORIGIN: bool = false;

    fn refuse(headers: &HeaderMap, error: Error) -> Response {
        error_response(headers, &error)
    }

    /// A WebSocket may bring the credential in its first message.
    fn authenticates_later(headers: &HeaderMap) -> bool {
        websocket::is_upgrade_request(headers)
    }
}

/// The media type of a response, negotiated by `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponseFormat {
    /// `application/graphql-response+json`: the HTTP status tells whether the request succeeded.
    GraphqlResponse,
    /// `application/json`: a well-formed request gets status 200, as clients of this media type
    /// expect.
    Json,
}

impl ResponseFormat {
    /// Returns the format that the client prefers, or `None` if it accepts neither. A request
    /// without `Accept` gets `application/json`, as the specification requires for now.
    fn negotiate(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::ACCEPT).iter().peekable();
        if lines.peek().is_none() {
            return Some(Self::Json);
        }
        let ranges = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        let mut best: Option<(Self, f32)> = None;
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_str()
            {
                GRAPHQL_JSON => Self::GraphqlResponse,
                JSON | "application/*" | "*/*" => Self::Json,
                _ => continue,
            };
            let mut parameters = parts.filter_map(|parameter| parameter.split_once('='));
            let quality = parameters.find_map(|(name, value)| {
                name.trim()
                    .eq_ignore_ascii_case("q")
                    .then(|| value.trim().parse())
            });
            let quality = match quality {
                Some(Ok(quality)) => quality,
                Some(Err(_)) => 0.0,
                None => 1.0,
            };
            // Of equal qualities the first wins.
            if quality > 0.0 && best.is_none_or(|(_, known)| quality > known) {
                best = Some((format, quality));
            }
        }
        best.map(|(format, _)| format)
    }

    /// Returns a format also for clients that accept neither: some responses have to be sent.
    fn negotiate_or_json(headers: &HeaderMap) -> Self {
        Self::negotiate(headers).unwrap_or(Self::Json)
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
        })
    }

    fn status(self, result: &ExecutionResult) -> StatusCode {
        // For clients that accept `application/json`, an error in the document or its variables is
        // not a failure of the transport.
        let about_the_document = result.response.errors.iter().any(|error| {
            let named = code(error).is_some_and(|code| {
                code.starts_with("GRAPHQL_") || code.starts_with("PERSISTED_QUERY_")
            });
            named || !error.locations.is_empty()
        });
        match self {
            Self::Json if result.status == StatusCode::BAD_REQUEST && about_the_document => {
                StatusCode::OK
            }
            _ => result.status,
        }
    }
}

async fn handle_post(
    State(state): State<GraphqlState>,
    caller: Caller,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let (format, accepts_events) = (
        ResponseFormat::negotiate(&headers),
        sse::accepts_event_stream(&headers),
    );
    if format.is_none() && !accepts_events {
        return not_acceptable();
    }
    if let Err(text) = check_content_type(&headers) {
        let result =
            ExecutionResult::not_executed(StatusCode::UNSUPPORTED_MEDIA_TYPE, bad_request(text));
        return result_response(format.unwrap_or(ResponseFormat::Json), &result);
    }
    let address = state
        .app
        .rate_limiter
        .client_ip(request.extensions(), &headers);
    let body = match read_body(
        request.into_body(),
        state.app.settings.limits.body_bytes,
        &state.app.settings.limits,
    )
    .await
    {
        Ok(body) => body,
        Err(error) => return error_response(&headers, &error),
    };
    if let Err(error) = hold(parsed_size(&body)) {
        return error_response(&headers, &error);
    }
    let context = request_context(state, caller, &headers);
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return handle_batch(
            &context,
            &headers,
            format.unwrap_or(ResponseFormat::Json),
            &body,
        )
        .await;
    }
    let Ok(request) = serde_json::from_slice::<GraphqlRequest>(&body) else {
        let text = "the body must be a JSON object with query, and optionally variables, operationName and extensions";
        return result_response(
            format.unwrap_or(ResponseFormat::Json),
            &ExecutionResult::not_executed(StatusCode::BAD_REQUEST, bad_request(text)),
        );
    };
    let capabilities = if accepts_events {
        TransportCapabilities::Everything
    } else {
        TransportCapabilities::SingleResponse
    };
    match (prepare(&context.state, request, capabilities), format) {
        (Ok(prepared), Some(format)) if !prepared.is_subscription => {
            result_response(format, &prepared.run(&context).await)
        }
        (Err(result), Some(format)) => result_response(format, &result),
        (prepared, _) => sse::respond(
            &context,
            address,
            &headers,
            prepared.map_err(|result| *result),
        ),
    }
}

fn request_context(state: GraphqlState, caller: Caller, headers: &HeaderMap) -> RequestContext {
    let request_id = headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    RequestContext {
        state,
        caller,
        request_id,
    }
}

/// Accepts JSON in UTF-8 only: a form or a plain text could be sent from any web page without a
/// CORS preflight.
fn check_content_type(headers: &HeaderMap) -> Result<(), &'static str> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().unwrap_or_default().eq_ignore_ascii_case(JSON) {
        return Err("Content-Type must be application/json");
    }
    let charset = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    match charset {
        Some((_, value))
            if !["utf-8", "utf8"]
                .contains(&value.trim().trim_matches('"').to_ascii_lowercase().as_str()) =>
        {
            Err("Content-Type must be application/json in UTF-8")
        }
        _ => Ok(()),
    }
}

/// Runs a batch of operations one after the other, so that each sees the changes of those before
/// it.
async fn handle_batch(
    context: &RequestContext,
    headers: &HeaderMap,
    format: ResponseFormat,
    body: &[u8],
) -> Response {
    let limit = context.state.app.settings.limits.batch_operations;
    if limit < 2 {
        let text = "the body must be a JSON object: limits.batch_operations allows no arrays";
        return error_response(headers, &Error::BadRequest(text.into()));
    }
    let operations: Vec<GraphqlRequest> = match serde_json::from_slice(body) {
        Ok(operations) => operations,
        Err(_) => {
            return error_response(
                headers,
                &Error::BadRequest(
                    "the body must be a JSON array of objects, each with query".into(),
                ),
            );
        }
    };
    if operations.is_empty() {
        return error_response(
            headers,
            &Error::BadRequest("the body must be a JSON array of at least one object".into()),
        );
    }
    if operations.len() > limit {
        let text = format!("the body must be a JSON array of at most {limit} operations");
        return error_response(headers, &Error::TooComplex(text.into()));
    }
    if let Some(uid) = context.caller.user() {
        // The first operation was counted with the HTTP request.
        let counted = context
            .state
            .app
            .rate_limiter
            .check_user_operations(uid, operations.len() - 1);
        if let Err(error) = counted {
            return error_response(headers, &error);
        }
    }
    let mut body = Vec::from(b"[");
    for request in operations {
        if body.len() > 1 {
            body.push(b',');
        }
        let result = match prepare(
            &context.state,
            request,
            TransportCapabilities::SingleResponse,
        ) {
            Ok(prepared) => prepared.run(context).await,
            Err(result) => *result,
        };
        body.append(&mut result.body());
    }
    body.push(b']');
    json_response(format, StatusCode::OK, body)
}

async fn handle_get(State(state): State<GraphqlState>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().cloned();
    let headers = std::mem::take(&mut parts.headers);
    if websocket::is_upgrade_request(&headers) {
        parts.headers.clone_from(&headers);
        return match WebSocketUpgrade::from_request_parts(&mut parts, &state).await {
            Ok(upgrade) => websocket::upgrade(state, caller, &parts, upgrade),
            Err(rejection) => {
                let text =
                    "the request is not a valid WebSocket handshake: it lacks a required header";
                result_response(
                    ResponseFormat::negotiate_or_json(&headers),
                    &ExecutionResult::not_executed(rejection.status(), bad_request(text)),
                )
            }
        };
    }
    // Only WebSocket upgrades get here without a caller.
    let Some(caller) = caller else {
        return error_response(&headers, &Error::Unauthenticated("a token is required"));
    };
    let (format, accepts_events) = (
        ResponseFormat::negotiate(&headers),
        sse::accepts_event_stream(&headers),
    );
    if format.is_none() && !accepts_events {
        return not_acceptable();
    }
    let address = state
        .app
        .rate_limiter
        .client_ip(&parts.extensions, &headers);
    let context = request_context(state, caller, &headers);
    let capabilities = if accepts_events {
        TransportCapabilities::QueriesAndStreams
    } else {
        TransportCapabilities::Queries
    };
    let prepared = match parse_query_string(parts.uri.query().unwrap_or_default()) {
        Ok(request) => prepare(&context.state, request, capabilities).map_err(|result| *result),
        Err(error) => Err(ExecutionResult::from_error(&error)),
    };
    match (prepared, format) {
        (Ok(prepared), Some(format)) if !prepared.is_subscription => {
            get_response(&headers, format, &prepared.run(&context).await)
        }
        (Err(result), Some(format)) => get_response(&headers, format, &result),
        (prepared, _) => sse::respond(&context, address, &headers, prepared),
    }
}

/// Builds the response to a GET, with caching headers.
fn get_response(headers: &HeaderMap, format: ResponseFormat, result: &ExecutionResult) -> Response {
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

fn parse_query_string(query: &str) -> Result<GraphqlRequest, Error> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let mut request = GraphqlRequest::default();
    for (name, value) in pairs {
        match name.as_str() {
            "query" => request.query = Some(value),
            "operationName" => request.operation_name = Some(value),
            "variables" if !value.is_empty() => {
                request.variables = serde_json::from_str(&value)
                    .map_err(|_| Error::BadRequest("variables must be a JSON object".into()))?;
            }
            "extensions" if !value.is_empty() => {
                request.extensions = serde_json::from_str(&value)
                    .map_err(|_| Error::BadRequest("extensions must be a JSON object".into()))?;
            }
            _ => {}
        }
    }
    Ok(request)
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

fn not_acceptable() -> Response {
    let response =
        bad_request("Accept must allow application/graphql-response+json or application/json");
    result_response(
        ResponseFormat::Json,
        &ExecutionResult::not_executed(StatusCode::NOT_ACCEPTABLE, response),
    )
}

fn result_response(format: ResponseFormat, result: &ExecutionResult) -> Response {
    json_response(format, format.status(result), result.body())
}

fn json_response(format: ResponseFormat, status: StatusCode, body: Vec<u8>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, format.content_type())],
        body,
    )
        .into_response()
}
