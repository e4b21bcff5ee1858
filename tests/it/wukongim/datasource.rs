//! Member lookup: a WuKongIM asks this server, and this server asks a business server.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::server::webhook_message;
use crate::support::webhooks::{grpc_channel, send_over_grpc};
use crate::support::{Engine, Server};

async fn wukongim_looks_up_members(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("g", &["ann", "bob"]).await;
    let ask = async |command: &str, id: &str, kind: u8| {
        server
            .call(
                "/datasource",
                json!({"cmd": command, "data": {"channel_id": id, "channel_type": kind}}),
            )
            .await
    };
    let mut members: Vec<String> =
        serde_json::from_value(ask("getSubscribers", "g", 2).await).unwrap();
    members.sort();
    assert_eq!(members, ["ann", "bob"]);
    assert_eq!(ask("getSubscribers", "nowhere", 2).await, json!([]));
    assert_eq!(
        ask("getSubscribers", "bob@ann", 1).await,
        json!(["bob", "ann"])
    );
    assert_eq!(
        ask("getChannelInfo", "g", 2).await,
        json!({"large": 0, "ban": 0, "disband": 0})
    );
    assert_eq!(ask("getBlacklist", "g", 2).await, json!([]));
    assert_eq!(ask("getWhitelist", "g", 2).await, json!([]));
    assert_eq!(ask("getSystemUIDs", "", 0).await, json!([]));
    for (body, text) in [
        (json!({"cmd": "dropTables"}), "cmd must be getSubscribers"),
        (json!({}), "cmd must be"),
        (
            json!({"cmd": "getSubscribers"}),
            "channel_id must not be empty",
        ),
        (
            json!({"cmd": "getSubscribers", "data": {"channel_id": "g", "channel_type": 0}}),
            "channel_type must be",
        ),
        (
            json!({"cmd": "getSubscribers", "data": []}),
            "data must be a JSON object",
        ),
    ] {
        let answer = server.post("/datasource", body.to_string()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.msg().contains(text), "{body}: {}", answer.msg());
    }
}

/// A business server with configured responses.
struct BusinessServer {
    url: String,
    answers: Arc<Mutex<Vec<Result<Value, u16>>>>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl BusinessServer {
    async fn start(answers: Vec<Result<Value, u16>>) -> Self {
        let (answers, asked) = (
            Arc::new(Mutex::new(answers)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let state = (Arc::clone(&answers), Arc::clone(&asked));
        let answer = move |question: String| {
            let (answers, asked) = state.clone();
            async move {
                asked
                    .lock()
                    .unwrap()
                    .push(serde_json::from_str(&question).unwrap());
                let mut answers = answers.lock().unwrap();
                let answer = if answers.len() > 1 {
                    answers.remove(0)
                } else {
                    answers[0].clone()
                };
                answer
                    .map(|value| value.to_string())
                    .map_err(|status| axum::http::StatusCode::from_u16(status).unwrap())
            }
        };
        let router = axum::Router::new().route("/ask", axum::routing::post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ask", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            answers,
            asked,
        }
    }
}

async fn until_listed(server: &Server, uid: &str) -> Value {
    let begun = Instant::now();
    loop {
        if let Some(item) = server.full(uid).await.pop() {
            return item;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{uid} was never reported"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn members_of_unknown_groups_are_looked_up(engine: Engine) {
    let business = BusinessServer::start(vec![Err(500), Ok(json!(["ann", "bob", ""]))]).await;
    let server = Server::start_with(engine, |settings| {
        settings.ingest.datasource_url = business.url.as_str().into()
    })
    .await;
    let bodies = json!([
        webhook_message("bob", "g", 2, 3, 103),
        webhook_message("bob", "g", 2, 2, 102),
        webhook_message("bob", "cat", 1, 1, 301),
    ]);
    server.call("/webhook?event=msg.notify", bodies).await;
    // The first request failed, so it is repeated.
    let item = until_listed(&server, "cat").await;
    assert_eq!(item["channel_type"], 1, "a person channel needs no lookup");
    let begun = Instant::now();
    while server.full("ann").await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let all = server.full("ann").await;
    let item = all.iter().find(|item| item["channel_id"] == "g").unwrap();
    assert_eq!(
        (&item["unread"], &item["last_msg_seq"]),
        (&json!(2), &json!(3)),
        "both messages are new to her"
    );
    let question = json!({"cmd": "getSubscribers", "data": {"channel_id": "g", "channel_type": 2}});
    assert_eq!(
        *business.asked.lock().unwrap(),
        [question.clone(), question],
        "also though its sender is known to be in it"
    );
    // Known members are not requested again.
    server
        .call(
            "/webhook?event=msg.notify",
            json!([webhook_message("bob", "g", 2, 4, 104)]),
        )
        .await;
    assert_eq!(
        server
            .full("ann")
            .await
            .iter()
            .find(|item| item["channel_id"] == "g")
            .unwrap()["unread"],
        3
    );
    assert_eq!(business.asked.lock().unwrap().len(), 2);
    assert_eq!(business.answers.lock().unwrap().len(), 1);
}

/// Waits until the business server has been asked this many times.
async fn until_asked(business: &BusinessServer, times: usize) {
    let begun = Instant::now();
    while business.asked.lock().unwrap().len() < times {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the business server was not asked {times} times"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn groups_whose_receivers_were_cut_are_looked_up_again(engine: Engine) {
    let business =
        BusinessServer::start(vec![Ok(json!(["ann"])), Ok(json!(["ann", "cid", "dan"]))]).await;
    let server = Server::start_with(engine, |settings| {
        settings.ingest.datasource_url = business.url.as_str().into();
        // More members than a request may name are joined in parts.
        settings.limits.max_members_per_request = 2;
    })
    .await;
    server
        .notify(json!([webhook_message("bob", "g", 2, 1, 101)]))
        .await;
    until_listed(&server, "ann").await;
    server
        .notify(json!([webhook_message("bob", "g", 2, 2, 102)]))
        .await;
    assert_eq!(business.asked.lock().unwrap().len(), 1);
    // A gzip of v2 without any data: the receivers are unknown.
    let mut message = webhook_message("bob", "g", 2, 3, 103);
    message["to_uids"] = json!([]);
    message["compress"] = json!("gzip");
    message["compress_to_uids"] = json!("H4sIAAAAAAAA/w==");
    server
        .call("/webhook?event=msg.offline", message.clone())
        .await;
    for uid in ["cid", "dan"] {
        let item = until_listed(&server, uid).await;
        assert_eq!(
            (&item["unread"], &item["last_msg_seq"]),
            (&json!(1), &json!(3)),
            "{uid}"
        );
    }
    until_asked(&business, 2).await;
    // A busy group does not make a request of every message.
    for seq in 4..8 {
        message["message_seq"] = json!(seq);
        message["message_id"] = json!(100 + seq);
        server
            .call("/webhook?event=msg.offline", message.clone())
            .await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(business.asked.lock().unwrap().len(), 2);
    // In another group for the first time, over gRPC.
    message["channel_id"] = json!("other");
    let channel = grpc_channel(&server).await;
    send_over_grpc(&channel, "msg.offline", message.to_string()).await;
    until_asked(&business, 3).await;
}

on_every_database!(
    wukongim_looks_up_members,
    members_of_unknown_groups_are_looked_up,
    groups_whose_receivers_were_cut_are_looked_up_again
);
