//! GraphQL over HTTP (the specification's draft of 2025): POST with a JSON body, GET for queries.
//! Every error is a GraphQL response.
//!
//! This is a handler of its own over async-graphql's executor: the handler of async-graphql-axum
//! 7.2.1 runs mutations on GET, reads bodies of any size, accepts `text/plain`, and panics on some
//! multipart bodies.

mod batch;
mod format;
mod request;
mod response;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;

use self::batch::handle_batch;
use self::format::ResponseFormat;
use self::request::{check_content_type, parse_query_string};
pub(crate) use self::response::error_response;
use self::response::{get_response, not_acceptable, result_response};
use super::operation::{
    ExecutionResult, GraphqlRequest, RequestContext, TransportCapabilities, bad_request, prepare,
};
use super::{sse, websocket};
use crate::auth::Caller;
use crate::budget::{parsed_size, reserve_memory};
use crate::error::Error;
use crate::graphql::GraphqlState;
use crate::http::middleware::Interface;
use crate::http::{REQUEST_ID, read_body};

/// The path of the GraphQL endpoint.
pub const PATH: &str = "/graphql";

/// Returns the route of the GraphQL endpoint.
pub(crate) fn routes() -> Router<GraphqlState> {
    Router::new().route(PATH, get(handle_get).post(handle_post))
}

/// GraphQL, for middleware.
pub(crate) struct GraphqlInterface;

impl Interface for GraphqlInterface {
    const ALLOWS_EVERY_ORIGIN: bool = false;
    const TRUSTS_PEERS: bool = false;

    fn refuse(headers: &HeaderMap, error: Error) -> Response {
        error_response(headers, &error)
    }

    /// A WebSocket may bring the credential in its first message.
    fn authenticates_later(headers: &HeaderMap) -> bool {
        websocket::is_upgrade_request(headers)
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
    if let Err(error) = reserve_memory(parsed_size(&body)) {
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
