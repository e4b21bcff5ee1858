//! A WuKongIM that is slow or away, and callers that hang up: every wait has a limit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{MIB, body_of, in_front_of, parts, until};
use crate::support::upstream::{Reply, Upstream};
use crate::support::{Engine, Server};

/// Starts a server whose proxy waits for a second.
async fn impatient(upstream: &Upstream) -> Server {
    let in_front = in_front_of(upstream);
    Server::start_with(Engine::Sqlite, |settings| {
        in_front(settings);
        settings.proxy.timeout_seconds = 1;
        settings.proxy.max_connections = 4;
        // Calls that are passed on have limits of their own.
        settings.limits.request_timeout_seconds = 1;
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_upstreams_are_answered_with_504() {
    let upstream = Upstream::start().await;
    let server = impatient(&upstream).await;
    upstream.reply("/never", Reply::Never);
    let begun = Instant::now();
    let answer = server.post("/never", "x").await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(answer.json()["status"], 504);
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(
        server
            .request(server.http("GET", "/readyz"))
            .await
            .text
            .contains("proxy.wukongim_url"),
        "readiness says so, with 200"
    );
    assert_eq!(server.post("/fine", "x").await.status, 200);
    assert_eq!(
        server.request(server.http("GET", "/readyz")).await.text,
        "ready\n"
    );

    // An answer may take long, if it goes on.
    upstream.reply(
        "/pause",
        Reply::Pause(Duration::from_millis(700), Some("rest")),
    );
    assert_eq!(server.post("/pause", "x").await.text, "first,rest");
    // It ends early when it does not.
    upstream.reply(
        "/pause",
        Reply::Pause(Duration::from_secs(60), Some("rest")),
    );
    let response = server.http("POST", "/pause").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.text().await.is_err());
    // A server that takes connections and reads nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.proxy.wukongim_url = address.as_str().into();
        settings.proxy.timeout_seconds = 1;
    })
    .await;
    let answer = server
        .request(server.http("POST", "/x").body(parts(50 * MIB)))
        .await;
    assert_eq!(answer.status, 504, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_that_is_away_is_answered_with_502() {
    let upstream = Upstream::start().await;
    let server = impatient(&upstream).await;
    // Killed in the middle of an answer.
    upstream.reply("/cut", Reply::Pause(Duration::from_millis(100), None));
    let response = server.http("POST", "/cut").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        response.text().await.is_err(),
        "the caller sees that the rest is missing"
    );
    drop(upstream);
    for path in ["/message/send", "/channel/subscriber_add", "/anything"] {
        let body = json!({"channel_id": "g", "channel_type": 2, "subscribers": ["ann"]});
        let response = server
            .http("POST", path)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 502, "{path}");
        assert_eq!(response.headers()["retry-after"], "1");
        let answer: serde_json::Value = response.json().await.unwrap();
        assert_eq!(
            answer,
            json!({"msg": "the WuKongIM behind this server cannot be reached just now, try again", "status": 502})
        );
    }
    // What recents has itself is served all the same.
    assert_eq!(server.full("ann").await.len(), 0);
    let ready = server.request(server.http("GET", "/readyz")).await;
    assert_eq!(
        (ready.status, ready.text.as_str()),
        (
            200,
            "ready\nthe WuKongIM at proxy.wukongim_url does not answer\n"
        )
    );
    let metrics = server.request(server.http("GET", "/metrics")).await.text;
    assert!(
        metrics.contains("recents_proxy_requests_total{result=\"unavailable\"}"),
        "{metrics}"
    );
    // A server that closes each connection after the request.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.proxy.wukongim_url = address.as_str().into();
    })
    .await;
    let closing = tokio::spawn(async move {
        let mut answers: Vec<&[u8]> = vec![
            b"",
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ];
        while let Some(answer) = answers.pop() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; MIB]].concat();
        let _ = stream.write_all(&endless).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    for _ in 0..5 {
        assert_eq!(server.post("/x", "y").await.status, 502);
    }
    closing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_free_their_places() {
    let upstream = Upstream::start().await;
    let server = impatient(&upstream).await;
    upstream.reply("/never", Reply::Never);
    upstream.reply(
        "/pause",
        Reply::Pause(Duration::from_millis(600), Some("rest")),
    );
    let waiting = (0..4).map(|_| server.http("POST", "/pause").send());
    let mut waiting = futures_util::future::join_all(waiting).await;
    let answer = server.post("/fine", "x").await;
    assert_eq!(answer.status, 503, "all connections are in use: {answer:?}");
    drop(waiting.remove(0));
    until(async || server.post("/fine", "x").await.status == 200).await;
    drop(waiting);
    let hung_up = (0..4).map(|_| {
        server
            .http("POST", "/never")
            .timeout(Duration::from_millis(100))
            .send()
    });
    assert!(
        futures_util::future::join_all(hung_up)
            .await
            .iter()
            .all(Result::is_err)
    );
    until(async || server.post("/fine", "x").await.status == 200).await;
    // A caller that stops in the middle of its body.
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_may_take_longer_than_a_request() {
    let upstream = Upstream::start().await;
    let server = impatient(&upstream).await;
    upstream.reply("/echo", Reply::Echo);
    let slowly = |path| {
        let parts = stream::unfold(0, |sent| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            (sent < 5).then_some((Bytes::from_static(b"part,"), sent + 1))
        });
        server.http("POST", path).body(body_of(parts))
    };
    let (upload, echo) = tokio::join!(
        server.request(slowly("/upload")),
        server.request(slowly("/echo"))
    );
    assert_eq!(
        (upload.status, echo.status),
        (200, 200),
        "{upload:?} {echo:?}"
    );
    assert_eq!(echo.text, "part,".repeat(5));
}
