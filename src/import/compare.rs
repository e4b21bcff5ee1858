//! Compares this server's answers to `/conversation/sync` with those of the imported server.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use serde_json::{Value, json};

use crate::conversation::{SyncRequest, sync};
use crate::model::Uid;
use crate::services::Services;
use crate::upstream::WukongimClient;
use crate::wukongim::dto::{SyncEntryDto, write_entries};

/// Number of messages compared in each conversation.
const COMPARED_MESSAGES: u32 = 20;
/// Maximum number of differences that are listed.
const MAX_LISTED_DIFFERENCES: usize = 50;
/// Fields compared in a conversation; versions differ by nature.
const COMPARED_FIELDS: [&str; 4] = ["unread", "timestamp", "last_msg_seq", "last_client_msg_no"];

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Number of compared users.
    pub users: u64,
    /// Number of compared conversations.
    pub conversations: u64,
    /// Number of differences by kind.
    pub differences: BTreeMap<String, u64>,
    /// Descriptions of the first differences.
    pub named: Vec<String>,
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.named {
            writeln!(f, "{line}")?;
        }
        let counts: Vec<String> = self
            .differences
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        let counts = if counts.is_empty() {
            "nothing".to_owned()
        } else {
            counts.join(", ")
        };
        write!(
            f,
            "{} users, {} conversations compared; different: {counts}",
            self.users, self.conversations
        )
    }
}

impl Comparison {
    fn record(&mut self, what: &str, text: String) {
        *self.differences.entry(what.to_owned()).or_default() += 1;
        if self.named.len() < MAX_LISTED_DIFFERENCES {
            self.named.push(text);
        }
    }
}

/// Compares the full answers for these users.
///
/// # Errors
/// Returns an error if the other server does not answer or the database fails.
pub async fn compare(
    core: &Arc<Services>,
    client: &WukongimClient,
    uids: &[Uid],
) -> anyhow::Result<Comparison> {
    let mut comparison = Comparison::default();
    for uid in uids {
        let request = json!({"uid": uid.as_str(), "version": 0, "last_msg_seqs": "", "msg_count": COMPARED_MESSAGES});
        let theirs = client
            .post_with_retries("/conversation/sync", &request)
            .await?;
        let ours = serde_json::from_slice(&own_answer(core, uid).await?)?;
        let (Value::Array(ours), Value::Array(theirs)) = (ours, theirs) else {
            bail!("/conversation/sync did not answer with an array")
        };
        comparison.users += 1;
        let (ours, theirs) = (by_channel(&ours), by_channel(&theirs));
        comparison.conversations += theirs.len() as u64;
        for (name, their) in &theirs {
            let Some(our) = ours.get(name) else {
                comparison.record("missing", format!("{uid:?} {name}: is not here"));
                continue;
            };
            for field in COMPARED_FIELDS {
                if our[field] != their[field] {
                    comparison.record(
                        field,
                        format!(
                            "{uid:?} {name}: {field} is {} here, {} there",
                            our[field], their[field]
                        ),
                    );
                }
            }
            if messages(our) != messages(their) {
                comparison.record(
                    "messages",
                    format!("{uid:?} {name}: the newest messages differ"),
                );
            }
        }
        for name in ours.keys().filter(|name| !theirs.contains_key(*name)) {
            comparison.record("only here", format!("{uid:?} {name}: exists only here"));
        }
    }
    Ok(comparison)
}

/// Returns this server's answer to the same request.
async fn own_answer(core: &Arc<Services>, uid: &Uid) -> anyhow::Result<Vec<u8>> {
    core.base.check_conversations_on()?;
    let request = SyncRequest {
        msg_count: COMPARED_MESSAGES.min(core.base.limits.max_messages_per_conversation),
        ..SyncRequest::new(uid.clone())
    };
    let answer = sync(&core.conversations, &request).await?;
    let entries: Vec<SyncEntryDto> = answer
        .conversations
        .into_iter()
        .map(|item| SyncEntryDto::Item(item.into()))
        .collect();
    Ok(write_entries(&entries)?)
}

fn by_channel(items: &[Value]) -> BTreeMap<String, &Value> {
    items
        .iter()
        .map(|item| {
            (
                format!("{}:{}", item["channel_id"], item["channel_type"]),
                item,
            )
        })
        .collect()
}

/// Returns what identifies each message, and its content. Red dots are left out, because some
/// servers lose them.
fn messages(item: &Value) -> Vec<(String, Value, Value)> {
    let recents = item["recents"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    recents
        .iter()
        .map(|message| {
            (
                message["message_idstr"].to_string(),
                message["message_seq"].clone(),
                message["payload"].clone(),
            )
        })
        .collect()
}
