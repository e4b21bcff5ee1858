//! recents at a WuKongIM's address: what it answers, what it passes on, and what is done on both.

mod business_server;
mod changes;
mod limits;
mod transport;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use recents::config::Settings;

use crate::support::upstream::Upstream;

/// Settings of a server in front of this upstream. Callers on this machine need no token.
fn in_front_of(upstream: &Upstream) -> impl FnOnce(&mut Settings) + use<> {
    let url = upstream.url.clone();
    move |settings| {
        settings.auth.manager_token = "hush".into();
        settings.proxy.wukongim_url = url.as_str().into();
        settings.proxy.trusted_peers = vec!["127.0.0.1".to_owned()];
        settings.limits.address_requests_per_second = 0;
    }
}

const MIB: usize = 1024 * 1024;

fn body_of(parts: impl Stream<Item = Bytes> + Send + Sync + 'static) -> reqwest::Body {
    let frames = parts.map(|part| Ok::<_, Infallible>(Frame::data(part)));
    reqwest::Body::wrap(StreamBody::new(frames))
}

fn parts(count: usize) -> reqwest::Body {
    let part = Bytes::from(vec![b'y'; 64 * 1024]);
    let count = count / part.len();
    body_of(stream::iter((0..count).map(move |_| part.clone())))
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("it never happens");
}
