//! The webhook over gRPC, on a port of its own (`webhook.grpcAddr` there): `wkhook.WebhookService/SendWebhook`. A `WuKongIM` can send no
//! token with it, so only loopback and `ingest.grpc_peers` are let in.
//!
//! The service is written by hand, as tonic's generator would: it is one call with four fields, and so needs no protobuf compiler.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::webhook::deliver;
use crate::app::App;
use crate::config::address_range;

const METHOD: &str = "/wkhook.WebhookService/SendWebhook";

/// `wkhook.EventReq`
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventReq {
    /// `msg.notify`, `msg.offline`, …
    #[prost(string, tag = "1")]
    pub event: String,
    /// The body of the webhook over HTTP.
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

/// `wkhook.EventResp`
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventResp {
    /// Whether it is stored.
    #[prost(enumeration = "EventStatus", tag = "1")]
    pub status: i32,
    /// Why not.
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

/// `wkhook.EventStatus`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EventStatus {
    /// It is not stored; sending it again may help.
    Error = 0,
    /// It is stored.
    Success = 1,
}

/// The service.
#[derive(Clone)]
struct Webhook {
    app: App,
    peers: Vec<IpNet>,
}

impl NamedService for Webhook {
    const NAME: &'static str = "wkhook.WebhookService";
}

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for Webhook {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("there is only SendWebhook").into_http());
            }
            let limit = service.app.settings.limits.webhook_body_bytes;
            Ok(Grpc::new(ProstCodec::default()).max_decoding_message_size(limit).unary(service, request).await)
        })
    }
}

impl UnaryService<EventReq> for Webhook {
    type Response = EventResp;
    type Future = Answering<Result<Response<EventResp>, Status>>;

    fn call(&mut self, request: Request<EventReq>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let peer = request.remote_addr().map(|address| address.ip().to_canonical());
            if !peer.is_some_and(|peer| service.is_known(peer)) {
                return Err(Status::permission_denied("this address is not in ingest.grpc_peers"));
            }
            let EventReq { event, data } = request.into_inner();
            let answer = match deliver(&service.app.core, &event, &data).await {
                Ok(_) => EventResp { status: EventStatus::Success.into(), data: Vec::new() },
                Err(error) => {
                    error.log();
                    EventResp { status: EventStatus::Error.into(), data: error.to_string().into_bytes() }
                }
            };
            Ok(Response::new(answer))
        })
    }
}

impl Webhook {
    fn is_known(&self, peer: IpAddr) -> bool {
        peer.is_loopback() || self.peers.iter().any(|range| range.contains(&peer))
    }
}

/// Serves until a shutdown begins, and finishes what it has begun.
///
/// # Errors
/// What the system says.
pub async fn serve(app: App, listener: TcpListener) -> anyhow::Result<()> {
    let peers = app.settings.ingest.grpc_peers.iter().filter_map(|range| address_range(range)).collect();
    let service = Webhook { app: app.clone(), peers };
    let address: Option<SocketAddr> = listener.local_addr().ok();
    tracing::info!(?address, "listening for webhooks over gRPC");
    let incoming = TcpListenerStream::new(listener);
    let shutdown = app.shutdown.clone();
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async move { shutdown.cancelled().await })
        .await?;
    Ok(())
}
