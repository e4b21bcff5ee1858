//! A business server, to which webhooks and datasource requests are forwarded, over HTTP and gRPC.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use recents::rest::wukong::grpc::{EventReq, EventResp, EventStatus};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic_prost::ProstCodec;

/// What the business server says to a request. Over gRPC, 200 is Success, and another status is Error.
#[derive(Clone, Debug)]
pub enum Says {
    Status(u16),
    /// A status, a content type and a body.
    Body(u16, &'static str, Bytes),
    /// To another path of this server.
    Redirect,
    /// 200 after this time.
    Late(Duration),
    /// Nothing, ever.
    Hang,
    /// 200 and a body without end.
    Endless,
}

/// A request that the business server got.
#[derive(Clone, Debug)]
pub struct Got {
    /// Path and query; over gRPC the event.
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Clone, Default)]
struct Script {
    got: Arc<Mutex<Vec<Got>>>,
    planned: Arc<Mutex<VecDeque<Says>>>,
}

pub struct BusinessServer {
    /// `127.0.0.1:…`
    pub address: String,
    script: Script,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for BusinessServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl BusinessServer {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0", false).await
    }

    pub async fn start_grpc() -> Self {
        Self::start_at("127.0.0.1:0", true).await
    }

    pub async fn start_at(address: &str, grpc: bool) -> Self {
        let script = Script::default();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = if grpc {
            let serving = tonic::transport::Server::builder()
                .add_service(script.clone())
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(async move { serving.await.unwrap() })
        } else {
            let router = axum::Router::new()
                .fallback(answer)
                .layer(DefaultBodyLimit::disable())
                .with_state(script.clone());
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
        };
        Self {
            address,
            script,
            serving,
        }
    }

    /// Returns an address at which nobody listens.
    pub async fn nowhere() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets what the server says to the next request. To requests without a plan it says 200.
    pub fn plan(&self, says: Says) {
        self.script.planned.lock().unwrap().push_back(says);
    }

    /// Returns the requests since the last call.
    pub fn take(&self) -> Vec<Got> {
        std::mem::take(&mut self.script.got.lock().unwrap())
    }

    /// Returns the number of requests since the last [`BusinessServer::take`].
    pub fn count(&self) -> usize {
        self.script.got.lock().unwrap().len()
    }

    /// Waits until there are so many requests.
    pub async fn until_count(&self, count: usize) {
        let begun = Instant::now();
        while self.count() < count {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{} of {count} requests",
                self.count()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Script {
    fn next(&self, got: Got) -> Says {
        self.got.lock().unwrap().push(got);
        let planned = self.planned.lock().unwrap().pop_front();
        planned.unwrap_or(Says::Status(200))
    }
}

async fn answer(State(script): State<Script>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let status = |status| StatusCode::from_u16(status).unwrap();
    let says = script.next(Got {
        uri: parts.uri.to_string(),
        headers: parts.headers,
        body,
    });
    match says {
        Says::Status(code) => (status(code), "a text of the business server").into_response(),
        Says::Body(code, kind, body) => {
            (status(code), [(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Says::Redirect => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Says::Late(after) => {
            tokio::time::sleep(after).await;
            StatusCode::OK.into_response()
        }
        Says::Hang => std::future::pending().await,
        Says::Endless => {
            let chunk = Bytes::from(vec![b'['; 1 << 16]);
            let chunks = std::iter::repeat_with(move || Ok::<_, Infallible>(chunk.clone()));
            Body::from_stream(futures_util::stream::iter(chunks)).into_response()
        }
    }
}

impl NamedService for Script {
    const NAME: &'static str = "wkhook.WebhookService";
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl tower_service::Service<axum::http::Request<tonic::body::Body>> for Script {
    type Response = axum::http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<tonic::body::Body>) -> Self::Future {
        let script = self.clone();
        Box::pin(async move {
            let codec: ProstCodec<EventResp, EventReq> = ProstCodec::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(usize::MAX);
            Ok(grpc.unary(script, request).await)
        })
    }
}

impl UnaryService<EventReq> for Script {
    type Response = EventResp;
    type Future = BoxFuture<Result<tonic::Response<EventResp>, Status>>;

    fn call(&mut self, request: tonic::Request<EventReq>) -> Self::Future {
        let script = self.clone();
        Box::pin(async move {
            let headers = request.metadata().clone().into_headers();
            let EventReq { event, data } = request.into_inner();
            let says = script.next(Got {
                uri: event,
                headers,
                body: data,
            });
            let (status, data) = match says {
                Says::Status(200) => (EventStatus::Success, Vec::new()),
                Says::Status(_) => (EventStatus::Error, b"a text".to_vec()),
                Says::Late(after) => {
                    tokio::time::sleep(after).await;
                    (EventStatus::Success, Vec::new())
                }
                Says::Hang => std::future::pending().await,
                Says::Endless => (EventStatus::Success, vec![0; 1 << 20]),
                says => return Err(Status::internal(format!("{says:?}"))),
            };
            Ok(tonic::Response::new(EventResp {
                status: status.into(),
                data,
            }))
        })
    }
}
