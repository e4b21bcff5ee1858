//! The list as a screen shows it, page by page: pinned first, then latest activity.
//!
//! A walk through the pages misses no conversation. A message lifts a conversation to the top, past the page that is being read; so every
//! cursor carries the user's version as of its page, and the next page begins with the conversations that changed since and are now on
//! the side that was walked already. They may come twice. Times play no part in it: clocks differ, and feeders give whole seconds.

use std::cmp::Reverse;
use std::sync::Arc;

use super::Conversation;
use super::sync::list_stamped;
use super::visibility::is_listed;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelType, Uid, Version};

/// Which conversations. What is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only those with unread messages.
    pub only_unread: bool,
    /// Only those of these channel types.
    pub channel_types: Option<Vec<ChannelType>>,
    /// Only pinned ones, or only others.
    pub pinned: Option<bool>,
    /// Only muted ones, or only others.
    pub muted: Option<bool>,
    /// Only those whose channel id begins with this.
    pub channel_id_prefix: String,
}

/// Which page.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Whose list.
    pub uid: Uid,
    /// Which of the conversations.
    pub filter: ListFilter,
    /// Only those below this cursor.
    pub after: Option<ListCursor>,
    /// Only those above this cursor.
    pub before: Option<ListCursor>,
    /// At most this many.
    pub limit: u32,
    /// From the end of what the cursors leave; otherwise from its beginning.
    pub from_end: bool,
}

/// Where a page ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListCursor {
    /// The place in the list.
    pub key: SortKey,
    /// The user's version up to which the walk has seen all changes.
    pub version: Version,
}

/// The order of the list: no two conversations of a user share a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey {
    /// Pinned ones come first.
    pub unpinned: bool,
    /// When the last message was sent, epoch ms; the newest comes first.
    pub activity: Reverse<i64>,
    /// Equal ones by channel type, …
    pub channel_type: u8,
    /// … and by the bytes of the channel's id.
    pub channel_id: String,
}

impl SortKey {
    fn of(conversation: &Conversation) -> Self {
        Self {
            unpinned: conversation.pinned_at == 0,
            activity: Reverse(conversation.last_activity_at),
            channel_type: conversation.channel.channel_type.number(),
            channel_id: conversation.channel.channel_id.clone(),
        }
    }
}

/// A page of the list.
#[derive(Clone, Debug)]
pub struct ListPage {
    /// In the order of the list; behind a cursor, conversations that moved out of the walk's way come first (backwards: last).
    pub conversations: Vec<(ListCursor, Conversation)>,
    /// Whether there is something above the page.
    pub has_previous: bool,
    /// Whether there is something below the page.
    pub has_next: bool,
    /// How many conversations there are on all pages.
    pub total: usize,
    /// Everything that changes from now on has a larger version.
    pub version: Version,
}

impl ListFilter {
    fn matches(&self, conversation: &Conversation) -> bool {
        !(self.only_unread && conversation.unread == 0)
            && self.channel_types.as_ref().is_none_or(|types| types.contains(&conversation.channel.channel_type))
            && self.pinned.is_none_or(|pinned| pinned == (conversation.pinned_at > 0))
            && self.muted.is_none_or(|muted| muted == conversation.muted)
            && conversation.channel.channel_id.starts_with(&self.channel_id_prefix)
    }
}

/// A page of the user's list.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn list_conversations(core: &Arc<Core>, request: &ListRequest) -> Result<ListPage, Error> {
    core.check_conversations_on()?;
    let uid = &request.uid;
    let (mut rows, version) = list_stamped(core, uid).await?;
    rows.retain(is_listed);
    let mut listed: Vec<(SortKey, Conversation)> = rows
        .iter()
        .map(|row| Conversation::new(uid, row))
        .filter(|conversation| request.filter.matches(conversation))
        .map(|conversation| (SortKey::of(&conversation), conversation))
        .collect();
    listed.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let total = listed.len();

    let start = request.after.as_ref().map_or(0, |after| listed.partition_point(|(key, _)| *key <= after.key));
    let end = request.before.as_ref().map_or(total, |before| listed.partition_point(|(key, _)| *key < before.key));
    let end = end.max(start);
    let walked = if request.from_end { (&request.before, end..total) } else { (&request.after, 0..start) };
    let mut moved: Vec<(ListCursor, Conversation)> = Vec::new();
    if let (Some(cursor), walked) = walked {
        let changed =
            listed[walked].iter().filter(|(key, conversation)| conversation.version > cursor.version && *key != cursor.key);
        let entry = |conversation: &Conversation| {
            (ListCursor { key: cursor.key.clone(), version: conversation.version }, conversation.clone())
        };
        moved.extend(changed.map(|(_, conversation)| entry(conversation)));
        moved.sort_unstable_by_key(|(cursor, _)| cursor.version);
    }

    let limit = request.limit as usize;
    let in_place = listed.drain(start..end).map(|(key, conversation)| (ListCursor { key, version }, conversation));
    let mut entries: Vec<(ListCursor, Conversation)>;
    let (has_previous, has_next);
    if request.from_end {
        // The walk goes up: the conversation that moved first is the next one above the cursor.
        entries = in_place.chain(moved.into_iter().rev()).collect();
        let cut = entries.len().saturating_sub(limit);
        entries.drain(..cut);
        (has_previous, has_next) = (start > 0 || cut > 0, end < total);
    } else {
        entries = moved.into_iter().chain(in_place).collect();
        (has_previous, has_next) = (start > 0, end < total || entries.len() > limit);
        entries.truncate(limit);
    }
    Ok(ListPage { conversations: entries, has_previous, has_next, total, version })
}
