//! A connection's socket, watched: the bytes that it holds are counted, and a client that stops
//! half-way, in either direction, is closed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::budget::Share;

/// Bytes that hyper reads ahead at most; a request's line and headers must fit.
pub(crate) const READ_AHEAD: usize = 64 * 1024;
/// Bytes that an open connection takes without anything in its buffers.
pub(crate) const OPEN: usize = 16 * 1024;
/// What is read is counted in steps.
const STEP: usize = 16 * 1024;

/// What is known of a connection beside its socket. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Meter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    _place: Share,
    memory: Mutex<Share>,
    /// Bytes read since the connection was at rest: of a head or of a message that is not complete.
    unused: AtomicUsize,
    phase: AtomicU8,
    /// The most that can be unused: the rest of a body is counted by its reader.
    most: AtomicUsize,
}

impl Meter {
    /// For a connection with its place and its memory.
    pub(crate) fn new(place: Share, memory: Share) -> Self {
        let (unused, phase, most) = (
            AtomicUsize::new(0),
            AtomicU8::new(WAITING),
            AtomicUsize::new(READ_AHEAD),
        );
        Self(Arc::new(Inner {
            _place: place,
            memory: Mutex::new(memory),
            unused,
            phase,
            most,
        }))
    }

    /// A request's head is complete.
    pub(crate) fn request(&self) {
        self.0.phase.store(ANSWERING, Ordering::Relaxed);
        self.rest();
    }

    /// The request is answered; the next one may come.
    pub(crate) fn answered(&self) {
        self.0.phase.store(WAITING, Ordering::Relaxed);
        self.rest();
    }

    /// It is a WebSocket from now on, which collects a message of up to so many bytes before
    /// anybody uses it.
    pub(crate) fn becomes_socket(&self, longest: usize) {
        self.0.phase.store(SOCKET, Ordering::Relaxed);
        self.0
            .most
            .store(longest.saturating_add(READ_AHEAD), Ordering::Relaxed);
        self.rest();
    }

    /// The head or the message that was read is complete.
    pub(crate) fn rest(&self) {
        if self.0.unused.swap(0, Ordering::Relaxed) > STEP {
            let mut memory = self.0.memory.lock().unwrap_or_else(PoisonError::into_inner);
            // Less is always allowed.
            let _ = memory.resize(OPEN);
        }
    }

    /// True if every request that came is answered.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == WAITING
    }

    fn is_at_rest(&self) -> bool {
        self.0.unused.load(Ordering::Relaxed) == 0
    }

    fn read(&self, bytes: usize) -> io::Result<()> {
        let unused = self
            .0
            .unused
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        if unused >= STEP {
            let held = OPEN + unused.min(self.0.most.load(Ordering::Relaxed)) / STEP * STEP;
            let mut memory = self.0.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if held > memory.amount() {
                memory
                    .resize(held)
                    .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            }
        }
        Ok(())
    }
}

/// A request's head may come.
const WAITING: u8 = 0;
/// A request is being answered; its body has a least speed of its own.
const ANSWERING: u8 = 1;
/// Messages of a WebSocket may come.
const SOCKET: u8 = 2;

/// How long, and how slowly, a client may keep the server waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a whole head.
    pub(crate) head: Duration,
    /// Bytes a second that a client takes, and brings of a message, at least.
    pub(crate) bytes_per_second: usize,
}

/// A time in which a client must take, or bring, some bytes.
const WINDOW: Duration = Duration::from_secs(10);

/// Progress in one direction, while there is something to be done.
#[derive(Debug, Default)]
struct Progress {
    bytes: usize,
    end: Option<Pin<Box<Sleep>>>,
}

impl Progress {
    /// The client makes the server wait. An error when it did too little within the time that it
    /// had.
    fn wait(&mut self, cx: &mut Context<'_>, window: Duration, least: usize) -> io::Result<()> {
        loop {
            let end = self
                .end
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(window)));
            if end.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            if self.bytes < least {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.bytes = 0;
            end.as_mut().reset(Instant::now() + window);
        }
    }

    fn is_done(&mut self) {
        self.bytes = 0;
        self.end = None;
    }
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    socket: S,
    meter: Meter,
    patience: Patience,
    reading: Progress,
    writing: Progress,
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S, meter: Meter, patience: Patience) -> Self {
        Self {
            socket,
            meter,
            patience,
            reading: Progress::default(),
            writing: Progress::default(),
        }
    }

    fn least(&self) -> usize {
        self.patience
            .bytes_per_second
            .saturating_mul(usize::try_from(WINDOW.as_secs()).unwrap_or(1))
    }

    /// What the socket took of `length` bytes.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Pending => {
                let least = self.least();
                match self.writing.wait(cx, WINDOW, least) {
                    Ok(()) => Poll::Pending,
                    Err(error) => {
                        metrics::counter!("recents_connections_closed_total", "reason" => "slow_reader").increment(1);
                        Poll::Ready(Err(error))
                    }
                }
            }
            Poll::Ready(Ok(written)) if written < length => {
                self.writing.bytes += written;
                Poll::Ready(Ok(written))
            }
            other => {
                self.writing.is_done();
                other
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.socket).poll_read(cx, buffer) {
            result?;
            let bytes = buffer.filled().len() - before;
            if this.meter.is_at_rest() {
                this.reading.is_done();
            }
            this.reading.bytes += bytes;
            return Poll::Ready(this.meter.read(bytes).inspect_err(|_| {
                metrics::counter!("recents_connections_closed_total", "reason" => "memory")
                    .increment(1);
            }));
        }
        let phase = this.meter.0.phase.load(Ordering::Relaxed);
        if phase == ANSWERING || this.meter.is_at_rest() {
            this.reading.is_done();
            return Poll::Pending;
        }
        // A head must be complete in its time; a message may be long.
        let (window, least) = if phase == WAITING {
            (this.patience.head, usize::MAX)
        } else {
            (WINDOW, this.least())
        };
        match this.reading.wait(cx, window, least) {
            Ok(()) => Poll::Pending,
            Err(error) => {
                metrics::counter!("recents_connections_closed_total", "reason" => "slow_writer")
                    .increment(1);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, buffer);
        self.written(cx, buffer.len(), result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = buffers.iter().map(|buffer| buffer.len()).sum();
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, buffers);
        self.written(cx, length, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
