//! The list as a screen shows it, page by page: pinned first, then latest activity.
//!
//! A walk through the pages shows the list as it was when it began. A message lifts its conversation to the top, past the page that
//! is being read; so every place carries what the newest message and the newest pin were when the walk began, and a conversation
//! with a newer message keeps the place of the message before.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::Conversation;
use super::rules::is_listed;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelType, Uid, Version};
use crate::store::{ConversationRow, Latest};

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
    /// Only those below this place.
    pub after: Option<Place>,
    /// Only those above this place.
    pub before: Option<Place>,
    /// At most this many.
    pub limit: u32,
    /// From the end of what the places leave; otherwise from its beginning.
    pub from_end: bool,
}

/// A place in the list of one walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub rank: Rank,
    /// When the newest message was sent as the walk began, epoch ms.
    pub walk_activity: i64,
    /// When the newest pin was set as the walk began, epoch ms.
    pub walk_pin: i64,
}

/// What the list is sorted by: no two conversations of a user share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Pinned ones come first.
    pub unpinned: bool,
    /// When the last message was sent, epoch ms; the newest comes first.
    pub activity: Reverse<i64>,
    /// Equal ones by channel type, …
    pub channel_type: u8,
    /// … and by the bytes of the channel's id.
    pub channel_id: String,
}

/// A page of the list.
#[derive(Clone, Debug)]
pub struct ListPage {
    /// In the order of the list.
    pub conversations: Vec<(Place, Conversation)>,
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
    fn admits(&self, conversation: &Conversation) -> bool {
        !(self.only_unread && conversation.unread == 0)
            && self.channel_types.as_ref().is_none_or(|types| types.contains(&conversation.channel.channel_type))
            && self.pinned.is_none_or(|pinned| pinned == (conversation.pinned_at > 0))
            && self.muted.is_none_or(|muted| muted == conversation.muted)
            && conversation.channel.channel_id.starts_with(&self.channel_id_prefix)
    }
}

/// What the newest message and the newest pin were when a walk began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Walk {
    activity: i64,
    pin: i64,
}

impl Walk {
    fn begin(rows: &[ConversationRow]) -> Self {
        let newest = |of: fn(&ConversationRow) -> i64| rows.iter().map(of).max().unwrap_or(0);
        Self { activity: newest(|row| row.last_message_at), pin: newest(|row| row.pinned_at) }
    }

    fn has_moved(self, row: &ConversationRow) -> bool {
        row.last_message_at > self.activity
    }

    /// Where a conversation stood as the walk began, `None` when it did not show. `then` has what was the last message of those that
    /// moved.
    fn rank(self, row: &ConversationRow, conversation: &Conversation, then: &HashMap<i64, Latest>) -> Option<Rank> {
        let activity = if self.has_moved(row) {
            let latest = then.get(&row.channel_id).filter(|latest| latest.seq > row.deleted_to_seq.max(row.joined_seq))?;
            latest.sent_at
        } else {
            row.last_message_at
        };
        Some(Rank {
            unpinned: row.pinned_at == 0 || row.pinned_at > self.pin,
            activity: Reverse(activity),
            channel_type: conversation.channel.channel_type.number(),
            channel_id: conversation.channel.channel_id.clone(),
        })
    }
}

/// A page of the user's list.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn list_conversations(core: &Core, request: &ListRequest) -> Result<ListPage, Error> {
    core.check_conversations_on()?;
    let uid = &request.uid;
    let changed = core.store.list_changed(uid, 0).await?;
    let (version, mut rows) = match changed.cursor {
        Some(version) => (version, changed.rows),
        // Who never looked has no cursor yet.
        None => (0, core.store.list_conversations(uid).await?),
    };
    rows.retain(is_listed);
    let begun = request.after.as_ref().or(request.before.as_ref());
    let walk = begun.map_or_else(|| Walk::begin(&rows), |place| Walk { activity: place.walk_activity, pin: place.walk_pin });
    let moved: Vec<i64> = rows.iter().filter(|row| walk.has_moved(row)).map(|row| row.channel_id).collect();
    let then = core.store.list_latest_at(&moved, walk.activity).await?;

    let mut shown: Vec<(&ConversationRow, Conversation)> = rows.iter().map(|row| (row, Conversation::new(uid, row))).collect();
    shown.retain(|(_, conversation)| request.filter.admits(conversation));
    let total = shown.len();
    let mut ranked: Vec<(Rank, Conversation)> =
        shown.into_iter().filter_map(|(row, conversation)| Some((walk.rank(row, &conversation, &then)?, conversation))).collect();
    ranked.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));

    let start = request.after.as_ref().map_or(0, |after| ranked.partition_point(|(rank, _)| *rank <= after.rank));
    let end = request.before.as_ref().map_or(ranked.len(), |before| ranked.partition_point(|(rank, _)| *rank < before.rank));
    let limit = request.limit as usize;
    let (start, end) = if end <= start {
        (start, start)
    } else if request.from_end {
        (start.max(end.saturating_sub(limit)), end)
    } else {
        (start, end.min(start.saturating_add(limit)))
    };
    let (has_previous, has_next) = (start > 0, end < ranked.len());
    let place = |rank| Place { rank, walk_activity: walk.activity, walk_pin: walk.pin };
    let conversations = ranked.drain(start..end).map(|(rank, conversation)| (place(rank), conversation)).collect();
    Ok(ListPage { conversations, has_previous, has_next, total, version })
}
