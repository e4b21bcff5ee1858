//! Attacks on the proxy in front of a WuKongIM: callers without a token, other hosts, other
//! spellings of paths, smuggled requests.

use std::time::Duration;

use recents::config::Settings;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::upstream::Upstream;
use crate::support::{Engine, Server};

async fn in_front_of(upstream: &Upstream, change: impl FnOnce(&mut Settings)) -> Server {
    Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.manager_token = "hush".into();
        settings.proxy.wukongim_url = upstream.url.as_str().into();
        settings.proxy.wukongim_token = "theirs".into();
        settings.limits.address_requests_per_second = 0;
        change(settings);
    })
    .await
}

/// Sends bytes, and returns all that comes back.
async fn raw(server: &Server, request: &str) -> String {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no status: {answer:?}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn only_the_sockets_peer_makes_a_caller_trusted() {
    let upstream = Upstream::start().await;
    let outcomes = async |change: fn(&mut Settings), headers: &[(&str, &str)]| {
        let server = in_front_of(&upstream, change).await;
        let mut statuses = Vec::new();
        for (method, path) in [("POST", "/user/token"), ("POST", "/channel"), ("GET", "/x")] {
            let mut request = server.http(method, path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let body = json!({"channel_id": "g", "channel_type": 2}).to_string();
            statuses.push(server.request(request.body(body)).await.status);
        }
        // Never on GraphQL.
        let mut request = server.http("POST", "/graphql");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .header("content-type", "application/json")
            .body(r#"{"query":"{ __typename }"}"#);
        let expected = if headers == [("token", "hush")] {
            200
        } else {
            401
        };
        assert_eq!(
            server.request(request).await.status,
            expected,
            "{headers:?}"
        );
        assert!(
            statuses.iter().all(|status| *status == statuses[0]),
            "{statuses:?}"
        );
        let calls = upstream.take_calls().len();
        assert_eq!(calls, if statuses[0] == 200 { 3 } else { 0 }, "{headers:?}");
        statuses[0]
    };
    let trusts = |settings: &mut Settings| {
        settings.proxy.trusted_peers = vec!["127.0.0.0/8".to_owned()];
    };
    let trusts_others = |settings: &mut Settings| {
        settings.proxy.trusted_peers = vec!["10.1.2.3".to_owned(), "::/1".to_owned()];
    };
    let behind_a_proxy = |settings: &mut Settings| {
        settings.server.trusted_proxies = vec!["127.0.0.1".to_owned()];
        settings.proxy.trusted_peers = vec!["10.1.0.0/16".to_owned(), "127.0.0.1".to_owned()];
    };
    assert_eq!(outcomes(|_| {}, &[]).await, 401, "nobody is trusted");
    assert_eq!(outcomes(trusts, &[]).await, 200);
    for headers in [
        // A wrong token, or a user's, is not overlooked.
        ("token", "wrong"),
        ("authorization", "Bearer x.y.z"),
        // Somebody else's request.
        ("x-forwarded-for", "10.1.2.3"),
        ("forwarded", "for=10.1.2.3"),
        ("via", "1.1 nginx"),
        ("x-real-ip", "127.0.0.1"),
        // A page in a browser there.
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        assert_eq!(outcomes(trusts, &[headers]).await, 401, "{headers:?}");
    }
    assert_eq!(outcomes(trusts_others, &[]).await, 401);
    assert_eq!(
        outcomes(trusts_others, &[("x-forwarded-for", "10.1.2.3")]).await,
        401
    );
    // A proxy that is trusted to name its clients.
    for (forwarded, expected) in [
        ("10.1.2.3", 200),
        ("198.51.100.1, 10.1.2.3", 200),
        ("10.1.2.3, 198.51.100.1", 401),
        ("198.51.100.1", 401),
        ("nonsense", 401),
        ("127.0.0.1", 401),
    ] {
        let headers = [("x-forwarded-for", forwarded)];
        assert_eq!(
            outcomes(behind_a_proxy, &headers).await,
            expected,
            "{forwarded}"
        );
    }
    assert_eq!(outcomes(trusts, &[("token", "hush")]).await, 200);
}

#[tokio::test]
async fn targets_of_requests_choose_no_host_and_no_other_spelling() {
    let upstream = Upstream::start().await;
    let other = Upstream::start().await;
    let other_host = other.url.strip_prefix("http://").unwrap();
    let server = in_front_of(&upstream, |_| {}).await;
    let send = async |target: &str| {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {other_host}\r\ntoken: hush\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        raw(&server, &request).await
    };
    for target in [
        format!("http://{other_host}/route"),
        format!("//{other_host}/route"),
        format!("/@{other_host}/route"),
        format!("/http://{other_host}/route"),
        "/x/..".to_owned() + "/route",
        "/..//../route".to_owned(),
    ] {
        let answer = send(&target).await;
        assert_eq!(status(&answer), 200, "{target}: {answer}");
        let call = upstream.take_call();
        assert_eq!(
            call.headers["host"],
            upstream.url.strip_prefix("http://").unwrap()
        );
        assert!(call.target.ends_with("/route"), "{}", call.target);
    }
    // A channel that were deleted there would stay here.
    for target in [
        "/channel/%64elete",
        "/channel//delete",
        "/channel/delete/",
        "/x/../channel/delete",
        "/x/%2e%2e/channel/delete",
        "/channel%2Fdelete",
        "//channel/delete",
        "/%67raphql",
        "/%6Detrics",
        "/webhook/../webhook/x",
        "/message/../conversation/sync",
    ] {
        let answer = send(target).await;
        assert_eq!(status(&answer), 400, "{target}: {answer}");
        assert!(answer.contains("the path must be written as /"), "{answer}");
    }
    for (request, expected) in [
        (
            "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\ntoken: hush\r\nConnection: close\r\n\r\n",
            501,
        ),
        (
            "TRACE /x HTTP/1.1\r\nHost: a\r\ntoken: hush\r\nConnection: close\r\n\r\n",
            501,
        ),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nVia: 1.0 x, 1.1 recents\r\ntoken: hush\r\nConnection: close\r\n\r\n",
            508,
        ),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\ntoken: hush\r\nConnection: close\r\n\r\n",
            400,
        ),
    ] {
        let answer = raw(&server, request).await;
        assert_eq!(status(&answer), expected, "{request}: {answer}");
    }
    assert!(upstream.take_calls().is_empty() && other.take_calls().is_empty());
}

#[tokio::test]
async fn no_request_hides_in_another_one() {
    let upstream = Upstream::start().await;
    let server = in_front_of(&upstream, |_| {}).await;
    let hidden = "POST /channel/delete HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 500\r\nConnection: content-length\r\n",
        "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n",
        "Transfer-Encoding: \tchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "X: a\r\n Transfer-Encoding: chunked\r\n",
        "X: a\nTransfer-Encoding: chunked\r\n",
        "X: \0\r\nContent-Length: 0\r\n",
    ] {
        let request =
            format!("POST /x HTTP/1.1\r\nHost: a\r\ntoken: hush\r\n{lengths}\r\n0\r\n\r\n{hidden}");
        let answer = raw(&server, &request).await;
        // The hidden request has no token, so it is refused where it is seen as one.
        for call in upstream.take_calls() {
            assert_eq!(call.target, "/x", "{lengths:?}: {answer}");
            let names = call.headers.keys().map(|name| name.as_str());
            let framing: Vec<_> = names
                .filter(|name| ["content-length", "transfer-encoding"].contains(name))
                .collect();
            assert_eq!(framing.len(), 1, "{lengths:?}: {:?}", call.headers);
        }
    }
    // Heads are as long as everywhere.
    let request = format!(
        "GET /x HTTP/1.1\r\nHost: a\r\ntoken: hush\r\nX: {}\r\n\r\n",
        "x".repeat(200_000)
    );
    assert_eq!(status(&raw(&server, &request).await), 431);
    let many = "X: y\r\n".repeat(40_000);
    let request = format!("GET /x HTTP/1.1\r\nHost: a\r\ntoken: hush\r\n{many}\r\n");
    assert_eq!(status(&raw(&server, &request).await), 431);
    assert!(upstream.take_calls().is_empty());
}
