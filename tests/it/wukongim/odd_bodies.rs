//! Bodies with values that few parsers can hold: one of them in an unknown field must not cost
//! anything, and one in a known field only its message.

use serde_json::{Value, json};

use crate::support::server::webhook_message;
use crate::support::webhooks::{grpc_channel, import_webhooks, send_over_grpc, seqs};
use crate::support::{Engine, Server};

on_every_database!(
    odd_values_in_unknown_fields_cost_nothing,
    odd_values_in_known_fields_cost_their_message,
);

/// Well-formed JSON (RFC 8259) that `serde_json` cannot hold as a value.
fn odd_values() -> Vec<(&'static str, String)> {
    let nested =
        |open: &str, close: &str, depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
    vec![
        ("half of a surrogate pair", r#""\ud800""#.to_owned()),
        ("the other half", r#""a\udead b""#.to_owned()),
        ("a number above all doubles", "1e400".to_owned()),
        ("a number below them", "-1.5E+999".to_owned()),
        ("a long number", "9".repeat(500)),
        ("130 arrays", nested("[", "]", 130)),
        ("130 objects", nested("{\"a\":", "}", 130)),
        ("20,000 arrays", nested("[", "]", 20_000)),
        ("a key twice", r#"{"a":1,"a":2}"#.to_owned()),
        ("an odd key", r#"{"\ud800":1e400}"#.to_owned()),
    ]
}

/// Adds a field to a message, in front of its fields and after them.
fn with_field(message: &Value, name: &str, value: &str) -> String {
    let text = message.to_string();
    let inside = &text[1..text.len() - 1];
    format!(r#"{{"{name}":{value},{inside},"{name}":{value}}}"#)
}

/// Puts a value in the place of a field.
fn with_value(message: &Value, name: &str, value: &str) -> String {
    let mut message = message.clone();
    message[name] = json!("@@@");
    message.to_string().replace("\"@@@\"", value)
}

async fn odd_values_in_unknown_fields_cost_nothing(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann"]).await;
    let channel = grpc_channel(&server).await;
    let mut seq = 0;
    let mut next = || {
        seq += 1;
        webhook_message("bob", "team", 2, seq, 100 + seq)
    };
    let mut recording = Vec::new();
    for (what, odd) in odd_values() {
        let body = format!("[{},{}]", with_field(&next(), "zzz", &odd), next());
        let answer = server.post("/webhook?event=msg.notify", body).await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        let body = with_field(&next(), "zzz", &odd);
        let answer = server.post("/webhook?event=msg.offline", body).await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        // In a part of a message that is known.
        let mut message = next();
        message["header"] = json!({"red_dot": 1, "zzz": "@@@"});
        let body = format!("[{}]", message.to_string().replace("\"@@@\"", &odd));
        let answer = server.post("/webhook?event=msg.notify", body).await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        let body = format!("[{}]", with_field(&next(), "zzz", &odd));
        send_over_grpc(&channel, "msg.notify", body).await;
        recording.push(("msg.offline", with_field(&next(), "zzz", &odd)));
        // Elements that are no messages are skipped alone.
        let body = format!("[{odd},{}]", next());
        let answer = server.post("/webhook?event=msg.notify", body).await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");

        let body = format!(r#"{{"zzz":{odd},"uid":"ann","msg_count":1,"yyy":[{odd}]}}"#);
        let answer = server.post("/conversation/sync", body).await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
    }
    import_webhooks(&server, &recording).await;
    let body = json!({"uid": "ann", "msg_count": 500});
    let all = &server.sync(body).await[0];
    assert_eq!(seqs(all), (1..=seq).rev().collect::<Vec<_>>());
    assert_eq!(all["unread"], seq);
}

async fn odd_values_in_known_fields_cost_their_message(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann"]).await;
    let bad = webhook_message("bob", "team", 2, 900, 9000);
    let mut seq = 0;
    for (what, odd) in odd_values() {
        for field in [
            "header",
            "setting",
            "message_id",
            "client_msg_no",
            "message_seq",
            "from_uid",
            "channel_id",
            "channel_type",
            "expire",
            "timestamp",
            "payload",
            "topic",
            "stream_no",
        ] {
            // An object is a header.
            if field == "header" && odd.starts_with('{') {
                continue;
            }
            seq += 1;
            let good = webhook_message("bob", "team", 2, seq, 100 + seq);
            let body = format!("[{},{good}]", with_value(&bad, field, &odd));
            let answer = server.post("/webhook?event=msg.notify", body).await;
            assert_eq!(answer.status, 200, "{what} in {field}: {answer:?}");
        }
    }
    let all = &server.sync(json!({"uid": "ann", "msg_count": 500})).await[0];
    assert_eq!(seqs(all), (1..=seq).rev().collect::<Vec<_>>());
    // The state of a stream is not worth the message.
    let other = webhook_message("bob", "team", 2, 1000, 9001);
    let body = format!("[{}]", with_value(&other, "end", "1e400"));
    assert_eq!(
        server.post("/webhook?event=msg.notify", body).await.status,
        200
    );
    assert_eq!(seqs(&server.only("ann").await)[0], 1000);
    // A receiver that is no text is no user.
    let mut offline = webhook_message("bob", "team", 2, 1001, 9002);
    offline["to_uids"] = json!(["@@@", "eve"]);
    let body = offline.to_string().replace("\"@@@\"", r#""\ud800""#);
    assert_eq!(
        server.post("/webhook?event=msg.offline", body).await.status,
        200
    );
    assert_unread!(server, "eve", 1);

    for (what, odd) in odd_values() {
        for body in [
            format!(r#"{{"uid":{odd}}}"#),
            format!(r#"{{"uid":"ann","version":{odd}}}"#),
        ] {
            let answer = server.post("/conversation/sync", body).await;
            assert_eq!(answer.status, 400, "{what}: {answer:?}");
            assert!(
                answer.msg().starts_with("uid must") || answer.msg().starts_with("version must"),
                "{what}: {answer:?}"
            );
        }
    }
}
