//! Where our answers to `/conversation/sync` differ from those of the server that was imported
//! from.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use serde_json::{Value, json};

use super::Source;
use crate::auth::Caller;
use crate::core::Core;
use crate::ids::Uid;
use crate::rest::legacy::Fields;
use crate::rest::wukong::conversation;

/// Messages of each conversation that are compared.
const MESSAGES: i64 = 20;
/// Differences that are named.
const NAMED: usize = 50;
/// What is compared of a conversation; versions are each server's own.
const FIELDS: [&str; 4] = ["unread", "timestamp", "last_msg_seq", "last_client_msg_no"];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Users compared.
    pub users: u64,
    /// Conversations compared.
    pub conversations: u64,
    /// How many differ in what.
    pub differences: BTreeMap<String, u64>,
    /// The first of them, in words.
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
    fn differs(&mut self, what: &str, text: String) {
        *self.differences.entry(what.to_owned()).or_default() += 1;
        if self.named.len() < NAMED {
            self.named.push(text);
        }
    }
}

/// Compares the full answers for these users.
///
/// # Errors
/// A source that does not answer, a database that fails.
pub async fn compare(
    core: &Arc<Core>,
    source: &mut Source,
    uids: &[Uid],
) -> anyhow::Result<Comparison> {
    let mut comparison = Comparison::default();
    for uid in uids {
        let request =
            json!({"uid": uid.as_str(), "version": 0, "last_msg_seqs": "", "msg_count": MESSAGES});
        let theirs = source.ask("/conversation/sync", &request).await?;
        let fields = Fields::parse(request.to_string().as_bytes())?;
        let ours = serde_json::from_slice(
            &conversation::sync(core, &Caller::Service, &fields)
                .await?
                .0?,
        )?;
        let (Value::Array(ours), Value::Array(theirs)) = (ours, theirs) else {
            bail!("/conversation/sync answered no array")
        };
        comparison.users += 1;
        let (ours, theirs) = (by_channel(&ours), by_channel(&theirs));
        comparison.conversations += theirs.len() as u64;
        for (name, their) in &theirs {
            let Some(our) = ours.get(name) else {
                comparison.differs("missing", format!("{uid:?} {name}: is not here"));
                continue;
            };
            for field in FIELDS {
                if our[field] != their[field] {
                    comparison.differs(
                        field,
                        format!(
                            "{uid:?} {name}: {field} is {} here, {} there",
                            our[field], their[field]
                        ),
                    );
                }
            }
            if messages(our) != messages(their) {
                comparison.differs(
                    "messages",
                    format!("{uid:?} {name}: the newest messages differ"),
                );
            }
        }
        for name in ours.keys().filter(|name| !theirs.contains_key(*name)) {
            comparison.differs("only here", format!("{uid:?} {name}: is only here"));
        }
    }
    Ok(comparison)
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

/// What identifies the messages, and what they say; red dots are lost in some servers' memories.
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
