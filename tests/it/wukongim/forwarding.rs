//! Webhooks are forwarded to the business server, unchanged, over HTTP and gRPC; a repeat reaches
//! only the side that has missed it.

use recents::config::Settings;
use recents::rest::wukong::grpc::{EventReq, EventResp, EventStatus, serve};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::support::business_server::{BusinessServer, Says};
use crate::support::server::webhook_message;
use crate::support::{Engine, Server};

on_every_database!(
    every_webhook_is_stored_and_forwarded,
    repeat_reaches_only_the_business_server,
    repeat_reaches_only_this_server,
    body_that_cannot_be_stored_is_forwarded_once,
    grpc_and_http_are_forwarded_to_each_other,
    large_bodies_are_forwarded_unchanged,
);

fn forward_to(url: &str) -> impl FnOnce(&mut Settings) {
    move |settings| settings.ingest.forward_url = url.into()
}

fn message(seq: i64) -> Value {
    webhook_message("bob", "g", 2, seq, 100 + seq)
}

/// Renames the table of messages, so that no webhook can be stored, or back.
async fn break_storage(server: &Server, broken: bool) {
    let (from, to) = if broken {
        ("message", "elsewhere")
    } else {
        ("elsewhere", "message")
    };
    let connection = server.database.connect().await;
    connection
        .execute_unprepared(&format!("ALTER TABLE {from} RENAME TO {to}"))
        .await
        .unwrap();
    connection.close().await.unwrap();
}

async fn every_webhook_is_stored_and_forwarded(engine: Engine) {
    let business = BusinessServer::start().await;
    let server = Server::start_with(engine, |settings| {
        settings.ingest.forward_url = business.url("/hook?key=k").as_str().into();
        settings.auth.manager_token = "hush".into();
    })
    .await;
    let send = async |query: &str, kind: &str, body: String| {
        let request = server
            .http("POST", &format!("/webhook{query}"))
            .header("token", "hush")
            .header("content-type", kind)
            .header("x-wukongim-signature", "sha256=1");
        server.request(request.body(body)).await
    };
    let offline = json!({"to_uids": ["ann"]});
    let mut offline_body = message(2);
    offline_body["to_uids"] = offline["to_uids"].clone();
    let online = r#"[ "ann-0-1-7-1-1" ]"#;
    for (query, kind, body) in [
        (
            "?event=msg.notify",
            "application/json",
            json!([message(1)]).to_string(),
        ),
        (
            "?event=msg.offline&node=1&x=a%20b",
            "text/json",
            offline_body.to_string(),
        ),
        (
            "?event=user.onlinestatus",
            "application/json",
            online.to_owned(),
        ),
        // The same body means something new when the first one is done.
        (
            "?event=user.onlinestatus",
            "application/json",
            online.to_owned(),
        ),
        (
            "?event=msg.later",
            "application/x-later",
            "\u{0}not JSON".to_owned(),
        ),
        ("?event=", "application/json", "{}".to_owned()),
    ] {
        let answer = send(query, kind, body.clone()).await;
        let expected = if query == "?event=" { 400 } else { 200 };
        assert_eq!(answer.status, expected, "{query}: {answer:?}");
        let got = business.take();
        assert_eq!(got.len(), 1, "{query}: {got:?}");
        let got = &got[0];
        assert_eq!(got.uri, format!("/hook?key=k&{}", &query[1..]));
        assert_eq!(got.body, body, "{query}");
        assert_eq!(got.headers["content-type"], kind);
        assert_eq!(got.headers["x-wukongim-signature"], "sha256=1");
        assert_eq!(got.headers["x-recents-forwarded"], "1");
        assert!(
            !got.headers.contains_key("token") && !format!("{got:?}").contains("hush"),
            "{got:?}"
        );
    }
    // A stranger's webhook goes nowhere.
    let stranger = server.post("/webhook?event=msg.notify", "[]").await;
    assert_eq!(stranger.status, 401);
    assert_eq!(business.count(), 0);
    let sync = server
        .http("POST", "/conversation/sync")
        .header("token", "hush")
        .body(json!({"uid": "ann", "version": 0, "msg_count": 20}).to_string());
    let listed = server.request(sync).await.json();
    assert_eq!(listed[0]["last_msg_seq"], 2, "{listed}");
}

async fn ready(server: &Server) -> String {
    let answer = server.request(server.http("GET", "/readyz")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text
}

async fn repeat_reaches_only_the_business_server(engine: Engine) {
    let business = BusinessServer::start().await;
    let server = Server::start_with(engine, forward_to(&business.url("/hook"))).await;
    server.group("g", &["ann", "bob"]).await;
    assert_eq!(ready(&server).await, "ready\n");
    let failures = [
        (Says::Status(500), "status 500 Internal Server Error"),
        (Says::Status(201), "status 201 Created"),
        (Says::Status(404), "status 404 Not Found"),
        (Says::Redirect, "status 302 Found"),
    ];
    for (seq, (says, text)) in (1..).zip(failures) {
        business.plan(says.clone());
        let body = json!([message(seq)]);
        let answer = server.notify(body.clone()).await;
        assert_eq!(
            (answer.status, answer.msg()),
            (502, format!("ingest.forward_url answered with {text}"))
        );
        assert_unread!(server, "ann", seq, "it is stored nevertheless");
        let text = ready(&server).await;
        assert!(
            text.starts_with("ready\nforwarding to ingest.forward_url fails since ")
                && text.ends_with(" s\n"),
            "{text}"
        );
        // The repeat is stored already: this server does not even need its database.
        break_storage(&server, true).await;
        assert_eq!(server.notify(body.clone()).await.status, 200, "{says:?}");
        break_storage(&server, false).await;
        assert_eq!(ready(&server).await, "ready\n");
        let got = business.take();
        assert!(
            got.len() == 2 && got.iter().all(|got| got.body == body.to_string()),
            "{got:?}"
        );
    }
    assert_unread!(server, "ann", 4);
}

async fn repeat_reaches_only_this_server(engine: Engine) {
    let business = BusinessServer::start().await;
    let server = Server::start_with(engine, forward_to(&business.url("/hook"))).await;
    server.group("g", &["ann", "bob"]).await;
    break_storage(&server, true).await;
    let body = json!([message(1)]);
    for attempt in 1..=5 {
        let answer = server.notify(body.clone()).await;
        assert!(answer.status >= 500, "attempt {attempt}: {answer:?}");
        assert_eq!(business.count(), 1, "attempt {attempt}");
    }
    break_storage(&server, false).await;
    assert_eq!(server.notify(body.clone()).await.status, 200);
    assert_unread!(server, "ann", 1);
    assert_eq!(business.count(), 1);
    // After a success nothing is remembered: this is no repeat of a failure.
    assert_eq!(server.notify(body).await.status, 200);
    assert_eq!(business.count(), 2);
    // Both fail at first, then one after the other.
    break_storage(&server, true).await;
    business.take();
    business.plan(Says::Status(503));
    let body = json!([message(2)]);
    assert!(server.notify(body.clone()).await.status >= 500);
    assert!(server.notify(body.clone()).await.status >= 500);
    break_storage(&server, false).await;
    assert_eq!(server.notify(body).await.status, 200);
    assert_eq!(business.count(), 2, "the second attempt was taken");
    assert_unread!(server, "ann", 2);
}

async fn body_that_cannot_be_stored_is_forwarded_once(engine: Engine) {
    let business = BusinessServer::start().await;
    let server = Server::start_with(engine, forward_to(&business.url("/hook"))).await;
    for (query, body, text) in [
        (
            "?event=msg.notify",
            "{}",
            "the body must be a JSON array of messages",
        ),
        ("?event=msg.offline", "[", "JSON"),
        ("", "{}", "event must be given"),
    ] {
        let path = format!("/webhook{query}");
        business.plan(Says::Status(500));
        let answer = server.post(&path, body).await;
        assert_eq!(
            answer.status, 502,
            "a repeat helps the other side: {answer:?}"
        );
        for _ in 0..5 {
            let answer = server.post(&path, body).await;
            assert_eq!(answer.status, 400, "{answer:?}");
            assert!(answer.msg().contains(text), "{answer:?}");
        }
        let got = business.take();
        assert_eq!(got.len(), 2, "{query}: {got:?}");
        assert_eq!(got[1].uri, format!("/hook{query}"));
        assert_eq!(got[1].body, body);
    }
}

async fn send_over_grpc(channel: &Channel, event: &str, body: String) -> EventResp {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let request = tonic::Request::new(EventReq {
        event: event.to_owned(),
        data: body.into(),
    });
    let codec: ProstCodec<EventReq, EventResp> = ProstCodec::default();
    let path = PathAndQuery::from_static("/wkhook.WebhookService/SendWebhook");
    client
        .unary(request, path, codec)
        .await
        .unwrap()
        .into_inner()
}

async fn grpc_and_http_are_forwarded_to_each_other(engine: Engine) {
    let over_http = BusinessServer::start().await;
    let over_grpc = BusinessServer::start_grpc().await;
    let server = Server::start_with(engine, |settings| {
        settings.ingest.forward_url = over_http.url("/hook").as_str().into();
        settings.ingest.forward_grpc.clone_from(&over_grpc.address);
    })
    .await;
    server.group("g", &["ann", "bob"]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(server.app.clone(), listener));
    let channel = Channel::from_shared(address).unwrap().connect_lazy();
    let success = EventResp {
        status: EventStatus::Success.into(),
        data: Vec::new(),
    };
    let one = json!([message(1)]);
    assert_eq!(server.notify(one.clone()).await.status, 200);
    let two = json!([message(2)]);
    let answer = send_over_grpc(&channel, "msg.notify", two.to_string()).await;
    assert_eq!(answer, success);
    let online = r#"["ann-0-1-7-1-1"]"#;
    let answer = send_over_grpc(&channel, "a&b", online.to_owned()).await;
    assert_eq!(answer, success);
    assert_unread!(server, "ann", 2);
    let bodies = [one.to_string(), two.to_string(), online.to_owned()];
    for (business, uris) in [
        (
            &over_http,
            [
                "/hook?event=msg.notify",
                "/hook?event=msg.notify",
                "/hook?event=a%26b",
            ],
        ),
        (&over_grpc, ["msg.notify", "msg.notify", "a&b"]),
    ] {
        let got = business.take();
        let seen = got.iter().map(|got| (got.uri.as_str(), got.body.clone()));
        let expected = uris.into_iter().zip(bodies.clone().map(Into::into));
        assert_eq!(seen.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert!(
            got.iter()
                .all(|got| got.headers["x-recents-forwarded"] == "1")
        );
    }
    assert_eq!(over_http.take().len(), 0);

    // A failure of one target is repeated there only.
    for (says, text) in [
        (
            Says::Status(500),
            "ingest.forward_grpc answered with the status Error",
        ),
        (
            Says::Redirect,
            "ingest.forward_grpc answered with gRPC status Internal",
        ),
        (
            Says::Endless,
            "ingest.forward_grpc answered with gRPC status OutOfRange",
        ),
    ] {
        let body = json!([message(3)]);
        over_grpc.plan(says.clone());
        let answer = send_over_grpc(&channel, "msg.notify", body.to_string()).await;
        assert_eq!(answer.status, i32::from(EventStatus::Error));
        assert_eq!(String::from_utf8(answer.data).unwrap(), text);
        assert!(
            ready(&server)
                .await
                .contains("forwarding to ingest.forward_grpc fails")
        );
        let again = server.notify(body).await;
        assert_eq!(again.status, 200, "over the other transport: {again:?}");
        assert_eq!(
            (over_http.take().len(), over_grpc.take().len()),
            (1, 2),
            "{says:?}"
        );
    }
    over_http.plan(Says::Status(500));
    let body = json!([message(4)]);
    assert_eq!(server.notify(body.clone()).await.status, 502);
    assert_eq!(server.notify(body).await.status, 200);
    assert_eq!((over_http.take().len(), over_grpc.take().len()), (2, 1));
    assert_unread!(server, "ann", 4);
}

async fn large_bodies_are_forwarded_unchanged(engine: Engine) {
    let over_http = BusinessServer::start().await;
    let over_grpc = BusinessServer::start_grpc().await;
    let server = Server::start_with(engine, |settings| {
        settings.ingest.forward_url = over_http.url("/").as_str().into();
        settings.ingest.forward_grpc.clone_from(&over_grpc.address);
    })
    .await;
    server.group("g", &["ann", "bob"]).await;
    let messages: Vec<Value> = (1..=100)
        .map(|seq| {
            let mut message = message(seq);
            message["payload"] = json!("QUJD".repeat(20_000));
            message
        })
        .collect();
    let body = json!(messages).to_string();
    assert!(body.len() > 8_000_000, "{}", body.len());
    over_http.plan(Says::Endless);
    let answer = server.post("/webhook?event=msg.notify", body.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for business in [&over_http, &over_grpc] {
        let got = business.take();
        assert!(got.len() == 1 && got[0].body == body, "{}", got.len());
    }
    assert_unread!(server, "ann", 100);
}
