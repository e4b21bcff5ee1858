//! A socket that counts the bytes it buffers against the memory budget, and closes the connections
//! of clients that stop half-way, in either direction.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::budget::Allocation;

/// Maximum bytes that hyper reads ahead; a request's line and headers must fit.
pub(crate) const READ_AHEAD: usize = 64 * 1024;
/// Bytes that an open connection takes while its buffers are empty.
pub(crate) const OPEN_CONNECTION_BYTES: usize = 16 * 1024;
/// Bytes that are read are counted in steps of this size.
const COUNTING_STEP: usize = 16 * 1024;

/// Counts the memory of a connection and tracks its phase. Clones share one meter.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionMeter(Arc<MeterState>);

#[derive(Debug)]
struct MeterState {
    _slot: Allocation,
    memory: Mutex<Allocation>,
    /// Bytes of a head, or of a message, that is not complete yet.
    pending_bytes: AtomicUsize,
    phase: AtomicU8,
    /// Readers of bodies that may outlast their answers' heads.
    body_readers: AtomicUsize,
    /// Maximum of `pending_bytes` that counts: the reader of a body counts the rest.
    max_pending_bytes: AtomicUsize,
}

impl ConnectionMeter {
    pub(crate) fn new(slot: Allocation, memory: Allocation) -> Self {
        let (pending_bytes, phase, max_pending_bytes) = (
            AtomicUsize::new(0),
            AtomicU8::new(IDLE),
            AtomicUsize::new(READ_AHEAD),
        );
        Self(Arc::new(MeterState {
            _slot: slot,
            memory: Mutex::new(memory),
            pending_bytes,
            phase,
            body_readers: AtomicUsize::new(0),
            max_pending_bytes,
        }))
    }

    /// Records that a request's head is complete.
    pub(crate) fn request_started(&self) {
        self.0.phase.store(ANSWERING, Ordering::Relaxed);
        self.release_pending();
    }

    /// Records that the body of the request is read by somebody who sees to its speed, until the
    /// guard is dropped, also after the head of the answer was sent.
    pub(crate) fn reading_body(&self) -> BodyReader {
        self.0.body_readers.fetch_add(1, Ordering::Relaxed);
        BodyReader(self.clone())
    }

    /// Records that the request is answered, so that the next one may arrive.
    pub(crate) fn request_answered(&self) {
        self.0.phase.store(IDLE, Ordering::Relaxed);
        self.release_pending();
    }

    /// Records that the connection is a WebSocket now, which buffers a whole message.
    pub(crate) fn upgraded_to_websocket(&self, max_message_bytes: usize) {
        self.0.phase.store(WEBSOCKET, Ordering::Relaxed);
        self.0.max_pending_bytes.store(
            max_message_bytes.saturating_add(READ_AHEAD),
            Ordering::Relaxed,
        );
        self.release_pending();
    }

    /// Records that the head or the message that was being read is complete.
    pub(crate) fn release_pending(&self) {
        if self.0.pending_bytes.swap(0, Ordering::Relaxed) > COUNTING_STEP {
            let mut memory = self.0.memory.lock().unwrap_or_else(PoisonError::into_inner);
            // A share may always shrink.
            let _ = memory.resize(OPEN_CONNECTION_BYTES);
        }
    }

    /// Returns whether every request that arrived is answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == IDLE
    }

    fn has_no_pending_bytes(&self) -> bool {
        self.0.pending_bytes.load(Ordering::Relaxed) == 0
    }

    fn count_read(&self, bytes: usize) -> io::Result<()> {
        let pending = self
            .0
            .pending_bytes
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        if pending >= COUNTING_STEP {
            let counted = pending.min(self.0.max_pending_bytes.load(Ordering::Relaxed));
            let held = OPEN_CONNECTION_BYTES + counted / COUNTING_STEP * COUNTING_STEP;
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

/// See [`ConnectionMeter::reading_body`].
#[derive(Debug)]
pub(crate) struct BodyReader(ConnectionMeter);

impl Drop for BodyReader {
    fn drop(&mut self) {
        self.0.0.body_readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The phase in which the head of a request may arrive.
const IDLE: u8 = 0;
/// The phase in which a request is answered. The reader of its body checks the body's speed.
const ANSWERING: u8 = 1;
/// The phase in which messages of a WebSocket may arrive.
const WEBSOCKET: u8 = 2;

/// Limits on how long a client may make the server wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientTimeouts {
    /// The time for a whole head.
    pub(crate) head: Duration,
    /// The minimum speed at which a client reads answers and sends messages.
    pub(crate) min_bytes_per_second: usize,
}

/// The period over which the speed of a client is measured.
const SPEED_WINDOW: Duration = Duration::from_secs(10);

fn count_closed(reason: &'static str) {
    metrics::counter!(crate::metrics::CONNECTIONS_CLOSED_TOTAL, "reason" => reason).increment(1);
}

/// Progress in one direction while a transfer is incomplete.
#[derive(Debug, Default)]
struct Progress {
    bytes: usize,
    window_end: Option<Pin<Box<Sleep>>>,
}

impl Progress {
    /// Registers that the server waits for the client. Fails once the client transferred fewer than
    /// `min_bytes` within a window.
    fn wait(&mut self, cx: &mut Context<'_>, window: Duration, min_bytes: usize) -> io::Result<()> {
        loop {
            let window_end = self
                .window_end
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(window)));
            if window_end.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            if self.bytes < min_bytes {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.bytes = 0;
            window_end.as_mut().reset(Instant::now() + window);
        }
    }

    fn reset(&mut self) {
        self.bytes = 0;
        self.window_end = None;
    }
}

/// A client's socket with its meter and its timeouts.
#[derive(Debug)]
pub(crate) struct MonitoredSocket<S> {
    socket: S,
    meter: ConnectionMeter,
    timeouts: ClientTimeouts,
    reading: Progress,
    writing: Progress,
}

impl<S> MonitoredSocket<S> {
    pub(crate) fn new(socket: S, meter: ConnectionMeter, timeouts: ClientTimeouts) -> Self {
        Self {
            socket,
            meter,
            timeouts,
            reading: Progress::default(),
            writing: Progress::default(),
        }
    }

    fn min_bytes_per_window(&self) -> usize {
        self.timeouts
            .min_bytes_per_second
            .saturating_mul(usize::try_from(SPEED_WINDOW.as_secs()).unwrap_or(1))
    }

    /// Checks the speed of the client after a write of `length` bytes.
    fn after_write(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Pending => {
                let min_bytes = self.min_bytes_per_window();
                match self.writing.wait(cx, SPEED_WINDOW, min_bytes) {
                    Ok(()) => Poll::Pending,
                    Err(error) => {
                        count_closed("slow_reader");
                        Poll::Ready(Err(error))
                    }
                }
            }
            Poll::Ready(Ok(written)) if written < length => {
                self.writing.bytes += written;
                Poll::Ready(Ok(written))
            }
            other => {
                self.writing.reset();
                other
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredSocket<S> {
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
            if this.meter.has_no_pending_bytes() {
                this.reading.reset();
            }
            this.reading.bytes += bytes;
            return Poll::Ready(this.meter.count_read(bytes).inspect_err(|_| {
                count_closed("memory");
            }));
        }
        let phase = this.meter.0.phase.load(Ordering::Relaxed);
        let is_read_elsewhere =
            phase == ANSWERING || this.meter.0.body_readers.load(Ordering::Relaxed) > 0;
        if is_read_elsewhere || this.meter.has_no_pending_bytes() {
            this.reading.reset();
            return Poll::Pending;
        }
        // A head has a fixed time; a message may be long, so its speed is what counts.
        let (window, min_bytes) = if phase == IDLE {
            (this.timeouts.head, usize::MAX)
        } else {
            (SPEED_WINDOW, this.min_bytes_per_window())
        };
        match this.reading.wait(cx, window, min_bytes) {
            Ok(()) => Poll::Pending,
            Err(error) => {
                count_closed("slow_writer");
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, buffer);
        self.after_write(cx, buffer.len(), result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = buffers.iter().map(|buffer| buffer.len()).sum();
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, buffers);
        self.after_write(cx, length, result)
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
