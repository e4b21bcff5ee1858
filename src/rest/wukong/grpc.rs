//! The webhook over gRPC, on a port of its own (`webhook.grpcAddr` in `WuKongIM`'s configuration):
//! `wkhook.WebhookService/SendWebhook`. A `WuKongIM` cannot send a token with it, so only loopback
//! addresses and `ingest.grpc_peers` are accepted.
//!
//! The service is written by hand in the form of tonic's generated code, as its messages are.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyStream, StreamBody};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::webhook::receive_webhook;
use crate::budget::{CallerIdentity, Reservation};
use crate::config::address_range;
use crate::forward::{FORWARDED, ForwardedRequest};
use crate::http::{MonitoredSocket, OPEN_CONNECTION_BYTES, admit_connection, monitor, set_options};
use crate::state::AppState;
use crate::wukongim::SEND_WEBHOOK;
pub use crate::wukongim::{EventReq, EventResp, EventStatus};

/// Maximum number of concurrent webhooks of one connection.
const MAX_CONCURRENT_STREAMS: u32 = 32;
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Bytes of webhooks that a connection may send before they are read.
const FLOW_CONTROL_WINDOW: u32 = 256 * 1024;
/// Maximum number of webhooks that a peer cancels before they are processed.
const MAX_PENDING_RESETS: usize = 20;

/// The gRPC service, and the peers that may call it.
#[derive(Clone)]
struct WebhookService {
    app: AppState,
    peers: Vec<IpNet>,
}

impl NamedService for WebhookService {
    const NAME: &'static str = "wkhook.WebhookService";
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for WebhookService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != SEND_WEBHOOK {
                return Ok(Status::unimplemented("there is only SendWebhook").into_http());
            }
            let identity = CallerIdentity {
                is_service: true,
                ..CallerIdentity::default()
            };
            let reservation = match service.app.budgets.admit(identity) {
                Ok(reservation) => reservation,
                Err(error) => return Ok(Status::resource_exhausted(error.to_string()).into_http()),
            };
            let request = request.map(|body| with_memory_accounting(reservation.clone(), body));
            let limit = service.app.settings.limits.webhook_body_bytes;
            let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(limit);
            Ok(reservation.scope(grpc.unary(service, request)).await)
        })
    }
}

/// Reserves memory for the bytes of a body as they arrive.
fn with_memory_accounting(reservation: Reservation, body: Body) -> Body {
    let frames = BodyStream::new(body).map(move |frame| {
        let frame = frame?;
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        reservation
            .reserve_memory(bytes)
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        Ok::<_, Status>(frame)
    });
    Body::new(StreamBody::new(frames))
}

impl UnaryService<EventReq> for WebhookService {
    type Response = EventResp;
    type Future = BoxFuture<Result<Response<EventResp>, Status>>;

    fn call(&mut self, request: Request<EventReq>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let is_forwarded = request.metadata().contains_key(FORWARDED);
            let EventReq { event, data } = request.into_inner();
            let webhook = ForwardedRequest::from_grpc(event, data);
            let answer = match receive_webhook(&service.app, webhook, is_forwarded).await {
                Ok(()) => EventResp {
                    status: EventStatus::Success.into(),
                    data: Vec::new(),
                },
                Err(error) => {
                    error.log();
                    EventResp {
                        status: EventStatus::Error.into(),
                        data: error.to_string().into_bytes(),
                    }
                }
            };
            Ok(Response::new(answer))
        })
    }
}

/// A connection of an allowed peer.
struct PeerConnection(MonitoredSocket<TcpStream>, TcpConnectInfo);

impl Connected for PeerConnection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.1.clone()
    }
}

impl AsyncRead for PeerConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl WebhookService {
    /// Returns the connection if the peer may send webhooks; other connections are closed before
    /// anything is read.
    fn admit_connection(&self, socket: TcpStream) -> Option<PeerConnection> {
        let info = socket.connect_info();
        let peer = info.remote_addr()?.ip().to_canonical();
        if !self.is_allowed(peer) {
            tracing::warn!(%peer, "refused a connection for webhooks over gRPC: its address is not in ingest.grpc_peers");
            return None;
        }
        self.app.service_addresses.add(peer);
        let meter = admit_connection(
            &self.app,
            peer,
            OPEN_CONNECTION_BYTES + FLOW_CONTROL_WINDOW as usize,
        )?;
        // The timeout for the head of an HTTP/1 request does not apply to HTTP/2 streams.
        meter.request_started();
        set_options(&socket, &self.app.settings).ok()?;
        Some(PeerConnection(
            monitor(socket, meter, &self.app.settings.limits),
            info,
        ))
    }

    fn is_allowed(&self, peer: IpAddr) -> bool {
        peer.is_loopback() || self.peers.iter().any(|range| range.contains(&peer))
    }
}

/// Serves until a shutdown begins, and completes the calls in progress.
///
/// # Errors
/// Returns an error of the operating system.
pub async fn serve(app: AppState, listener: TcpListener) -> anyhow::Result<()> {
    let peers = app
        .settings
        .ingest
        .grpc_peers
        .iter()
        .filter_map(|range| address_range(range))
        .collect();
    let service = WebhookService {
        app: app.clone(),
        peers,
    };
    let known = service.clone();
    let address: Option<SocketAddr> = listener.local_addr().ok();
    tracing::info!(?address, "listening for webhooks over gRPC");
    let limits = app.settings.limits.clone();
    let connections = TcpListenerStream::new(listener).filter_map(move |accepted| {
        let connection = accepted
            .map(|socket| known.admit_connection(socket))
            .transpose();
        std::future::ready(connection)
    });
    let shutdown = app.shutdown.clone();
    let ping = Duration::from_secs(app.settings.live.ping_interval_seconds);
    tonic::transport::Server::builder()
        .timeout(Duration::from_secs(limits.request_timeout_seconds))
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .initial_connection_window_size(FLOW_CONTROL_WINDOW)
        .initial_stream_window_size(FLOW_CONTROL_WINDOW)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_keepalive_interval(Some(ping))
        .http2_keepalive_timeout(Some(ping))
        .add_service(service)
        .serve_with_incoming_shutdown(connections, async move { shutdown.cancelled().await })
        .await?;
    Ok(())
}
