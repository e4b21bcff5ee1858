//! Bodies on their way through the proxy. Nothing is buffered: a part is read when the other side
//! has taken the one before.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::progress::Progress;
use crate::budget::{self, Reservation};

/// The body of a caller's request.
pub(crate) struct CallerBody {
    body: Body,
    progress: Option<Progress>,
    /// Kept until the body has ended or is not needed any more.
    _guard: Option<Box<dyn Any + Send>>,
}

impl From<Bytes> for CallerBody {
    fn from(bytes: Bytes) -> Self {
        Self {
            body: Body::from(bytes),
            progress: None,
            _guard: None,
        }
    }
}

impl CallerBody {
    /// `guard` is dropped when the body has ended, or is not needed any more.
    pub(crate) fn new(body: Body, guard: impl Any + Send) -> Self {
        Self {
            body,
            progress: None,
            _guard: Some(Box::new(guard)),
        }
    }

    pub(super) fn observed_by(self, progress: Progress) -> Self {
        Self {
            progress: Some(progress),
            ..self
        }
    }

    /// Returns the number of bytes, if it is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
}

impl HttpBody for CallerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(progress) = &this.progress {
            match &frame {
                Poll::Pending => progress.waiting_for_caller(),
                Poll::Ready(Some(Err(_))) => progress.caller_has_failed(),
                Poll::Ready(_) => progress.moved(),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The reason why an answer breaks off.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("{0}")]
    ConnectionLost(#[from] hyper::Error),
    #[error("nothing arrived within proxy.timeout_seconds")]
    Silence,
}

/// The body of an answer. It keeps the connection's permit and the memory of the call. It tells no
/// length, because a body of known length is taken for one that is in memory; the header
/// `Content-Length` tells it.
pub(super) struct AnswerBody {
    body: Incoming,
    timeout: Duration,
    /// Runs while the server waits for the next part.
    silence: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
    _memory: Option<Reservation>,
}

impl AnswerBody {
    pub(super) fn new(
        body: Incoming,
        timeout: Duration,
        permit: OwnedSemaphorePermit,
        memory: Option<Reservation>,
    ) -> Self {
        Self {
            body,
            timeout,
            silence: None,
            _permit: permit,
            _memory: memory,
        }
    }
}

/// Records that an answer breaks off; its caller sees a body that ends early.
fn broken(error: AnswerError) -> AnswerError {
    metrics::counter!(crate::metrics::PROXY_ANSWERS_BROKEN_TOTAL).increment(1);
    tracing::debug!(error = %error, "an answer of the WuKongIM broke off");
    error
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| broken(error.into()))));
        }
        let timeout = this.timeout;
        let silence = this
            .silence
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        silence
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(broken(AnswerError::Silence))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The reason why an answer cannot be read as a whole.
#[derive(Debug)]
pub(super) enum ReadAnswerError {
    /// The answer is longer than this limit.
    TooLong(usize),
    /// It broke off, or no memory is left for it.
    Broken(String),
}

impl fmt::Display for ReadAnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(limit) => write!(f, "the answer is longer than {limit} bytes"),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

/// Reads an answer of at most `limit` bytes, which count against the caller's memory.
pub(super) async fn read_answer(body: Body, limit: usize) -> Result<Bytes, ReadAnswerError> {
    let mut stream = body.into_data_stream();
    let mut read = BytesMut::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|error| ReadAnswerError::Broken(error.to_string()))?;
        if part.len() > limit - read.len() {
            return Err(ReadAnswerError::TooLong(limit));
        }
        budget::reserve_memory(part.len())
            .map_err(|error| ReadAnswerError::Broken(error.to_string()))?;
        read.extend_from_slice(&part);
    }
    Ok(read.freeze())
}
