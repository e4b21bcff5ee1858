//! The log and the metrics of webhooks that are odd: one line for each kind, however often it
//! happens.

use serde_json::json;

use crate::support::process::{Process, recents};
use crate::support::server::webhook_message;
use crate::support::{Engine, TestDatabase, fixtures};

/// Returns the value of a counter with these labels.
async fn counter(server: &Process, sample: &str) -> u64 {
    let (_, text) = server.get("/metrics").await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn odd_webhooks_are_counted_and_logged_once() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = recents();
    command.stderr(std::fs::File::create(&log).unwrap());
    let server = Process::start_as(command, &database.url, &[("RECENTS__LOG__LEVEL", "info")]);
    for line in fixtures::lines("v2/compressed.jsonl") {
        let path = format!("/webhook{}", line["path"].as_str().unwrap());
        let body = line["body"].as_str().unwrap().to_owned();
        assert_eq!(server.post(&path, body).await.unwrap().status, 200);
    }
    let mut chunk = webhook_message("bob", "ann", 1, 0, 11);
    chunk["setting"] = json!(4);
    chunk["to_uids"] = json!(["ann"]);
    for id in 11..14 {
        chunk["message_id"] = json!(id);
        server
            .call("/webhook?event=msg.offline", chunk.clone())
            .await;
    }
    let mut late = webhook_message("bob", "ann", 1, 1, 21);
    for (seq, timestamp) in [
        (1, 1_795_393_001_000_i64),
        (2, 1_795_393_002_000),
        (3, 1_795_393_003_000_000),
    ] {
        late["message_seq"] = json!(seq);
        late["message_id"] = json!(20 + seq);
        late["timestamp"] = json!(timestamp);
        server
            .call("/webhook?event=msg.notify", json!([late]))
            .await;
    }
    let states = json!(["ann-0-1-7-1-2", "a-n-n-1-0-8-0-0", "ann"]);
    server
        .call("/webhook?event=user.onlinestatus", states)
        .await;

    for (sample, count) in [
        ("recents_webhook_recipients_cut_total", 3),
        (
            "recents_webhook_messages_skipped_total{reason=\"stream_chunk\"}",
            3,
        ),
        (
            "recents_timestamps_corrected_total{unit=\"milliseconds\"}",
            2,
        ),
        (
            "recents_timestamps_corrected_total{unit=\"microseconds\"}",
            1,
        ),
        ("recents_online_states_total{result=\"read\"}", 2),
        ("recents_online_states_total{result=\"malformed\"}", 1),
    ] {
        assert_eq!(counter(&server, sample).await, count, "{sample}");
    }
    let log = std::fs::read_to_string(&log).unwrap();
    let warnings = log
        .lines()
        .filter(|line| line.contains(" WARN ") && line.contains("recents::wukongim"));
    let warnings: Vec<&str> = warnings.collect();
    let [recipients, time] = warnings[..] else {
        panic!("{warnings:#?}")
    };
    assert!(
        recipients.contains("set channel.subscriberCompressOfCount to 0"),
        "{recipients}"
    );
    assert!(
        time.contains("smaller unit than seconds") && time.contains("milliseconds"),
        "{time}"
    );
}
