//! Compares this server's answers to `/conversation/sync` with those of the imported server, and
//! looks for messages that are only there.
//!
//! The two servers have different rules (docs/COMPATIBILITY.md), so some differences are expected:
//! they are counted, but are no reason to fail (`conversation`).

mod comparison;
mod conversation;
mod messages;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::bail;
use moka::sync::Cache;

pub use self::comparison::Comparison;
use self::conversation::{SourceKind, compare_conversation};
use super::ImportOptions;
use super::source::{Listed, MANY_MESSAGES, Source};
use super::workers::for_each_user;
use crate::conversation::{ConversationWithMessages, SyncRequest, sync};
use crate::model::{ChannelKey, ChannelRef, Seq, Uid};
use crate::services::Services;
use crate::upstream::{RequestError, WukongimClient};

/// Number of channels that are remembered as compared; others are compared again.
const COMPARED_CHANNELS: u64 = 200_000;

/// A comparison in progress.
#[derive(Debug)]
struct Comparer {
    core: Arc<Services>,
    source: Source,
    /// The groups of `--groups`.
    groups: HashSet<ChannelKey>,
    /// Channels whose messages were compared, up to a seq.
    compared: Cache<ChannelKey, Seq>,
    result: Mutex<Comparison>,
}

/// Compares the full answers for these users.
///
/// # Errors
/// Returns an error if the other server does not answer or the database fails.
pub async fn compare(
    core: &Arc<Services>,
    client: &Arc<WukongimClient>,
    uids: &[Uid],
    options: &ImportOptions,
) -> anyhow::Result<Comparison> {
    let Some(first) = uids.first() else {
        return Ok(Comparison::default());
    };
    let groups = options
        .groups
        .iter()
        .map(|group| ChannelKey::new(first, group));
    let comparer = Arc::new(Comparer {
        core: Arc::clone(core),
        source: Source::connect(client, options.wukongim, &options.groups, first).await?,
        groups: groups.collect(),
        compared: Cache::new(COMPARED_CHANNELS),
        result: Mutex::default(),
    });
    let this = Arc::clone(&comparer);
    for_each_user(&uids.into(), options.parallel, move |uid| {
        let this = Arc::clone(&this);
        async move { this.compare_user(&uid).await }
    })
    .await?;
    for group in &options.groups {
        comparer.compare_group(first, group).await?;
    }
    let result = comparer.result().clone();
    Ok(result)
}

impl Comparer {
    fn result(&self) -> MutexGuard<'_, Comparison> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn compare_user(&self, uid: &Uid) -> anyhow::Result<()> {
        let theirs = match self.source.list(uid, MANY_MESSAGES).await {
            Ok(listing) => listing,
            Err(error) => return self.accept_failure(&format!("{uid:?}"), &error),
        };
        let ours = self.own_conversations(uid).await?;
        let by_key: HashMap<&ChannelKey, &ConversationWithMessages> = ours
            .iter()
            .map(|our| (&our.conversation.channel_key, our))
            .collect();
        let mut result = Comparison {
            users: 1,
            conversations: theirs.conversations.len() as u64,
            ..Comparison::default()
        };
        let listed_here =
            |their: &&Listed| their.channel.channel_type.is_listed() && !names_system(&their.key);
        let expected: Vec<&Listed> = theirs.conversations.iter().filter(listed_here).collect();
        result.expect(
            "never listed here",
            theirs.conversations.len() - expected.len(),
        );
        if ours.is_empty() && !expected.is_empty() {
            result.record("missing users", || {
                format!(
                    "{uid:?}: has {} conversations there, none here",
                    expected.len()
                )
            });
        } else {
            for their in &expected {
                match by_key.get(&their.key) {
                    Some(our) => {
                        let kind = SourceKind {
                            is_large: self.groups.contains(&their.key),
                            lists_last_message_only: self.source.is_v3(),
                        };
                        compare_conversation(&mut result, uid, our, their, kind);
                    }
                    None => result.record("missing", || {
                        format!("{uid:?} {}: is not here", name(&their.channel))
                    }),
                }
            }
            self.compare_order(&mut result, &ours, &expected);
        }
        let keys: HashSet<&ChannelKey> = theirs
            .conversations
            .iter()
            .map(|their| &their.key)
            .collect();
        for our in &ours {
            let conversation = &our.conversation;
            if keys.contains(&conversation.channel_key) {
                continue;
            }
            if self.groups.contains(&conversation.channel_key) {
                result.expect("large groups that are listed only here", 1);
            } else {
                result.record("only here", || {
                    format!(
                        "{uid:?} {}: exists only here",
                        name(&conversation.channel_ref)
                    )
                });
            }
        }
        if theirs.unresolved > 0 {
            result.record("unresolved there", || {
                format!(
                    "{uid:?}: {} conversations are unresolved there",
                    theirs.unresolved
                )
            });
        }
        self.result().add(result);
        for their in &expected {
            self.compare_messages(
                uid,
                &their.channel,
                &their.key,
                their.last_seq,
                their.loses_red_dots,
            )
            .await?;
        }
        Ok(())
    }

    /// Returns this server's answer to the same request.
    async fn own_conversations(&self, uid: &Uid) -> anyhow::Result<Vec<ConversationWithMessages>> {
        self.core.base.check_conversations_on()?;
        let limit = self.core.base.limits.max_messages_per_conversation;
        let request = SyncRequest {
            msg_count: u32::try_from(MANY_MESSAGES)?.min(limit),
            ..SyncRequest::new(uid.clone())
        };
        Ok(sync(&self.core.conversations, &request)
            .await?
            .conversations)
    }

    /// The order of the conversations that both have. WuKongIM does not sort those of the same
    /// second (v1), or sorts nothing (v2, v3).
    fn compare_order(
        &self,
        result: &mut Comparison,
        ours: &[ConversationWithMessages],
        theirs: &[&Listed],
    ) {
        let there: HashSet<&ChannelKey> = theirs.iter().map(|their| &their.key).collect();
        let ours: Vec<&ChannelKey> = ours
            .iter()
            .map(|our| &our.conversation.channel_key)
            .filter(|key| there.contains(key))
            .collect();
        let here: HashSet<&ChannelKey> = ours.iter().copied().collect();
        let theirs = theirs.iter().map(|their| &their.key);
        let theirs: Vec<&ChannelKey> = theirs.filter(|key| here.contains(key)).collect();
        result.expect("order", usize::from(ours != theirs));
    }

    /// Compares the messages of a group, also if no user lists it.
    async fn compare_group(&self, uid: &Uid, group: &ChannelRef) -> anyhow::Result<()> {
        let key = ChannelKey::new(uid, group);
        match self.source.newest_seq(uid, group).await {
            Ok(newest) => {
                self.compare_messages(uid, group, &key, newest, self.source.is_v3())
                    .await
            }
            Err(error) => self.accept_failure(&name(group), &error),
        }
    }

    /// Counts what the server refuses to return; a server that does not answer ends the comparison.
    fn accept_failure(&self, what: &str, error: &RequestError) -> anyhow::Result<()> {
        if !matches!(error, RequestError::Refused(_) | RequestError::TooLong(_)) {
            bail!("{}: {what}: {error}", self.source.display_url());
        }
        let mut result = self.result();
        result.record("refused there", || format!("{what}: {error}"));
        Ok(())
    }
}

/// Returns whether this is the conversation with the system user.
fn names_system(key: &ChannelKey) -> bool {
    key.pair().is_some() && key.implicit_members().is_empty()
}

fn name(channel: &ChannelRef) -> String {
    format!("{:?}:{}", channel.channel_id, channel.channel_type.number())
}
