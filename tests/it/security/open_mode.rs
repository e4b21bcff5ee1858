//! A server without authentication is for its own machine only: not for web pages of other origins,
//! and not for proxied requests.

use serde_json::{Value, json};

use crate::support::websocket::upgrade_status;
use crate::support::{Engine, Server};

/// Requests as browsers and proxies send them, each with the status of an open server.
fn requests(host: &str) -> Vec<(Vec<(&'static str, String)>, u16)> {
    let own = format!("http://{host}");
    let port = host.rsplit(':').next().unwrap();
    vec![
        (vec![], 200),
        (vec![("origin", own.clone())], 200),
        (vec![("origin", "https://allowed.example".to_owned())], 200),
        (vec![("origin", "https://evil.example".to_owned())], 403),
        (vec![("origin", "null".to_owned())], 403),
        (vec![("origin", format!("http://localhost:{port}"))], 403),
        (
            vec![
                ("origin", format!("http://localhost:{port}")),
                ("host", format!("localhost:{port}")),
            ],
            200,
        ),
        (vec![("origin", format!("http://{host}.evil.example"))], 403),
        (vec![("host", format!("evil.example:{port}"))], 403),
        (
            vec![
                ("host", format!("evil.example:{port}")),
                ("origin", format!("http://evil.example:{port}")),
            ],
            403,
        ),
        (vec![("host", format!("[::1]:{port}"))], 200),
        (vec![("x-forwarded-for", "203.0.113.9".to_owned())], 403),
        (vec![("x-forwarded-host", "chat.example".to_owned())], 403),
        (vec![("forwarded", "for=203.0.113.9".to_owned())], 403),
        (vec![("via", "1.1 proxy".to_owned())], 403),
        (vec![("x-real-ip", "203.0.113.9".to_owned())], 403),
        (
            vec![
                ("sec-fetch-site", "cross-site".to_owned()),
                ("sec-fetch-mode", "no-cors".to_owned()),
            ],
            403,
        ),
        (vec![("sec-fetch-site", "same-origin".to_owned())], 200),
    ]
}

#[tokio::test]
async fn open_server_answers_only_its_own_machine() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.server.cors_origins = vec!["https://allowed.example".to_owned()]
    })
    .await;
    let host = server.url.strip_prefix("http://").unwrap();
    let query = json!({"query": "{ __typename }"}).to_string();
    for (method, path, body) in [
        ("POST", "/conversation/sync", r#"{"uid":"ann"}"#),
        ("POST", "/webhook?event=msg.notify", "[]"),
        ("POST", "/graphql", query.as_str()),
        ("GET", "/graphql?query=%7B__typename%7D", ""),
        ("GET", "/conversations?uid=ann", ""),
        ("GET", "/metrics", ""),
        ("GET", "/", ""),
        ("GET", "/graphiql", ""),
    ] {
        for (headers, status) in requests(host) {
            let mut request = server
                .http(method, path)
                .header("content-type", "application/json")
                .body(body.to_owned());
            for (name, value) in &headers {
                request = request.header(*name, value);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{method} {path} {headers:?}");
            let allowed = response
                .headers()
                .get("access-control-allow-origin")
                .cloned();
            assert_ne!(
                allowed.as_ref().map(|value| value.as_bytes()),
                Some(b"*".as_slice()),
                "{path} {headers:?}"
            );
            if status == 403 {
                assert_eq!(allowed, None, "{path} {headers:?}");
                let text = response.text().await.unwrap();
                assert!(
                    text.contains("auth.manager_token") && text.contains("auth.jwt"),
                    "{text}"
                );
            }
        }
    }
    // A link on another page may lead here; that page's own requests may not.
    for (mode, status) in [("navigate", 200), ("cors", 403)] {
        let request = server
            .http("GET", "/")
            .header("sec-fetch-site", "cross-site")
            .header("sec-fetch-mode", mode);
        assert_eq!(request.send().await.unwrap().status(), status, "{mode}");
    }
    let preflight = server
        .http("OPTIONS", "/message/send")
        .header("origin", "https://evil.example");
    assert_eq!(preflight.send().await.unwrap().status(), 403);
    for (headers, status) in requests(host) {
        let expected = if status == 200 { 101 } else { status };
        let mut asked = vec![("host", host.to_owned())];
        for header in headers {
            asked.retain(|(name, _)| *name != header.0);
            asked.push(header);
        }
        assert_eq!(
            upgrade_status(&server.url, &asked).await,
            expected,
            "{asked:?}"
        );
    }
}

#[tokio::test]
async fn authenticated_server_allows_pages_and_proxies() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.manager_token = "hush".into()
    })
    .await;
    for (name, value) in [
        ("origin", "https://chat.example"),
        ("host", "chat.example"),
        ("x-forwarded-for", "203.0.113.9"),
    ] {
        let request = server
            .http("POST", "/conversation/sync")
            .header("token", "hush")
            .header(name, value)
            .body(r#"{"uid":"ann"}"#);
        let response = request.send().await.unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()["access-control-allow-origin"]
            ),
            (200, &"*".parse().unwrap()),
            "{name}"
        );
        let sent = response.headers()["access-control-allow-headers"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            sent.contains("authorization") && sent.contains("token"),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn exactly_one_host_header_is_required() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.manager_token = "hush".into()
    })
    .await;
    let ask = async |head: &str| -> (String, Value) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream =
            tokio::net::TcpStream::connect(server.url.strip_prefix("http://").unwrap())
                .await
                .unwrap();
        stream
            .write_all(format!("{head}connection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.lines().next().unwrap().to_owned(),
            serde_json::from_str(body).unwrap_or_default(),
        )
    };
    let (status, body) = ask("GET /livez HTTP/1.1\r\n").await;
    assert_eq!(
        (status.as_str(), &body["msg"]),
        (
            "HTTP/1.1 400 Bad Request",
            &json!("the header Host is missing")
        )
    );
    let (status, body) = ask("GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\n").await;
    assert_eq!(
        (status.as_str(), &body["msg"]),
        (
            "HTTP/1.1 400 Bad Request",
            &json!("the header Host may be there only once")
        )
    );
    assert_eq!(ask("GET /livez HTTP/1.0\r\n").await.0, "HTTP/1.0 200 OK");
    assert_eq!(
        ask("GET /livez HTTP/1.1\r\nhost: a\r\n").await.0,
        "HTTP/1.1 200 OK"
    );
}
