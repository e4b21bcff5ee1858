//! Webhooks over gRPC, as a WuKongIM with `webhook.grpcAddr` sends them.

use recents::rest::wukong::grpc::{EventReq, EventResp, EventStatus, serve};
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::support::server::webhook_message;
use crate::support::{Engine, Server};

async fn call(
    channel: &Channel,
    path: &'static str,
    event: &str,
    data: Vec<u8>,
) -> Result<EventResp, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let request = Request::new(EventReq {
        event: event.to_owned(),
        data: data.into(),
    });
    let codec: ProstCodec<EventReq, EventResp> = ProstCodec::default();
    Ok(client
        .unary(request, PathAndQuery::from_static(path), codec)
        .await?
        .into_inner())
}

const SEND: &str = "/wkhook.WebhookService/SendWebhook";

async fn webhooks_over_grpc(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("g", &["ann", "bob"]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(serve(server.app.clone(), listener));
    let channel = Channel::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let send = async |event: &str, body: Value| {
        call(&channel, SEND, event, body.to_string().into_bytes())
            .await
            .unwrap()
    };
    let done = EventResp {
        status: EventStatus::Success.into(),
        data: Vec::new(),
    };
    assert_eq!(
        send(
            "msg.notify",
            json!([
                webhook_message("bob", "g", 2, 1, 11),
                webhook_message("bob", "g", 2, 2, 12)
            ])
        )
        .await,
        done
    );
    assert_eq!(
        send("msg.notify", json!([webhook_message("bob", "g", 2, 1, 11)])).await,
        done,
        "again"
    );
    assert_unread!(server, "ann", 2);
    let mut offline = webhook_message("bob", "g", 2, 3, 13);
    offline["to_uids"] = json!(["cat"]);
    assert_eq!(send("msg.offline", offline).await, done);
    assert_unread!(server, "cat", 1);
    assert_eq!(
        send("user.onlinestatus", json!(["ann-0-1-0-1-1"])).await,
        done
    );
    let refused = send("msg.notify", json!({})).await;
    assert_eq!(refused.status, i32::from(EventStatus::Error));
    assert_eq!(
        String::from_utf8(refused.data).unwrap(),
        "the body must be a JSON array of messages"
    );
    let unknown = call(&channel, "/wkhook.WebhookService/Nothing", "x", Vec::new())
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::Unimplemented);
    // A shutdown waits for a running call.
    server.app.shutdown.cancel();
    tokio::time::timeout(std::time::Duration::from_secs(5), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

on_every_database!(webhooks_over_grpc);

/// Calls from other machines are refused: another address of this machine counts as one.
#[tokio::test]
async fn unknown_addresses_are_refused() {
    let own = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    // A machine without a network has no other address.
    let Ok(own) = own else { return };
    for (peers, known) in [(vec![], false), (vec![own.ip().to_string()], true)] {
        let server = Server::start_with(Engine::Sqlite, |settings| {
            settings.ingest.grpc_peers = peers.clone()
        })
        .await;
        let listener = tokio::net::TcpListener::bind((own.ip(), 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(server.app.clone(), listener));
        let mut client = Grpc::new(Channel::from_shared(address).unwrap().connect_lazy());
        let request = Request::new(EventReq {
            event: "msg.notify".to_owned(),
            data: b"[]".as_slice().into(),
        });
        let codec: ProstCodec<EventReq, EventResp> = ProstCodec::default();
        // A connection from an unknown address is closed before it sends anything.
        let answer = match client.ready().await {
            Ok(()) => client
                .unary(request, PathAndQuery::from_static(SEND), codec)
                .await
                .is_ok(),
            Err(_) => false,
        };
        assert_eq!(answer, known, "peers {peers:?}");
    }
}
