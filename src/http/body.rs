//! Bodies of requests and answers, counted against the memory budget.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::budget::{self, Reservation};
use crate::config::Limits;
use crate::error::Error;

/// The period over which the speed of a body is measured.
const SPEED_WINDOW: Duration = Duration::from_secs(10);
/// Answers up to this size are covered by the memory of their connection.
const MAX_UNCOUNTED_BYTES: usize = 16 * 1024;

/// Reads a body of at most `max_bytes`; the request's reservation grows as the body arrives. Of a
/// longer body up to four times as much is read and dropped, so that the caller gets to read the
/// error instead of a connection reset.
///
/// # Errors
/// [`Error::BodyTooLarge`], [`Error::BodyTooSlow`], [`Error::BadRequest`] for a body that ends
/// early, [`Error::Overloaded`], [`Error::TooManyAtOnce`].
pub(crate) async fn read_body(
    body: Body,
    max_bytes: usize,
    limits: &Limits,
) -> Result<Bytes, Error> {
    let min_bytes_per_window = limits
        .least_bytes_per_second
        .saturating_mul(usize::try_from(SPEED_WINDOW.as_secs()).unwrap_or(1));
    let mut stream = body.into_data_stream();
    let mut read = BytesMut::new();
    let mut length = 0_usize;
    let (mut window_end, mut in_window) = (Instant::now() + SPEED_WINDOW, 0_usize);
    loop {
        let Ok(chunk) = timeout_at(window_end, stream.next()).await else {
            if in_window < min_bytes_per_window {
                return Err(Error::BodyTooSlow);
            }
            (window_end, in_window) = (Instant::now() + SPEED_WINDOW, 0);
            continue;
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|_| Error::BadRequest("the body ended early".into()))?;
        length += chunk.len();
        in_window += chunk.len();
        if length <= max_bytes {
            budget::reserve_memory(chunk.len())?;
            read.extend_from_slice(&chunk);
        } else if length > max_bytes.saturating_mul(4) {
            break;
        }
    }
    if length > max_bytes {
        Err(Error::BodyTooLarge(max_bytes))
    } else {
        Ok(read.freeze())
    }
}

/// Counts the bytes of an answer against the request's reservation until they are written. Streams
/// are left out: they count each event by themselves.
///
/// # Errors
/// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
pub(crate) fn count_response_bytes(reservation: &Reservation, body: Body) -> Result<Body, Error> {
    let Some(length) = body
        .size_hint()
        .exact()
        .and_then(|length| usize::try_from(length).ok())
        .filter(|length| *length > MAX_UNCOUNTED_BYTES)
    else {
        return Ok(body);
    };
    reservation.resize_memory(length)?;
    let reservation = reservation.clone();
    // A body of known length is one frame.
    Ok(Body::new(body.map_frame(move |frame| {
        frame.map_data(|bytes| reservation.attach_to(bytes))
    })))
}
