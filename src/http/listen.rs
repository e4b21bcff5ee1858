//! Takes connections, as many as there may be, and serves requests on each.

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

use super::stream::{Meter, OPEN, Patience, READ_AHEAD, Watched};
use crate::app::App;
use crate::budget::Holder;
use crate::config::{Limits, Settings};

/// Bytes that the system keeps of an answer before it is sent, beside what is on its way.
const UNSENT: u32 = 64 * 1024;
/// After the system refused a connection: there are no files or no memory just now.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until a shutdown begins. Connections that are open then finish the request that they are
/// in; [`App::gone`] waits for them.
pub async fn serve(app: App, listener: TcpListener) {
    let router = app.clone().router();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.shutdown.cancelled() => return,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_the_connection(&error) {
                    tracing::warn!(error = %error, "a connection cannot be taken");
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
        };
        if let Some(meter) = admit(&app, peer.ip().to_canonical(), OPEN) {
            let connection = answer(app.clone(), router.clone(), socket, peer, meter);
            tokio::spawn(app.connections.track(connection));
        }
    }
}

/// A client that went away while its connection was taken is no failure of the server's.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// A place for a connection, and the memory that every one takes; one without is closed at once.
pub(crate) fn admit(app: &App, peer: IpAddr, bytes: usize) -> Option<Meter> {
    let holder = Holder {
        is_service: app.services.has(peer),
        address: (!app.rates.is_proxy(peer)).then_some(peer),
        uid: None,
    };
    let place = app.budgets.connections.take(holder.clone(), 1).ok()?;
    let memory = app.budgets.memory.take(holder, bytes).ok()?;
    Some(Meter::new(place, memory))
}

/// A client that vanished acknowledges nothing: its connection is over before a second ping is due.
/// The system keeps little of an answer that nobody reads.
pub(crate) fn set_options(socket: &TcpStream, settings: &Settings) -> io::Result<()> {
    let ping = Duration::from_secs(settings.live.ping_seconds);
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ping).with_interval(ping))?;
    socket.set_tcp_user_timeout(Some(ping * 3 / 4))?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

/// The socket of a connection, watched with the patience that the limits allow.
pub(crate) fn watch(socket: TcpStream, meter: Meter, limits: &Limits) -> Watched<TcpStream> {
    let head = Duration::from_secs(limits.header_seconds);
    Watched::new(
        socket,
        meter,
        Patience {
            head,
            bytes_per_second: limits.least_bytes_per_second,
        },
    )
}

/// Answers the requests of a connection, one after the other.
async fn answer(app: App, router: Router, socket: TcpStream, peer: SocketAddr, meter: Meter) {
    if set_options(&socket, &app.settings).is_err() {
        // The client is gone already.
        return;
    }
    let limits = &app.settings.limits;
    let watched = watch(socket, meter.clone(), limits);
    let own = meter.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let meter = own.clone();
        meter.request();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(meter.clone());
        let mut router = router.clone();
        async move {
            let response: Result<Response, Infallible> = router.call(request).await;
            meter.answered();
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // From the end of one request to the head of the next; a head that has begun has less.
        .header_read_timeout(Duration::from_secs(
            limits.idle_seconds.max(limits.header_seconds),
        ))
        .max_buf_size(READ_AHEAD)
        .serve_connection(TokioIo::new(watched), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = app.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            if meter.is_waiting() {
                // An answer may be on its way; or half a head, which is no request and shall not
                // make the shutdown a failure.
                let patience = Duration::from_secs(app.settings.server.shutdown_seconds) * 4 / 5;
                tokio::time::timeout(patience, connection).await.unwrap_or(Ok(()))
            } else {
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
}
