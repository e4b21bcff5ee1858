//! Calls that are passed on: nothing is changed, nothing is buffered, everything has a limit.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{MIB, in_front_of, parts, until};
use crate::support::process::Process;
use crate::support::upstream::{Reply, Upstream};
use crate::support::{Engine, Server, TestDatabase};

#[tokio::test]
async fn calls_and_answers_are_passed_on_as_they_are() {
    let upstream = Upstream::start().await;
    let in_front = in_front_of(&upstream);
    let server = Server::start_with(Engine::Sqlite, |settings| {
        in_front(settings);
        settings.proxy.wukongim_token = "theirs".into();
    })
    .await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
        let target = "/a%20b/c|d/%7C?q=1&q=%2F&r='x'&s=|";
        let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: recents\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\
             Cookie: a=1\r\nCookie: b=2\r\nAccept-Encoding: gzip\r\ntoken: hush\r\n\
             X-Forwarded-For: 198.51.100.7\r\nContent-Length: 3\r\n\r\n\x00ÿ"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\n{\"status\":200}"),
            "not compressed: {answer}"
        );
        assert!(answer.contains("x-upstream: yes\r\n"), "{answer}");
        // CORS is decided here.
        assert_eq!(
            answer.matches("access-control-allow-origin: *").count(),
            1,
            "{answer}"
        );
        let call = upstream.take_call();
        assert_eq!(
            (call.method.as_str(), call.target.as_str()),
            (method, target)
        );
        assert_eq!(call.body, b"\x00\xc3\xbf");
        let headers = &call.headers;
        assert_eq!(
            headers["host"],
            upstream.url.strip_prefix("http://").unwrap()
        );
        assert_eq!(headers["token"], "hush");
        assert_eq!(headers.get_all("cookie").iter().count(), 2);
        assert_eq!(headers["x-forwarded-for"], "198.51.100.7, 127.0.0.1");
        assert_eq!(headers["via"], "1.1 recents");
        assert!(!headers.contains_key("x-hop") && !headers.contains_key("connection"));
    }
    let answer = server.request(server.http("GET", "/nothing")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.take_call().headers["token"], "theirs");

    for (status, body) in [
        (404, "404 page not found"),
        (400, r#"{"msg":"x","status":400}"#),
        (204, ""),
    ] {
        upstream.reply_json("/odd", status, body);
        let answer = server.post("/odd", "x").await;
        assert_eq!((answer.status, answer.text.as_str()), (status, body));
    }
    upstream.reply(
        "/moved",
        Reply::Redirect("http://127.0.0.1:1/elsewhere".to_owned()),
    );
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let answer = client
        .get(format!("{}/moved", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 302);
    assert_eq!(answer.headers()["location"], "http://127.0.0.1:1/elsewhere");
    let answer = client
        .head(format!("{}/odd", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 204);
    upstream.reply_json("/odd", 200, "abc");
    let answer = client
        .head(format!("{}/odd", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-length"], "3");

    // What is recents' own stays its own.
    upstream.take_calls();
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/health",
        "/openapi.json",
        "/docs/",
    ] {
        let answer = server.request(server.http("GET", path)).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(upstream.take_calls().is_empty(), "{path}");
    }
    let answer = server.request(server.http("GET", "/channel/delete")).await;
    assert_eq!(answer.status, 405);
    let answer = server.request(server.http("OPTIONS", "/nothing")).await;
    assert_eq!(answer.status, 204);
    upstream.take_calls();
    let socket = server
        .http("GET", "/ws")
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    let answer = server.request(socket).await;
    assert_eq!(answer.status, 501);
    assert!(answer.msg().contains("WuKongIM itself"), "{}", answer.msg());
    assert!(upstream.take_calls().is_empty());
}

/// A server in a process of its own, whose memory can be measured.
async fn process(upstream: &Upstream, more: &[(&str, &str)]) -> (Process, TestDatabase) {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let own = [
        ("RECENTS__AUTH__MANAGER_TOKEN", "hush"),
        ("RECENTS__PROXY__WUKONGIM_URL", upstream.url.as_str()),
        ("RECENTS__PROXY__TRUSTED_PEERS", "127.0.0.1"),
    ];
    let process = Process::start_with(&database.url, &[&own, more].concat());
    (process, database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_streamed_in_both_directions() {
    let upstream = Upstream::start().await;
    let (process, _database) = process(&upstream, &[]).await;
    upstream.reply("/download", Reply::Bytes(100 * MIB));
    upstream.reply("/echo", Reply::Echo);
    process.get("/livez").await;
    let before = process.anonymous_memory();
    let receive = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let (mut response, mut received) = (response, 0);
        while let Some(part) = response.chunk().await.unwrap() {
            received += part.len();
        }
        received
    };
    for _ in 0..2 {
        let known = vec![b'z'; 100 * MIB];
        let (down, up, known, echo) = tokio::join!(
            receive(process.http("GET", "/download")),
            receive(process.http("POST", "/upload").body(parts(100 * MIB))),
            receive(process.http("POST", "/known").body(known)),
            receive(process.http("POST", "/echo").body(parts(100 * MIB))),
        );
        assert_eq!((down, echo), (100 * MIB, 100 * MIB));
        assert_eq!((up, known), (14, 14));
        for call in upstream.take_calls() {
            match call.target.as_str() {
                "/upload" => {
                    assert_eq!(call.length, 100 * MIB);
                    assert_eq!(call.headers["transfer-encoding"], "chunked");
                }
                "/known" => {
                    assert_eq!(call.length, 100 * MIB);
                    assert_eq!(
                        call.headers["content-length"],
                        (100 * MIB).to_string().as_str()
                    );
                }
                _ => {}
            }
        }
    }
    let growth = process.anonymous_memory().saturating_sub(before);
    assert!(growth < 40 * 1024, "the server took {growth} KiB more");
}

/// A body that is longer than the caller reads holds back the WuKongIM.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_take_no_memory() {
    let upstream = Upstream::start().await;
    let (process, _database) = process(&upstream, &[]).await;
    upstream.reply("/download", Reply::Bytes(100 * MIB));
    process.get("/livez").await;
    let before = process.anonymous_memory();
    let mut unread = Vec::new();
    for _ in 0..50 {
        unread.push(process.http("GET", "/download").send().await.unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(process.metric("recents_proxy_requests_running").await, 50);
    let growth = process.anonymous_memory().saturating_sub(before);
    assert!(growth < 40 * 1024, "the server took {growth} KiB more");
    drop(unread);
    until(async || process.metric("recents_proxy_requests_running").await == 0).await;
}
