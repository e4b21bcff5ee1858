//! The ways in which a webhook reaches a server besides HTTP.

use recents::import::import_file;
use recents::rest::wukong::grpc::{EventReq, EventResp, EventStatus, serve};
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::Server;

/// Returns the seqs of a conversation's messages, newest first.
pub fn seqs(item: &Value) -> Vec<i64> {
    let recents = item["recents"].as_array().unwrap().iter();
    recents
        .map(|message| message["message_seq"].as_i64().unwrap())
        .collect()
}

/// Sends a body over gRPC, and asserts that it succeeds.
pub async fn send_over_grpc(channel: &Channel, event: &str, body: String) {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let request = tonic::Request::new(EventReq {
        event: event.to_owned(),
        data: body.into_bytes().into(),
    });
    let path = PathAndQuery::from_static("/wkhook.WebhookService/SendWebhook");
    let codec: ProstCodec<EventReq, EventResp> = ProstCodec::default();
    let answer = client.unary(request, path, codec).await.unwrap();
    let answer = answer.into_inner();
    let problem = String::from_utf8_lossy(&answer.data);
    assert_eq!(answer.status, i32::from(EventStatus::Success), "{problem}");
}

/// Serves webhooks over gRPC, and connects to it.
pub async fn grpc_channel(server: &Server) -> Channel {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(server.app.clone(), listener));
    Channel::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// Imports bodies as a recording.
pub async fn import_webhooks(server: &Server, bodies: &[(&str, String)]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recording.jsonl");
    let lines: Vec<String> = bodies
        .iter()
        .map(|(event, body)| json!({"path": format!("?event={event}"), "body": body}).to_string())
        .collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let summary = import_file(&server.app.core, &path).await.unwrap();
    assert_eq!(
        (summary.webhooks, summary.refused),
        (bodies.len() as u64, 0),
        "{summary}"
    );
}
