//! The `WuKongIM` that is imported from, whatever its version is: the conversations of a user, and
//! the messages of a channel.

mod sync;
mod v3;

use std::sync::Arc;

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::config::WukongimVersion;
use crate::model::{
    COMMAND_SUFFIX, ChannelKey, ChannelRef, ChannelType, EpochMs, SYSTEM_UID, Seq, Uid,
};
use crate::upstream::{AnswerMemory, RequestError, WukongimClient};
use crate::wukongim::{Flag, decode_value};

/// The route that lists the conversations of a user on v1 and v2.
const SYNC: &str = "/conversation/sync";
/// The route that lists them on v3.
const LIST: &str = "/conversation/list";
/// The route that returns messages.
const HISTORY: &str = "/channel/messagesync";
/// Number of messages of one answer.
const PAGE_SIZE: i64 = 500;
/// Number of newest messages that are requested with each conversation: they often are all of it.
pub(super) const MANY_MESSAGES: usize = 20;
/// Maximum number of conversations of a user.
const MAX_CONVERSATIONS: usize = 100_000;

/// A `WuKongIM` to import from.
#[derive(Debug)]
pub(super) struct Source {
    client: Arc<WukongimClient>,
    is_v3: bool,
    /// Groups that v1 lists only if they are named.
    groups: Vec<ChannelRef>,
    listings: AnswerMemory,
    pages: AnswerMemory,
}

/// The conversations of a user.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order of the server, each channel once.
    pub(super) conversations: Vec<Listed>,
    /// Number of conversations with invalid values.
    pub(super) refused: u64,
    /// Number of conversations whose state the server could not tell.
    pub(super) unresolved: u64,
    _memory: Option<OwnedSemaphorePermit>,
}

/// A conversation in a listing.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) channel: ChannelRef,
    pub(super) key: ChannelKey,
    pub(super) unread: i64,
    pub(super) last_seq: Seq,
    /// When the last message was sent.
    pub(super) last_sent_at: EpochMs,
    pub(super) last_client_msg_no: String,
    /// The user sees no messages up to here.
    pub(super) deleted_to: Seq,
    /// True if the server forgets which messages had a red dot.
    pub(super) loses_red_dots: bool,
    /// The newest messages, newest first.
    pub(super) recents: Vec<Value>,
}

/// Part of the history of a channel.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) messages: Vec<Value>,
    pub(super) more: bool,
    _memory: OwnedSemaphorePermit,
}

/// The answer of `/channel/messagesync`.
#[derive(Deserialize)]
struct HistoryAnswer {
    messages: Vec<Value>,
    more: Flag,
}

impl Listing {
    /// Adds a conversation, or counts it if its values are invalid.
    fn add(&mut self, conversation: Result<Option<Listed>, String>) {
        match conversation {
            Ok(Some(listed)) => self.conversations.push(listed),
            Ok(None) => {}
            Err(reason) => {
                tracing::warn!(reason, "skipped an invalid conversation");
                self.refused += 1;
            }
        }
    }

    fn remove_repeats(&mut self) {
        let mut seen = std::collections::HashSet::new();
        self.conversations
            .retain(|listed| seen.insert(listed.key.clone()));
    }
}

/// Returns the channel of a conversation, or `None` if the conversation is never listed here:
/// commands.
fn channel_of(uid: &Uid, id: String, channel_type: u8) -> Result<Option<ChannelRef>, String> {
    if id.ends_with(COMMAND_SUFFIX) {
        return Ok(None);
    }
    let is_person = channel_type == ChannelType::PERSON.number();
    let id = match id {
        // The system has no uid in answers, and v2 names a note to oneself by the pair.
        id if is_person && id.is_empty() => SYSTEM_UID.to_owned(),
        id if is_person && id == format!("{uid}@{uid}") => uid.as_str().to_owned(),
        id => id,
    };
    ChannelRef::parse(id, i64::from(channel_type))
        .map(Some)
        .map_err(|error| error.to_string())
}

/// Returns the seq of a message.
pub(super) fn seq_of(message: &Value) -> Option<Seq> {
    let seq = message.get("message_seq")?.as_i64()?;
    (1..=i64::from(u32::MAX)).contains(&seq).then_some(Seq(seq))
}

impl Source {
    /// Finds out which routes the server has, beginning with those of the `expected` version.
    ///
    /// # Errors
    /// The server does not answer, refuses, or is not a `WuKongIM`.
    pub(super) async fn connect(
        client: &Arc<WukongimClient>,
        expected: WukongimVersion,
        groups: &[ChannelRef],
        uid: &Uid,
    ) -> anyhow::Result<Self> {
        let url = client.display_url();
        let expects_v3 = expected == WukongimVersion::V3;
        for is_v3 in [expects_v3, !expects_v3] {
            let source = Self {
                client: Arc::clone(client),
                is_v3,
                groups: groups.to_vec(),
                listings: AnswerMemory::default(),
                pages: AnswerMemory::default(),
            };
            match source.list(uid, 1).await {
                Ok(_) => {
                    if is_v3 != expects_v3 {
                        let [has_not, has, version] = if is_v3 {
                            [SYNC, LIST, "v3"]
                        } else {
                            [LIST, SYNC, "v1 or v2"]
                        };
                        tracing::warn!(
                            "this WuKongIM has no {has_not}, but {has}: importing as from {version}; --wukongim and ingest.wukongim name the version"
                        );
                    }
                    return Ok(source);
                }
                Err(RequestError::NoSuchRoute) => {}
                Err(error @ RequestError::Unauthorized) => {
                    bail!("{url}: {error}: set --token or RECENTS_IMPORT_TOKEN")
                }
                Err(error) => {
                    bail!(
                        "{url}: {error}; is it the address of WuKongIM's HTTP interface (usually port 5001)?"
                    )
                }
            }
        }
        bail!(
            "{url}: status 404: this WuKongIM has no such route: neither {SYNC} (v1, v2) nor {LIST} (v3); is it the address of WuKongIM's HTTP interface (usually port 5001, without a path)?"
        )
    }

    pub(super) fn is_v3(&self) -> bool {
        self.is_v3
    }

    pub(super) fn display_url(&self) -> String {
        self.client.display_url()
    }

    /// Returns the key of the progress of an item of this server.
    pub(super) fn progress_key(&self, item: &[&str]) -> String {
        super::progress::key(self.client.url(), item)
    }

    /// Returns the conversations of a user, on v1 and v2 with at most `msg_count` messages of each.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub(super) async fn list(&self, uid: &Uid, msg_count: usize) -> Result<Listing, RequestError> {
        if self.is_v3 {
            return self.list_v3(uid).await;
        }
        match self.list_with(uid, msg_count).await {
            Err(RequestError::TooLong(_)) if msg_count > 1 => self.list_with(uid, 1).await,
            listing => listing,
        }
    }

    /// Returns the first messages from `from` on, in ascending order.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub(super) async fn newer(
        &self,
        uid: &Uid,
        channel: &ChannelRef,
        from: Seq,
        to: Option<Seq>,
    ) -> Result<Page, RequestError> {
        let page_size = if self.is_v3 { v3::PAGE_SIZE } else { PAGE_SIZE };
        let limit = to.map_or(page_size, |to| {
            page_size.min(to.distance_from(from).saturating_add(1))
        });
        let end = to.map_or(0, |to| to.next().0);
        self.page(uid, channel, (from.0, end), limit, 1).await
    }

    /// Returns the seq of the newest message.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub(super) async fn newest_seq(
        &self,
        uid: &Uid,
        channel: &ChannelRef,
    ) -> Result<Seq, RequestError> {
        let page = self.page(uid, channel, (0, 0), 1, 0).await?;
        Ok(page
            .messages
            .iter()
            .filter_map(seq_of)
            .max()
            .unwrap_or(Seq::ZERO))
    }

    async fn page(
        &self,
        uid: &Uid,
        channel: &ChannelRef,
        (start, end): (i64, i64),
        limit: i64,
        pull_mode: u8,
    ) -> Result<Page, RequestError> {
        let body = json!({
            "login_uid": uid.as_str(), "channel_id": channel.channel_id, "channel_type": channel.channel_type.number(),
            "start_message_seq": start, "end_message_seq": end, "limit": limit, "pull_mode": pull_mode,
        });
        let answer = self.client.fetch(HISTORY, &body, &self.pages).await?;
        let mut history: HistoryAnswer = decode_value(answer.value, "history")
            .map_err(|error| RequestError::Refused(error.to_string()))?;
        history
            .messages
            .truncate(usize::try_from(limit).unwrap_or_default());
        if self.is_v3 {
            for message in &mut history.messages {
                v3::complete(message, uid, channel);
            }
        }
        Ok(Page {
            messages: history.messages,
            more: history.more.0,
            _memory: answer.memory,
        })
    }
}

fn too_many() -> RequestError {
    RequestError::Refused(format!(
        "the user has more than {MAX_CONVERSATIONS} conversations"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_of_channels_are_understood() {
        let ann = Uid::parse("uid", "ann").unwrap();
        let name = |id: &str, kind| {
            channel_of(&ann, id.to_owned(), kind)
                .map(|channel| channel.map(|channel| channel.channel_id))
        };
        assert_eq!(name("bob", 1), Ok(Some("bob".to_owned())));
        assert_eq!(name("ann@ann", 1), Ok(Some("ann".to_owned())));
        assert_eq!(name("ann@ann", 2), Ok(Some("ann@ann".to_owned())));
        assert_eq!(name("", 1), Ok(Some(SYSTEM_UID.to_owned())));
        assert_eq!(name("g____cmd", 2), Ok(None));
        assert!(name("", 2).is_err());
        assert!(name("g", 0).is_err());
    }
}
