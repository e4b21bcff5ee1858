//! Datasource requests are answered by the business server, and the members in its answers become
//! known.

use std::time::{Duration, Instant};

use recents::config::Settings;
use serde_json::{Value, json};

use crate::support::business_server::{BusinessServer, Says};
use crate::support::server::{Answer, webhook_message};
use crate::support::{Engine, Server};

on_every_database!(members_in_forwarded_answers_become_known);

fn ask_at(url: &str) -> impl FnOnce(&mut Settings) {
    move |settings| settings.ingest.datasource_forward_url = url.into()
}

fn question(command: &str, channel_id: &str, channel_type: u8) -> String {
    let data = json!({"channel_id": channel_id, "channel_type": channel_type});
    json!({"cmd": command, "data": data}).to_string()
}

async fn ask(server: &Server, body: impl Into<String>) -> Answer {
    let request = server
        .http("POST", "/datasource")
        .header("content-type", "application/json");
    server.request(request.body(body.into())).await
}

fn json_body(text: &'static str) -> Says {
    Says::Body(200, "application/json", text.into())
}

/// Waits until the group has these members.
async fn until_members(server: &Server, group: &str, expected: &[&str]) {
    let begun = Instant::now();
    loop {
        let channel = recents::model::ChannelRef::parse(group.to_owned(), 2).unwrap();
        let members = recents::channel::list_members(&server.app.core.channels, &channel);
        let mut members = members.await.unwrap();
        members.sort();
        if members == expected {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{members:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn members_in_forwarded_answers_become_known(engine: Engine) {
    let business = BusinessServer::start().await;
    let server = Server::start_with(engine, ask_at(&business.url("/ask?key=k"))).await;
    let hook = |group: &str, seq: i64, id: i64| json!([webhook_message("bob", group, 2, seq, id)]);

    // Messages are here already: the members join just below the newest one.
    server
        .call("/webhook?event=msg.notify", hook("g", 6, 106))
        .await;
    server
        .call("/webhook?event=msg.notify", hook("g", 7, 107))
        .await;
    let text = r#"[ "ann", "bob","" ]"#;
    business.plan(json_body(text));
    let answer = ask(&server, question("getSubscribers", "g", 2)).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, text));
    assert_eq!(answer.content_type, "application/json");
    until_members(&server, "g", &["ann", "bob"]).await;
    let got = business.take();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].uri, "/ask?key=k");
    assert_eq!(got[0].body, question("getSubscribers", "g", 2));
    assert_eq!(got[0].headers["content-type"], "application/json");
    assert_eq!(got[0].headers["x-recents-forwarded"], "1");
    let listed = server.only("ann").await;
    assert_eq!(
        (&listed["unread"], &listed["last_msg_seq"]),
        (&json!(1), &json!(7))
    );

    // The message comes after the answer, as from a WuKongIM that asks for the members first.
    business.plan(json_body(r#"["cat","dan"]"#));
    ask(&server, question("getSubscribers", "new", 2)).await;
    until_members(&server, "new", &["cat", "dan"]).await;
    server
        .call("/webhook?event=msg.notify", hook("new", 3, 203))
        .await;
    assert_unread!(server, "cat", 1);

    // Members stay as they are, and a user who was removed a moment ago stays removed.
    server
        .call(
            "/conversations/clearUnread",
            json!({"uid": "ann", "channel_id": "g", "channel_type": 2}),
        )
        .await;
    server
        .call(
            "/channel/subscriber_remove",
            json!({"channel_id": "new", "channel_type": 2, "subscribers": ["dan"]}),
        )
        .await;
    business.plan(json_body(r#"["ann","bob","eve"]"#));
    ask(&server, question("getSubscribers", "g", 2)).await;
    until_members(&server, "g", &["ann", "bob", "eve"]).await;
    assert_unread!(server, "ann", 0);
    business.plan(json_body(r#"["bob","cat","dan","eve"]"#));
    ask(&server, question("getSubscribers", "new", 2)).await;
    until_members(&server, "new", &["bob", "cat", "eve"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_returned_unchanged() {
    let business = BusinessServer::start().await;
    let server = Server::start_with(Engine::Sqlite, ask_at(&business.url("/ask"))).await;
    for (command, group, kind, text) in [
        (
            "getChannelInfo",
            "g",
            2,
            r#"{"large":1,"ban":1,"receiver":"x"}"#,
        ),
        ("getBlacklist", "g", 2, r#"["eve"]"#),
        ("getWhitelist", "g", 2, "null"),
        ("getSystemUIDs", "", 0, r#"["robot"]"#),
        ("getSubscribers", "bob@ann", 1, r#"["ann","bob"]"#),
        ("getSubscribers", "g", 2, r#"{"not":"a list"}"#),
        ("getSubscribers", "g", 2, "[1,2]"),
        ("getSubscribers", "g", 2, "not JSON"),
        ("getSubscribers", "g", 2, ""),
        ("getSubscribers", "", 2, r#"["ann"]"#),
        ("getLater", "g", 2, "17"),
    ] {
        business.plan(Says::Body(200, "text/x-later", text.into()));
        let answer = ask(&server, question(command, group, kind)).await;
        assert_eq!(
            (
                answer.status,
                answer.text.as_str(),
                answer.content_type.as_str()
            ),
            (200, text, "text/x-later"),
            "{command}"
        );
    }
    for body in ["not JSON", "", "[]"] {
        business.plan(json_body("3"));
        let answer = ask(&server, body).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "3"), "{body}");
        assert_eq!(business.take().last().unwrap().body, body);
    }
    let channels = server.full("ann").await;
    assert!(channels.is_empty(), "nobody became a member: {channels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_is_not_answered_from_incomplete_members() {
    let business = BusinessServer::start().await;
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.ingest.datasource_forward_url = business.url("/ask").as_str().into();
        settings.limits.body_bytes = 1000;
    })
    .await;
    server.group("g", &["ann"]).await;
    let long = format!("[{}1]", "1,".repeat(500));
    for (says, text) in [
        (
            Says::Status(500),
            "answered with status 500 Internal Server Error",
        ),
        (Says::Redirect, "answered with status 302 Found"),
        (Says::Endless, "gave an answer that cannot be read"),
        (
            Says::Body(200, "application/json", long.into()),
            "gave an answer that cannot be read",
        ),
        (Says::Hang, "did not answer within 4 s"),
    ] {
        business.plan(says.clone());
        let begun = Instant::now();
        let answer = ask(&server, question("getSubscribers", "g", 2)).await;
        assert_eq!(
            (answer.status, answer.msg()),
            (502, format!("ingest.datasource_forward_url {text}")),
            "{says:?}"
        );
        assert!(begun.elapsed() < Duration::from_secs(5), "{says:?}");
        let ready = server.request(server.http("GET", "/readyz")).await;
        assert_eq!(ready.status, 200);
        let line = "\nforwarding to ingest.datasource_forward_url fails since ";
        assert!(ready.text.contains(line), "{ready:?}");
    }
    let request = server
        .http("POST", "/datasource")
        .header("x-recents-forwarded", "1");
    let answer = server.request(request.body("{}")).await;
    assert_eq!(answer.status, 508);
    assert!(
        answer.msg().contains("ingest.datasource_forward_url"),
        "{answer:?}"
    );
    let webhooks: Value = server
        .call("/webhook?event=user.onlinestatus", json!(["ann-0-1-7-1-1"]))
        .await;
    assert_eq!(
        webhooks,
        json!({"status": 200}),
        "webhooks are not forwarded"
    );
}
