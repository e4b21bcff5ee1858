//! A server that recents passes calls on to. It records each call; its answers can be set for each
//! path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A call that arrived.
#[derive(Clone, Debug)]
pub struct UpstreamCall {
    pub method: String,
    /// The path and the query, as they came.
    pub target: String,
    pub headers: HeaderMap,
    /// The first bytes of the body.
    pub body: Vec<u8>,
    /// The length of the body.
    pub length: usize,
}

impl UpstreamCall {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// An answer to all calls of a path.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status and a body of JSON, after a pause.
    Json(u16, String, Duration),
    /// So many bytes, in parts of 16 KiB.
    Bytes(usize),
    /// One part, and then nothing for a while; then another part, if there is one.
    Pause(Duration, Option<&'static str>),
    /// The body that arrives, part by part.
    Echo,
    /// A redirect to this address.
    Redirect(String),
    Never,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<UpstreamCall>>,
    replies: Mutex<HashMap<String, Reply>>,
}

/// A server in the test's process, with a runtime of its own: dropping it closes its connections, as
/// killing it would.
pub struct Upstream {
    pub url: String,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

const RECORDED_BYTES: usize = 64 * 1024;

impl Upstream {
    pub async fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::<Shared>::default();
        let state = Arc::clone(&shared);
        let listening = runtime.spawn(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let router =
                axum::Router::new().fallback(move |request| answer(Arc::clone(&state), request));
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            address
        });
        Self {
            url: format!("http://{}", listening.await.unwrap()),
            shared,
            runtime: Some(runtime),
        }
    }

    /// Sets the answer to all calls of a path; without one it is `{"status":200}`.
    pub fn reply(&self, path: &str, reply: Reply) {
        self.shared
            .replies
            .lock()
            .unwrap()
            .insert(path.to_owned(), reply);
    }

    pub fn reply_json(&self, path: &str, status: u16, body: &str) {
        self.reply(path, Reply::Json(status, body.to_owned(), Duration::ZERO));
    }

    /// Returns the calls so far, and forgets them.
    pub fn take_calls(&self) -> Vec<UpstreamCall> {
        std::mem::take(&mut self.shared.calls.lock().unwrap())
    }

    /// Returns the only call since the last time, and forgets it.
    pub fn take_call(&self) -> UpstreamCall {
        let mut calls = self.take_calls();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let reply = shared
        .replies
        .lock()
        .unwrap()
        .get(parts.uri.path())
        .cloned();
    let mut stream = body.into_data_stream();
    let (mut read, mut length) = (Vec::new(), 0);
    if !matches!(reply, Some(Reply::Echo)) {
        while let Some(Ok(part)) = stream.next().await {
            length += part.len();
            let room = RECORDED_BYTES.saturating_sub(read.len());
            read.extend_from_slice(&part[..part.len().min(room)]);
        }
    }
    shared.calls.lock().unwrap().push(UpstreamCall {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: read,
        length,
    });
    match reply.unwrap_or_else(|| Reply::Json(200, r#"{"status":200}"#.to_owned(), Duration::ZERO))
    {
        Reply::Json(status, text, pause) => {
            tokio::time::sleep(pause).await;
            (
                StatusCode::from_u16(status).unwrap(),
                [
                    ("content-type", "application/json; charset=utf-8"),
                    ("access-control-allow-origin", "*"),
                    ("x-upstream", "yes"),
                ],
                text,
            )
                .into_response()
        }
        Reply::Bytes(count) => {
            let part = Bytes::from(vec![b'x'; 16 * 1024]);
            let parts = (0..count / part.len()).map(move |_| Ok::<_, Infallible>(part.clone()));
            Body::from_stream(stream::iter(parts)).into_response()
        }
        Reply::Pause(pause, rest) => {
            let later = stream::once(async move {
                tokio::time::sleep(pause).await;
                // Without a rest, the connection breaks.
                rest.ok_or_else(|| std::io::Error::other("cut"))
            });
            Body::from_stream(stream::iter([Ok("first,")]).chain(later)).into_response()
        }
        Reply::Echo => Body::from_stream(stream).into_response(),
        Reply::Redirect(target) => (StatusCode::FOUND, [("location", target)], "").into_response(),
        Reply::Never => std::future::pending().await,
    }
}
