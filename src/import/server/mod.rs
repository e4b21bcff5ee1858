//! Imports from a running `WuKongIM` v1 or v2: the conversations of given users with all their
//! messages, their unread counts, and their order. It uses the routes of its clients:
//! `/conversation/sync` and `/channel/messagesync`.
//!
//! The progress of each channel and user is kept in the database: an import can be interrupted and
//! run again, and it can run while webhooks arrive. Unread counts are those at the moment of the
//! answer; later messages are added to them.

mod channel;

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::channel::import_channel;
use crate::conversation::import_unread_count;
use crate::error::Error;
use crate::model::{ChannelRef, Seq, Uid};
use crate::services::Services;
use crate::upstream::WukongimClient;
use crate::wukongim::decode_value;

/// The result of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Number of requested users.
    pub users: u64,
    /// Users that an earlier import completed.
    pub imported_before: u64,
    /// Conversations of the remaining users.
    pub conversations: u64,
    /// Messages stored by this import.
    pub stored: u64,
    /// Messages that were stored before.
    pub repeated: u64,
    /// Messages that are invalid.
    pub refused: u64,
    /// Messages whose seq or id is taken by another message.
    pub conflicts: u64,
}

impl std::fmt::Display for ImportSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} users: {} imported before, {} conversations of the others",
            self.users, self.imported_before, self.conversations
        )?;
        write!(
            f,
            "messages: {} stored, {} already there, {} refused, {} in conflict",
            self.stored, self.repeated, self.refused, self.conflicts
        )
    }
}

/// A conversation in the answer of `/conversation/sync`.
#[derive(Deserialize)]
struct ConversationItem {
    channel_id: String,
    channel_type: u8,
    unread: i64,
    last_msg_seq: u32,
    readed_to_msg_seq: Option<IgnoredAny>,
}

/// Imports the conversations of these users.
///
/// # Errors
/// Returns an error if the server does not answer or refuses, or if the database fails. Running the
/// import again continues it.
pub async fn import_server(
    core: &Arc<Services>,
    client: &WukongimClient,
    uids: &[Uid],
) -> anyhow::Result<ImportSummary> {
    let progress = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} users, {eta} left {msg}")?;
        ProgressBar::new(uids.len() as u64).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let mut summary = ImportSummary::default();
    for uid in uids {
        summary.users += 1;
        let user_key = progress_key(client, &["user", uid.as_str()]);
        if core.base.store.count_imported_lines(&user_key).await? > 0 {
            summary.imported_before += 1;
        } else {
            import_user(core, client, uid, &mut summary, &progress)
                .await
                .with_context(|| format!("user {uid}"))?;
            core.base
                .store
                .write_imported_lines(&user_key, 1)
                .await
                .map_err(with_details)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(summary)
}

/// Adds the details of an error: texts for API callers hide details that the operator of an import
/// needs.
fn with_details(error: impl Into<Error>) -> anyhow::Error {
    let error = error.into();
    let details = format!("{error:?}");
    anyhow::Error::new(error).context(details)
}

async fn import_user(
    core: &Arc<Services>,
    client: &WukongimClient,
    uid: &Uid,
    summary: &mut ImportSummary,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let body = json!({"uid": uid.as_str(), "version": 0, "last_msg_seqs": "", "msg_count": 1});
    let response = client
        .post_with_retries("/conversation/sync", &body)
        .await?;
    let Value::Array(mut items) = response else {
        bail!("/conversation/sync did not answer with an array")
    };
    // The oldest come first, so that an interrupted import leaves a list in the right order.
    items.reverse();
    for item in items {
        let item: ConversationItem = decode_value(item, "conversation")?;
        let channel = match ChannelRef::parse(item.channel_id, i64::from(item.channel_type)) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(error = %error, "skipped an invalid conversation");
                summary.refused += 1;
                continue;
            }
        };
        // v2 returns the read position, v1 does not; v2 loses red dots once a message has left its
        // memory.
        let is_v2 = item.readed_to_msg_seq.is_some();
        let (unread, last_seq) = (item.unread, Seq::from(item.last_msg_seq));
        import_channel(core, client, uid, &channel, is_v2, summary)
            .await
            .with_context(|| format!("{channel:?}"))?;
        import_unread_count(&core.conversations, uid, &channel, last_seq, unread.max(0))
            .await
            .map_err(with_details)?;
        summary.conversations += 1;
        progress.set_message(format!("({} messages)", summary.stored));
    }
    Ok(())
}

/// Returns the key that the progress of an item of this server is kept under.
fn progress_key(client: &WukongimClient, item: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in [client.url()].iter().chain(item) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}
