//! Accepts connections, up to the limits, and serves the requests of each.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

use super::monitored_socket::{
    ClientTimeouts, ConnectionMeter, MonitoredSocket, OPEN_CONNECTION_BYTES, READ_AHEAD,
};
use crate::budget::CallerIdentity;
use crate::config::{Limits, Settings};
use crate::state::AppState;

/// Bytes of an answer that the system buffers, beside those that are already sent.
const UNSENT_BYTES: u32 = 64 * 1024;
/// The pause after the system refused a connection, because files or memory ran out.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Accepts connections until a shutdown begins. Open connections then finish the request that is
/// running; `AppState::connections_closed` waits for them.
pub async fn serve(state: AppState, router: Router, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = state.shutdown.cancelled() => return,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_caused_by_client(&error) {
                    tracing::warn!(error = %error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                }
                continue;
            }
        };
        let ip = peer.ip().to_canonical();
        if let Some(meter) = admit_connection(&state, ip, OPEN_CONNECTION_BYTES) {
            let connection = serve_connection(state.clone(), router.clone(), socket, peer, meter);
            tokio::spawn(state.connections.track(connection));
        }
    }
}

/// Returns whether the client went away before its connection was accepted, which is not a failure
/// of the server.
fn is_caused_by_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Reserves a slot and memory for a connection; `None` if the budgets are exhausted, and then the
/// connection is closed at once.
pub(crate) fn admit_connection(
    state: &AppState,
    peer: IpAddr,
    bytes: usize,
) -> Option<ConnectionMeter> {
    let identity = CallerIdentity {
        is_service: state.service_addresses.has(peer),
        address: (!state.rate_limiter.is_proxy(peer)).then_some(peer),
        uid: None,
    };
    let slot = state
        .budgets
        .connections
        .try_acquire(identity.clone(), 1)
        .ok()?;
    let memory = state.budgets.memory.try_acquire(identity, bytes).ok()?;
    Some(ConnectionMeter::new(slot, memory))
}

/// Sets the options of a client's socket. Keepalive closes the connection of a client that vanished
/// before a second ping is due; a low `NOTSENT_LOWAT` keeps the system from buffering much of an
/// answer that is not read.
pub(crate) fn set_options(socket: &TcpStream, settings: &Settings) -> io::Result<()> {
    let ping = Duration::from_secs(settings.live.ping_interval_seconds);
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ping).with_interval(ping))?;
    socket.set_tcp_user_timeout(Some(ping * 3 / 4))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

/// Wraps the socket of a connection, with the timeouts of the limits.
pub(crate) fn monitor(
    socket: TcpStream,
    meter: ConnectionMeter,
    limits: &Limits,
) -> MonitoredSocket<TcpStream> {
    MonitoredSocket::new(
        socket,
        meter,
        ClientTimeouts {
            head: Duration::from_secs(limits.header_timeout_seconds),
            min_bytes_per_second: limits.least_bytes_per_second,
        },
    )
}

/// Answers the requests of a connection, one after the other.
async fn serve_connection(
    state: AppState,
    router: Router,
    socket: TcpStream,
    peer: SocketAddr,
    meter: ConnectionMeter,
) {
    if set_options(&socket, &state.settings).is_err() {
        // The client is gone already.
        return;
    }
    let limits = &state.settings.limits;
    let socket = monitor(socket, meter.clone(), limits);
    let service_meter = meter.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let meter = service_meter.clone();
        meter.request_started();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(meter.clone());
        let mut router = router.clone();
        async move {
            let response: Result<Response, Infallible> = router.call(request).await;
            meter.request_answered();
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // From the end of one request to the end of the next head. A head that has begun to arrive
        // has less time: the monitored socket sees to it.
        .header_read_timeout(Duration::from_secs(
            limits
                .idle_timeout_seconds
                .max(limits.header_timeout_seconds),
        ))
        .max_buf_size(READ_AHEAD)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = state.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            if meter.is_idle() {
                // The rest of an answer may still be on its way. So may half a head, which is not
                // a request yet and must not make the shutdown fail.
                let timeout = Duration::from_secs(state.settings.server.shutdown_timeout_seconds) * 4 / 5;
                tokio::time::timeout(timeout, connection).await.unwrap_or(Ok(()))
            } else {
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
}
