//! GraphQL over server-sent events, for networks that break WebSockets: the "distinct connections"
//! mode of the `graphql-sse` protocol. Each operation is a request, and its response is a stream of
//! `next` events that ends with one `complete`. A stream that ends without `complete` should be
//! resumed: the server is shutting down, the token has expired, or the client reads too slowly.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::http::error_response;
use super::operation::{ExecutionResult, PreparedOperation, RequestContext};
use crate::budget::{CallerIdentity, Reservation};
use crate::error::Error;
use crate::live::{Connection, wait_for_expiry};

/// The media type of event streams.
const EVENT_STREAM: &str = "text/event-stream";

/// Returns whether the client accepts event streams.
pub(super) fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    ranges
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .any(|range| range.eq_ignore_ascii_case(EVENT_STREAM))
}

/// Responds with an event stream: the results of the operation, or the error that prevented it.
pub(super) fn respond(
    context: &RequestContext,
    address: Option<IpAddr>,
    headers: &HeaderMap,
    prepared: Result<PreparedOperation, ExecutionResult>,
) -> Response {
    let identity = CallerIdentity {
        is_service: context.caller.user().is_none(),
        address,
        uid: context.caller.user().map(ToString::to_string),
    };
    let connection = context
        .state
        .app
        .connections
        .register("sse", context.caller.user());
    let (connection, reservation) = match connection.and_then(|connection| {
        Ok((
            connection,
            context.state.app.budgets.admit_subscription(identity)?,
        ))
    }) {
        Ok(pair) => pair,
        Err(error) => return error_response(headers, &error),
    };
    let (send, mut events) = mpsc::channel(1);
    tokio::spawn(stream_events(
        context.clone(),
        prepared,
        send,
        connection,
        reservation,
    ));
    let body = stream::poll_fn(move |context| events.poll_recv(context)).map(Ok::<_, Infallible>);
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Some proxies buffer whole responses, which would delay events.
        (
            header::HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, Body::from_stream(body)).into_response()
}

/// Sends events until the operation ends or the client disconnects.
async fn stream_events(
    context: RequestContext,
    prepared: Result<PreparedOperation, ExecutionResult>,
    send: mpsc::Sender<Bytes>,
    connection: Connection,
    reservation: Reservation,
) {
    let live = &context.state.app.settings.live;
    let write_timeout = Duration::from_secs(live.write_timeout_seconds);
    let send_event = async |event: Bytes| match timeout(write_timeout, send.send(event)).await {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            metrics::counter!(crate::metrics::LIVE_CLOSED_TOTAL, "reason" => "slow").increment(1);
            false
        }
    };
    // Headers are sent with the first bytes, so this tells the client that it is connected.
    if !send_event(Bytes::from_static(b":\n\n")).await {
        return;
    }
    let mut results = match prepared {
        Ok(prepared) => reservation
            .clone()
            .scope_stream(|| prepared.stream(&context))
            .left_stream(),
        Err(result) => stream::iter([result]).right_stream(),
    };
    let replaced = connection.replaced();
    let every = Duration::from_secs(live.ping_interval_seconds);
    let mut keep_alive = tokio::time::interval_at(Instant::now() + every, every);
    let expired = wait_for_expiry(&context.caller);
    tokio::pin!(expired);
    loop {
        let event = tokio::select! {
            result = results.next() => match result {
                Some(result) => {
                    let event = event(&result);
                    if reservation.resize_memory(event.len()).is_err() {
                        // A resumed stream continues after the last event that was sent.
                        return;
                    }
                    reservation.attach_to(event)
                }
                None => break,
            },
            _ = keep_alive.tick() => Bytes::from_static(b":\n\n"),
            () = send.closed() => return,
            () = replaced.cancelled() => {
                let error = Error::TooManyAtOnce("a newer connection of this user replaced this one".into());
                if !send_event(event(&ExecutionResult::from_error(&error))).await {
                    return;
                }
                break;
            }
            () = &mut expired => return,
            () = context.state.app.shutdown.cancelled() => return,
        };
        if !send_event(event).await {
            return;
        }
    }
    send_event(Bytes::from_static(b"event: complete\ndata: {}\n\n")).await;
}

/// Replaces line breaks, which would end the event's data. In JSON they can only be white space;
/// the content of a message may contain them.
fn event(result: &ExecutionResult) -> Bytes {
    let mut body = result.body();
    for byte in &mut body {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    let mut event = Vec::with_capacity(body.len() + 24);
    event.extend_from_slice(b"event: next\ndata: ");
    event.extend_from_slice(&body);
    event.extend_from_slice(b"\n\n");
    event.into()
}
