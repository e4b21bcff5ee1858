//! Members of groups, asked of the business server, as `WuKongIM` asks it (`datasource.addr`):
//! `POST {"cmd":"getSubscribers","data":{"channel_id","channel_type"}}`, answered with an array of
//! uids.
//!
//! A webhook brings a message of a group that was not asked for yet. The message is stored at once;
//! the members are asked for beside, and join below the message, so that it shows and counts as
//! unread.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::mpsc;

use crate::channel::ChannelKey;
use crate::config::ConfigError;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelType, Seq, Uid};
use crate::message::{Incoming, IncomingMessage, Message, Receivers, ingest};
use crate::outside::read_answer;

/// Groups that wait to be asked for; more are asked for with their next message.
const WAITING: usize = 10_000;
/// A group is asked for again with its first message after so long: members may have come
/// meanwhile.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
const REMEMBERED: u64 = 100_000;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses before it is asked again.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(25),
];

/// A message of a group.
#[derive(Clone, Debug)]
struct Wanted {
    key: ChannelKey,
    seq: Seq,
    message_id: i64,
    sent_at: i64,
}

/// Where webhooks leave groups to be asked for.
#[derive(Debug)]
pub(crate) struct Datasource {
    wanted: mpsc::Sender<Wanted>,
    looked_at: Cache<ChannelKey, ()>,
}

/// Asks, for as long as the server runs.
#[derive(Debug)]
pub(crate) struct Asker {
    url: String,
    http: reqwest::Client,
    wanted: mpsc::Receiver<Wanted>,
}

/// # Errors
/// A client that cannot be built.
pub(crate) fn datasource(url: &str) -> Result<(Datasource, Asker), ConfigError> {
    let (send, wanted) = mpsc::channel(WAITING);
    let http = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build();
    let http = http
        .map_err(|error| ConfigError(format!("ingest.datasource_url cannot be asked: {error}")))?;
    let looked_at = Cache::builder()
        .max_capacity(REMEMBERED)
        .time_to_live(AGAIN_AFTER)
        .build();
    Ok((
        Datasource {
            wanted: send,
            looked_at,
        },
        Asker {
            url: url.to_owned(),
            http,
            wanted,
        },
    ))
}

impl Datasource {
    /// Messages were stored: their groups may be unknown.
    pub(crate) fn look_at(&self, messages: &[IncomingMessage]) {
        // The lowest of each group in the body: who joins below it sees all of it.
        let mut lowest: HashMap<&ChannelKey, &Message> = HashMap::new();
        for IncomingMessage { key, message } in messages {
            if key.channel_type == ChannelType::PERSON || self.looked_at.contains_key(key) {
                continue;
            }
            let known = lowest.entry(key).or_insert(message);
            if message.seq < known.seq {
                *known = message;
            }
        }
        for (key, message) in lowest {
            let wanted = Wanted {
                key: key.clone(),
                seq: message.seq,
                message_id: message.message_id,
                sent_at: message.sent_at,
            };
            if self.wanted.try_send(wanted).is_ok() {
                self.looked_at.insert(key.clone(), ());
            }
        }
    }
}

impl Asker {
    pub(crate) async fn run(mut self, core: Arc<Core>) {
        while let Some(wanted) = self.wanted.recv().await {
            let mut pauses = PAUSES.iter();
            loop {
                match self.settle(&core, &wanted).await {
                    Ok(()) => break,
                    Err(error) => {
                        metrics::counter!("recents_datasource_requests_total", "result" => "failed").increment(1);
                        tracing::warn!(error, channel = ?wanted.key, "ingest.datasource_url did not say who is in a group");
                    }
                }
                let Some(pause) = pauses.next() else { break };
                tokio::time::sleep(*pause).await;
            }
        }
    }

    /// Asks for the members of the group, and makes them members below the message. Those who are
    /// known already were named by receivers' lists or by their own messages, which leave out
    /// others.
    async fn settle(&self, core: &Arc<Core>, wanted: &Wanted) -> Result<(), String> {
        let said = |error: Error| error.to_string();
        let (id, kind) = (&wanted.key.key, wanted.key.channel_type.number());
        let question = serde_json::json!({"cmd": "getSubscribers", "data": {"channel_id": id, "channel_type": kind}});
        let answer = self
            .http
            .post(&self.url)
            .json(&question)
            .send()
            .await
            .map_err(|error| error.without_url().to_string())?;
        if !answer.status().is_success() {
            return Err(format!("status {}", answer.status()));
        }
        // As long as a body that names members may be.
        let answer = read_answer(answer, core.limits.body_bytes)
            .await
            .map_err(|error| error.to_string())?;
        let uids: Option<Vec<String>> = serde_json::from_slice(&answer)
            .map_err(|_| "the answer is no JSON array of uids".to_owned())?;
        metrics::counter!("recents_datasource_requests_total", "result" => "ok").increment(1);
        let uids: Vec<Uid> = uids
            .unwrap_or_default()
            .into_iter()
            .filter_map(|uid| Uid::parse("uid", uid).ok())
            .collect();
        if uids.is_empty() || uids.len() > core.limits.members {
            tracing::debug!(
                number = uids.len(),
                "members of a group that are none, or more than limits.members"
            );
            return Ok(());
        }
        let Wanted {
            seq,
            message_id,
            sent_at,
            ..
        } = *wanted;
        let receivers = Receivers {
            key: wanted.key.clone(),
            seq,
            message_id,
            sent_at,
            uids,
        };
        ingest(
            core,
            Incoming {
                messages: Vec::new(),
                receivers: Some(receivers),
            },
        )
        .await
        .map(|_| ())
        .map_err(said)
    }
}
