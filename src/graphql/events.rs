//! GraphQL over server-sent events, for networks that break WebSockets: the "distinct connections"
//! mode of the `graphql-sse` protocol. An operation is a request, its answer a stream of `next` and
//! at its end one `complete`. A stream that ends without is to be taken up again: the server goes
//! away, the token has expired, or the client reads too slowly.

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

use super::http::refuse;
use super::operation::{Asking, Outcome, Prepared};
use crate::budget::{Holder, Reservation};
use crate::error::Error;
use crate::live::{Connection, expiry};

/// What a client accepts that wants events.
const EVENTS: &str = "text/event-stream";

/// Whether the client takes events.
pub(super) fn are_taken(headers: &HeaderMap) -> bool {
    let ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    ranges
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .any(|range| range.eq_ignore_ascii_case(EVENTS))
}

/// The answers of an operation, or why there are none, as events.
pub(super) fn answer(
    asking: &Asking,
    address: Option<IpAddr>,
    headers: &HeaderMap,
    prepared: Result<Prepared, Outcome>,
) -> Response {
    let holder = Holder {
        is_service: asking.caller.user().is_none(),
        address,
        uid: asking.caller.user().map(ToString::to_string),
    };
    let connection = asking.app.connections.enter("sse", asking.caller.user());
    let (connection, reservation) =
        match connection.and_then(|place| Ok((place, asking.app.budgets.subscribe(holder)?))) {
            Ok(entered) => entered,
            Err(error) => return refuse(headers, &error),
        };
    let (send, mut events) = mpsc::channel(1);
    tokio::spawn(tell(
        asking.clone(),
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
        // Proxies that collect answers before they hand them on would hold back events.
        (
            header::HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, Body::from_stream(body)).into_response()
}

/// Tells until the end, or until nobody listens.
async fn tell(
    asking: Asking,
    prepared: Result<Prepared, Outcome>,
    send: mpsc::Sender<Bytes>,
    connection: Connection,
    reservation: Reservation,
) {
    let live = &asking.app.settings.live;
    let patience = Duration::from_secs(live.send_seconds);
    let say = async |event: Bytes| match timeout(patience, send.send(event)).await {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            metrics::counter!("recents_live_closed_total", "reason" => "slow").increment(1);
            false
        }
    };
    // Headers go out with the first bytes: the client knows that it is connected.
    if !say(Bytes::from_static(b":\n\n")).await {
        return;
    }
    let mut outcomes = match prepared {
        Ok(prepared) => reservation
            .clone()
            .scope_stream(|| prepared.stream(&asking))
            .left_stream(),
        Err(outcome) => stream::iter([outcome]).right_stream(),
    };
    let replaced = connection.replaced();
    let every = Duration::from_secs(live.ping_seconds);
    let mut keep_alive = tokio::time::interval_at(Instant::now() + every, every);
    let expired = expiry(&asking.caller);
    tokio::pin!(expired);
    loop {
        let event = tokio::select! {
            outcome = outcomes.next() => match outcome {
                Some(outcome) => {
                    let event = event(&outcome);
                    if reservation.hold_just(event.len()).is_err() {
                        // Taken up again, the stream goes on from the last event that was told.
                        return;
                    }
                    reservation.kept(event)
                }
                None => break,
            },
            _ = keep_alive.tick() => Bytes::from_static(b":\n\n"),
            () = send.closed() => return,
            () = replaced.cancelled() => {
                let error = Error::TooManyAtOnce("a newer connection of this user took the place of this one".into());
                if !say(event(&Outcome::refused(&error))).await {
                    return;
                }
                break;
            }
            () = &mut expired => return,
            () = asking.app.shutdown.cancelled() => return,
        };
        if !say(event).await {
            return;
        }
    }
    say(Bytes::from_static(b"event: complete\ndata: {}\n\n")).await;
}

/// A line break would end the event's data. In JSON it can only be white space: a message's content
/// may have it.
fn event(outcome: &Outcome) -> Bytes {
    let mut body = outcome.body();
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
