//! The conversation list page by page: pinned conversations first, then by latest activity; or
//! everything by latest activity.
//!
//! Paging misses no conversation. A message lifts a conversation to the top, past the page that is
//! being read. Therefore every cursor contains the user's version at the time of its page, and the
//! next page begins with the conversations that changed since then and are now on the side that was
//! already read. They may be returned twice. Times are not compared: clocks differ, and feeders
//! send whole seconds.

use std::cmp::Reverse;

use super::Conversation;
use crate::model::{ChannelType, EpochMs, Uid, Version};

/// Filters for the list. `None` matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only conversations with unread messages.
    pub only_unread: bool,
    /// Only conversations of these channel types.
    pub channel_types: Option<Vec<ChannelType>>,
    /// Only pinned (`true`) or unpinned (`false`) conversations.
    pub pinned: Option<bool>,
    /// Only muted (`true`) or unmuted (`false`) conversations.
    pub muted: Option<bool>,
    /// Only conversations whose channel id starts with this prefix.
    pub channel_id_prefix: String,
}

/// A request for a page of the list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// The user whose list is read.
    pub uid: Uid,
    /// Filters.
    pub filter: ListFilter,
    /// Only conversations below this cursor.
    pub after: Option<ListCursor>,
    /// Only conversations above this cursor.
    pub before: Option<ListCursor>,
    /// Maximum page size.
    pub limit: u32,
    /// True takes the page from the end of the range between the cursors instead of its
    /// beginning.
    pub from_end: bool,
    /// The conversations and their order.
    pub order: ListOrder,
}

/// The conversations of a list, and their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListOrder {
    /// Listed conversations, pinned ones first, then by latest activity.
    #[default]
    PinnedFirst,
    /// Also conversations without messages that the user opened. The order is that of the latest
    /// activity, where opening a conversation counts, too.
    Activity,
}

/// Position of an entry in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListCursor {
    /// Sort key of the entry.
    pub key: SortKey,
    /// The user's version up to which the client has seen all changes.
    pub version: Version,
}

/// Sort order of the list. No two conversations of a user have the same key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey {
    /// Pinned conversations come first.
    pub unpinned: bool,
    /// When the last message was sent; the newest comes first.
    pub activity: Reverse<EpochMs>,
    /// Type of the channel.
    pub channel_type: u8,
    /// Channel id, compared by bytes.
    pub channel_id: String,
}

impl SortKey {
    pub(super) fn of(conversation: &Conversation, order: ListOrder) -> Self {
        let last_message_at = conversation.last_activity_at;
        let (unpinned, activity) = match order {
            ListOrder::PinnedFirst => (conversation.pinned_at == EpochMs::ZERO, last_message_at),
            ListOrder::Activity => (true, last_message_at.max(conversation.activated_at)),
        };
        Self {
            unpinned,
            activity: Reverse(activity),
            channel_type: conversation.channel_ref.channel_type.number(),
            channel_id: conversation.channel_ref.channel_id.clone(),
        }
    }
}

/// A page of the list.
#[derive(Clone, Debug)]
pub struct ListPage {
    /// The conversations in list order. After a cursor, conversations that moved to the side that
    /// was already read come first (backwards: last).
    pub conversations: Vec<(ListCursor, Conversation)>,
    /// True if there are conversations above the page.
    pub has_previous: bool,
    /// True if there are conversations below the page.
    pub has_next: bool,
    /// Number of matching conversations on all pages.
    pub total: usize,
    /// Every later change has a larger version.
    pub version: Version,
}

impl ListFilter {
    fn matches(&self, conversation: &Conversation) -> bool {
        !(self.only_unread && conversation.unread == 0)
            && self
                .channel_types
                .as_ref()
                .is_none_or(|types| types.contains(&conversation.channel_ref.channel_type))
            && self
                .pinned
                .is_none_or(|pinned| pinned == (conversation.pinned_at > EpochMs::ZERO))
            && self.muted.is_none_or(|muted| muted == conversation.muted)
            && conversation
                .channel_ref
                .channel_id
                .starts_with(&self.channel_id_prefix)
    }
}

/// Returns a page of `listed`, all listed conversations of a user in list order. Takes one pass
/// over them whatever the cursors are; only the page is sorted and copied.
pub(super) fn page_of(
    listed: &[(SortKey, Conversation)],
    request: &ListRequest,
    version: Version,
) -> ListPage {
    let start = request.after.as_ref().map_or(0, |after| {
        listed.partition_point(|(key, _)| *key <= after.key)
    });
    let end = request.before.as_ref().map_or(listed.len(), |before| {
        listed.partition_point(|(key, _)| *key < before.key)
    });
    let end = end.max(start);
    let (cursor, walked) = if request.from_end {
        (&request.before, end..listed.len())
    } else {
        (&request.after, 0..start)
    };
    let limit = request.limit as usize;

    let mut total = 0;
    let (mut before, mut behind) = (false, false);
    let mut in_place: Vec<&(SortKey, Conversation)> = Vec::new();
    let mut moved: Vec<&Conversation> = Vec::new();
    for (at, entry) in listed
        .iter()
        .enumerate()
        .filter(|(_, (_, conversation))| request.filter.matches(conversation))
    {
        total += 1;
        let (key, conversation) = entry;
        if (start..end).contains(&at) {
            in_place.push(entry);
        } else {
            (before, behind) = (before || at < start, behind || at >= end);
            if let Some(cursor) = cursor
                .as_ref()
                .filter(|cursor| walked.contains(&at) && conversation.version > cursor.version)
                && *key != cursor.key
            {
                moved.push(conversation);
            }
        }
    }

    // Conversations that moved first come first. If the cursor is old, all conversations may have
    // moved past it.
    let all = moved.len() + in_place.len();
    if moved.len() > limit {
        moved.select_nth_unstable_by_key(limit, |conversation| conversation.version);
        moved.truncate(limit);
    }
    moved.sort_unstable_by_key(|conversation| conversation.version);
    let room = limit - moved.len();
    let cursor_at = |key: &SortKey, version: Version| ListCursor {
        key: key.clone(),
        version,
    };
    let moved = moved.into_iter().filter_map(|conversation| {
        let cursor = cursor.as_ref()?;
        Some((
            cursor_at(&cursor.key, conversation.version),
            conversation.clone(),
        ))
    });
    let stays = |entry: &&(SortKey, Conversation)| (cursor_at(&entry.0, version), entry.1.clone());
    let conversations: Vec<(ListCursor, Conversation)>;
    let (has_previous, has_next);
    if request.from_end {
        // Backwards paging: the conversation that moved first is the next one above the cursor.
        let skipped = in_place.len().saturating_sub(room);
        conversations = in_place[skipped..]
            .iter()
            .map(stays)
            .chain(moved.rev())
            .collect();
        (has_previous, has_next) = (before || all > limit, behind);
    } else {
        conversations = moved.chain(in_place.iter().take(room).map(stays)).collect();
        (has_previous, has_next) = (before, behind || all > limit);
    }
    ListPage {
        conversations,
        has_previous,
        has_next,
        total,
        version,
    }
}

#[cfg(test)]
mod tests {
    use super::super::visibility::row;
    use super::*;
    use crate::model::ConversationRow;

    fn conversation(number: i64, version: i64) -> (SortKey, Conversation) {
        let uid = Uid::parse("uid", "ann").unwrap();
        let row = ConversationRow {
            last_message_at: EpochMs(-number),
            version: Version(version),
            pinned_at: EpochMs::ZERO,
            ..row(number)
        };
        let conversation = Conversation::new(&uid, &row);
        (
            SortKey::of(&conversation, ListOrder::PinnedFirst),
            conversation,
        )
    }

    fn request(limit: u32) -> ListRequest {
        let uid = Uid::parse("uid", "ann").unwrap();
        ListRequest {
            uid,
            filter: ListFilter::default(),
            after: None,
            before: None,
            limit,
            from_end: false,
            order: ListOrder::PinnedFirst,
        }
    }

    fn versions(page: &ListPage) -> Vec<i64> {
        page.conversations
            .iter()
            .map(|(_, conversation)| conversation.version.0)
            .collect()
    }

    #[test]
    fn an_old_cursor_returns_one_page_of_moved_conversations() {
        let listed: Vec<_> = (0..100)
            .map(|number| conversation(number, 1000 - number))
            .collect();
        let at = |number: usize, version| {
            Some(ListCursor {
                key: listed[number].0.clone(),
                version: Version(version),
            })
        };
        let forged = ListRequest {
            after: at(90, 0),
            ..request(3)
        };
        let page = page_of(&listed, &forged, Version(1000));
        assert_eq!(
            (versions(&page), page.has_previous, page.has_next),
            (vec![911, 912, 913], true, true)
        );
        let honest = ListRequest {
            after: at(90, 999),
            ..request(3)
        };
        let page = page_of(&listed, &honest, Version(1000));
        assert_eq!(
            (versions(&page), page.has_previous, page.has_next),
            (vec![1000, 909, 908], true, true)
        );
        let backwards = ListRequest {
            before: at(5, 0),
            from_end: true,
            ..request(3)
        };
        let page = page_of(&listed, &backwards, Version(1000));
        assert_eq!(
            (versions(&page), page.has_previous, page.has_next),
            (vec![903, 902, 901], true, true)
        );
        let nothing = ListRequest {
            after: at(90, 0),
            ..request(0)
        };
        assert_eq!(
            versions(&page_of(&listed, &nothing, Version(1000))),
            Vec::<i64>::new()
        );
    }
}
