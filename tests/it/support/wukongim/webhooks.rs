//! The webhooks of the stand-in.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recents::config::WukongimVersion;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Shared;

/// Messages of one `msg.notify`.
const MAX_BATCH: usize = 100;
/// A real server waits 500 ms; tests are faster.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
const TRIES: usize = 5;
/// A real server waits 1 s.
const RETRY_DELAY: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longer lists of receivers are compressed by v1 and v2 (`channel.subscriberCompressOfCount`).
const MAX_PLAIN_RECEIVERS: usize = 100;

pub(super) struct Queue {
    messages: mpsc::UnboundedSender<(Value, Value)>,
    /// Bodies, and messages to be put into bodies, that are not sent or dropped yet.
    pub(super) pending: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) dropping: AtomicBool,
}

impl Queue {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<(Value, Value)>) {
        let (messages, receiver) = mpsc::unbounded_channel();
        let queue = Self {
            messages,
            pending: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            dropping: AtomicBool::new(false),
        };
        (queue, receiver)
    }

    /// Queues the message for `msg.notify` and for `msg.offline`.
    pub(super) fn enqueue(
        &self,
        version: WukongimVersion,
        message: &Value,
        receivers: Vec<String>,
    ) {
        let mut notified = message.clone();
        if version == WukongimVersion::V3 {
            notified["header"]["red_dot"] = json!(0);
            if message["channel_type"] == 1 {
                notified["channel_id"] = json!(stored_pair(
                    message["from_uid"].as_str().unwrap(),
                    message["channel_id"].as_str().unwrap()
                ));
            }
        }
        let mut offline = notified.clone();
        if version != WukongimVersion::V3 && receivers.len() > MAX_PLAIN_RECEIVERS {
            offline["compress"] = json!("gzip");
            offline["compress_to_uids"] = json!(compressed_without_end(&receivers));
        } else {
            let mut receivers = receivers;
            if version == WukongimVersion::V3 {
                receivers.push(message["from_uid"].as_str().unwrap().to_owned());
            }
            offline["to_uids"] = json!(receivers);
        }
        self.pending.fetch_add(2, Ordering::SeqCst);
        let _ = self.messages.send((notified, offline));
    }
}

/// Compresses the receivers as v1 and v2 do: without closing the gzip, so that its end is missing.
fn compressed_without_end(receivers: &[String]) -> String {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer
        .write_all(json!(receivers).to_string().as_bytes())
        .unwrap();
    STANDARD.encode(packer.get_ref())
}

fn stored_pair(one: &str, other: &str) -> String {
    let rank = |uid: &str| (crc32fast::hash(uid.as_bytes()), uid.to_owned());
    if rank(one) >= rank(other) {
        format!("{one}@{other}")
    } else {
        format!("{other}@{one}")
    }
}

/// Sends `msg.offline` bodies at once and in any order, and `msg.notify` bodies at intervals.
pub(super) async fn send_queued(
    shared: Arc<Shared>,
    mut messages: mpsc::UnboundedReceiver<(Value, Value)>,
) {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
        .unwrap();
    let mut batch = Vec::new();
    let mut interval = tokio::time::interval(BATCH_INTERVAL);
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Some((notified, offline)) = message else { return };
                let (shared, http) = (Arc::clone(&shared), http.clone());
                tokio::spawn(async move {
                    let delay = Duration::from_millis(rand::random_range(0..50));
                    tokio::time::sleep(delay).await;
                    send(&shared, &http, "msg.offline", &offline, 1).await;
                });
                batch.push(notified);
                if batch.len() < MAX_BATCH {
                    continue;
                }
            }
            _ = interval.tick() => {}
        }
        if !batch.is_empty() {
            let (shared, http, body) = (
                Arc::clone(&shared),
                http.clone(),
                std::mem::take(&mut batch),
            );
            tokio::spawn(async move {
                let count = body.len() as u64;
                send(&shared, &http, "msg.notify", &json!(body), count).await;
            });
        }
    }
}

/// Sends a body of `count` queued items at most five times, then drops it.
async fn send(shared: &Shared, http: &reqwest::Client, event: &str, body: &Value, count: u64) {
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(RETRY_DELAY).await;
        }
        let url = shared.data().webhook_url.clone();
        let Some(url) = url else {
            shared.webhooks.pending.fetch_sub(count, Ordering::SeqCst);
            return;
        };
        if shared.webhooks.dropping.load(Ordering::SeqCst) {
            break;
        }
        let request = http
            .post(format!("{url}?event={event}"))
            .header("content-type", "application/json")
            .header("user-agent", "Go-http-client/1.1")
            .body(body.to_string());
        if let Ok(answer) = request.send().await
            && answer.status() == 200
        {
            shared.webhooks.pending.fetch_sub(count, Ordering::SeqCst);
            return;
        }
    }
    shared.webhooks.dropped.fetch_add(1, Ordering::SeqCst);
    shared.webhooks.pending.fetch_sub(count, Ordering::SeqCst);
}
