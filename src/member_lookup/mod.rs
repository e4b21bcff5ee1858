//! Look-up of group members at the business server, with `WuKongIM`'s protocol (`datasource.addr`):
//! `POST {"cmd":"getSubscribers","data":{"channel_id","channel_type"}}` returns an array of uids.
//!
//! When a webhook brings a message of a group that was not looked up recently, the message is
//! stored at once. The members are looked up in the background and join below the message, so that
//! it shows and counts as unread. Where a `WuKongIM` looks members up through this server
//! (`ingest.datasource_forward_url`), the answers make members known as well (`learn.rs`).

mod learn;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::mpsc;

pub(crate) use self::learn::MemberLearner;
use crate::config::ConfigError;
use crate::message::{IncomingMessage, MessageBatch, MessageService, Recipients, ingest};
use crate::model::{ChannelKey, ChannelType, EpochMs, Message, MessageId, Seq, Uid};
use crate::outage::OutageLog;
use crate::outbound::{ReadBodyError, read_response_body};

/// Maximum number of queued groups. If the queue is full, the next message of a group enqueues it
/// again.
const MAX_QUEUED: usize = 10_000;
/// How long a look-up is valid. The first message afterwards looks the group up again, because it
/// may have new members.
const LOOKUP_TTL: Duration = Duration::from_secs(600);
/// The same for a message that names fewer recipients than it has.
const LOOKUP_TTL_WITHOUT_RECIPIENTS: Duration = Duration::from_secs(30);
const MAX_RECENT_LOOKUPS: u64 = 100_000;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses before each retry.
const RETRY_DELAYS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(25),
];

/// A group to look up, and the message below which its members join.
#[derive(Clone, Debug)]
struct LookupRequest {
    key: ChannelKey,
    seq: Seq,
    message_id: MessageId,
    sent_at: EpochMs,
}

/// The reason why a group could not be looked up.
#[derive(Debug, thiserror::Error)]
enum LookupError {
    /// The business server did not answer, or failed: no group can be looked up at present.
    #[error("{0}")]
    Unavailable(String),
    /// The answer about this group cannot be used, or not be stored.
    #[error("{0}")]
    Unusable(String),
}

/// Queue of groups to look up.
#[derive(Debug)]
pub(crate) struct MemberLookup {
    queue: mpsc::Sender<LookupRequest>,
    recent_lookups: Cache<ChannelKey, ()>,
    /// Those for messages that named fewer recipients than they had.
    recent_lookups_without_recipients: Cache<ChannelKey, ()>,
}

/// Looks up groups as long as the server runs.
#[derive(Debug)]
pub(crate) struct MemberLookupWorker {
    url: String,
    http: reqwest::Client,
    queue: mpsc::Receiver<LookupRequest>,
    outages: OutageLog,
}

/// Creates the queue and its worker.
///
/// # Errors
/// The HTTP client cannot be built.
pub(crate) fn create(url: &str) -> Result<(MemberLookup, MemberLookupWorker), ConfigError> {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED);
    let http = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build();
    let http = http.map_err(|error| {
        ConfigError(format!(
            "cannot create an HTTP client for ingest.datasource_url: {error}"
        ))
    })?;
    Ok((
        MemberLookup::new(sender, LOOKUP_TTL, LOOKUP_TTL_WITHOUT_RECIPIENTS),
        MemberLookupWorker {
            url: url.to_owned(),
            http,
            queue: receiver,
            outages: OutageLog::new(
                "ingest.datasource_url cannot be reached: members of groups are not looked up",
                "ingest.datasource_url is reached again",
            ),
        },
    ))
}

impl MemberLookup {
    fn new(
        queue: mpsc::Sender<LookupRequest>,
        ttl: Duration,
        ttl_without_recipients: Duration,
    ) -> Self {
        let recent_lookups = |ttl| {
            Cache::builder()
                .max_capacity(MAX_RECENT_LOOKUPS)
                .time_to_live(ttl)
                .build()
        };
        Self {
            queue,
            recent_lookups: recent_lookups(ttl),
            recent_lookups_without_recipients: recent_lookups(ttl_without_recipients),
        }
    }

    /// Enqueues the groups of stored messages that were not looked up recently. If a message
    /// `lacks_recipients`, its group has members who may be unknown, so an earlier look-up is not
    /// enough.
    pub(crate) fn enqueue_unknown(&self, messages: &[IncomingMessage], lacks_recipients: bool) {
        let recent = if lacks_recipients {
            &self.recent_lookups_without_recipients
        } else {
            &self.recent_lookups
        };
        // The lowest message of each group: members who join below it see all of them.
        let mut lowest: HashMap<&ChannelKey, &Message> = HashMap::new();
        for IncomingMessage { key, message } in messages {
            if key.channel_type == ChannelType::PERSON || recent.contains_key(key) {
                continue;
            }
            let known = lowest.entry(key).or_insert(message);
            if message.seq < known.seq {
                *known = message;
            }
        }
        for (key, message) in lowest {
            let request = LookupRequest {
                key: key.clone(),
                seq: message.seq,
                message_id: message.message_id,
                sent_at: message.sent_at,
            };
            if self.queue.try_send(request).is_ok() {
                self.recent_lookups.insert(key.clone(), ());
                recent.insert(key.clone(), ());
            }
        }
    }
}

impl MemberLookupWorker {
    pub(crate) async fn run(mut self, messages: Arc<MessageService>) {
        while let Some(request) = self.queue.recv().await {
            let mut delays = RETRY_DELAYS.iter();
            loop {
                let result = self.resolve(&messages, &request).await;
                match &result {
                    Err(LookupError::Unavailable(error)) => self.outages.failed(error),
                    Ok(()) | Err(LookupError::Unusable(_)) => self.outages.worked(),
                }
                let Err(error) = result else { break };
                metrics::counter!(crate::metrics::DATASOURCE_REQUESTS_TOTAL, "result" => "failed")
                    .increment(1);
                let Some(delay) = delays.next() else {
                    if let LookupError::Unusable(error) = error {
                        tracing::warn!(error, channel = ?request.key, "cannot look up the members of a group at ingest.datasource_url");
                    }
                    break;
                };
                tokio::time::sleep(*delay).await;
            }
        }
    }

    /// Looks up the members of the group and makes them members below the message. Members who are
    /// already known are not enough: recipient lists and own messages leave out others.
    async fn resolve(
        &self,
        messages: &MessageService,
        request: &LookupRequest,
    ) -> Result<(), LookupError> {
        let (id, kind) = (&request.key.key, request.key.channel_type.number());
        let body = serde_json::json!({"cmd": "getSubscribers", "data": {"channel_id": id, "channel_type": kind}});
        let answer = self
            .http
            .post(&self.url)
            .json(&body)
            .send()
            .await
            .map_err(|error| LookupError::Unavailable(error.without_url().to_string()))?;
        let status = answer.status();
        if status.is_server_error() {
            return Err(LookupError::Unavailable(format!("status {status}")));
        }
        if !status.is_success() {
            return Err(LookupError::Unusable(format!("status {status}")));
        }
        // The answer may be as long as a request that names members.
        let answer = read_response_body(answer, messages.base.limits.body_bytes)
            .await
            .map_err(|error| match error {
                ReadBodyError::ConnectionLost(_) => LookupError::Unavailable(error.to_string()),
                ReadBodyError::TooLong(_) => LookupError::Unusable(error.to_string()),
            })?;
        let uids = parse_members(&answer)?;
        metrics::counter!(crate::metrics::DATASOURCE_REQUESTS_TOTAL, "result" => "ok").increment(1);
        if uids.is_empty() {
            tracing::debug!("the group has no members");
            return Ok(());
        }
        // As many at once as in a request that names members.
        for uids in uids.chunks(messages.base.limits.max_members_per_request.max(1)) {
            let recipients = Recipients {
                key: request.key.clone(),
                seq: request.seq,
                message_id: request.message_id,
                sent_at: request.sent_at,
                uids: uids.to_vec(),
            };
            let batch = MessageBatch {
                messages: Vec::new(),
                recipients: Some(recipients),
            };
            ingest(messages, batch)
                .await
                .map_err(|error| LookupError::Unusable(error.to_string()))?;
        }
        Ok(())
    }
}

/// Parses an answer to `getSubscribers`. Invalid uids are left out.
fn parse_members(answer: &[u8]) -> Result<Vec<Uid>, LookupError> {
    let uids: Option<Vec<String>> = serde_json::from_slice(answer)
        .map_err(|_| LookupError::Unusable("the answer is not a JSON array of uids".to_owned()))?;
    Ok(uids
        .unwrap_or_default()
        .into_iter()
        .filter_map(|uid| Uid::parse("uid", uid).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChannelRef, Content};

    fn message(seq: i64) -> [IncomingMessage; 1] {
        let channel = ChannelRef {
            channel_type: ChannelType::GROUP,
            channel_id: "g".to_owned(),
        };
        let message = Message {
            channel,
            message_id: MessageId(seq),
            seq: Seq(seq),
            client_msg_no: String::new(),
            from_uid: "ann".to_owned(),
            sent_at: EpochMs(seq),
            red_dot: true,
            content: Content::default(),
        };
        [IncomingMessage {
            key: message.channel_key(),
            message,
        }]
    }

    #[test]
    fn a_group_is_looked_up_again_after_a_while() {
        let (sender, mut queue) = mpsc::channel(10);
        let ttl = Duration::from_millis(300);
        let lookup = MemberLookup::new(sender, ttl, ttl / 3);
        let mut requested = || {
            let request: Option<LookupRequest> = queue.try_recv().ok();
            request.map(|request| request.seq.0)
        };
        lookup.enqueue_unknown(&message(1), false);
        assert_eq!(requested(), Some(1));
        lookup.enqueue_unknown(&message(2), false);
        assert_eq!(requested(), None);
        lookup.enqueue_unknown(&message(3), true);
        assert_eq!(requested(), Some(3));
        lookup.enqueue_unknown(&message(4), true);
        assert_eq!(requested(), None);
        std::thread::sleep(ttl / 2);
        lookup.enqueue_unknown(&message(5), true);
        assert_eq!(requested(), Some(5));
        std::thread::sleep(ttl);
        lookup.enqueue_unknown(&message(6), false);
        assert_eq!(requested(), Some(6));
    }
}
