//! Bodies of requests as they come in, and of answers as they go out, counted.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::budget::{self, Reservation};
use crate::config::Limits;
use crate::error::Error;

/// A time in which a body must bring some bytes.
const WINDOW: Duration = Duration::from_secs(10);
/// Answers up to this size are carried by their connection.
const SMALL: usize = 16 * 1024;

/// Reads a body of at most `longest` bytes; the request holds memory for it as it comes in. A
/// longer one is read on for a while and thrown away, so that the caller is still there to read the
/// refusal.
///
/// # Errors
/// [`Error::BodyTooLarge`], [`Error::BodyTooSlow`], [`Error::BadRequest`] for a body that ends
/// early, [`Error::Overloaded`], [`Error::TooManyAtOnce`].
pub(crate) async fn read_body(body: Body, longest: usize, limits: &Limits) -> Result<Bytes, Error> {
    let least = limits
        .least_bytes_per_second
        .saturating_mul(usize::try_from(WINDOW.as_secs()).unwrap_or(1));
    let mut stream = body.into_data_stream();
    let mut read = BytesMut::new();
    let mut length = 0_usize;
    let (mut end, mut in_window) = (Instant::now() + WINDOW, 0_usize);
    loop {
        let Ok(chunk) = timeout_at(end, stream.next()).await else {
            if in_window < least {
                return Err(Error::BodyTooSlow);
            }
            (end, in_window) = (Instant::now() + WINDOW, 0);
            continue;
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|_| Error::BadRequest("the body ended early".into()))?;
        length += chunk.len();
        in_window += chunk.len();
        if length <= longest {
            budget::hold(chunk.len())?;
            read.extend_from_slice(&chunk);
        } else if length > longest.saturating_mul(4) {
            break;
        }
    }
    if length > longest {
        Err(Error::BodyTooLarge(longest))
    } else {
        Ok(read.freeze())
    }
}

/// The body of an answer, whose bytes the request holds until they are written. Streams hold what
/// they tell themselves.
///
/// # Errors
/// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
pub(crate) fn counted(reservation: &Reservation, body: Body) -> Result<Body, Error> {
    let Some(length) = body
        .size_hint()
        .exact()
        .and_then(|length| usize::try_from(length).ok())
        .filter(|length| *length > SMALL)
    else {
        return Ok(body);
    };
    reservation.hold_just(length)?;
    let reservation = reservation.clone();
    // It is one frame.
    Ok(Body::new(body.map_frame(move |frame| {
        frame.map_data(|bytes| reservation.kept(bytes))
    })))
}
