//! The heart: what a user's conversations are, what changed, what is unread.
//!
//! How to add a use case: a file here named for what the user does, its types and tests beside it;
//! a mutation of one conversation goes through `change::change`, which takes the user's lock and
//! stamps the row; then a route in `rest` and a resolver in `graphql`, which only translate.

mod change;
mod delete;
mod find;
mod import_unread;
mod last_msg_seqs;
mod list;
mod pin;
mod plan;
mod recents;
mod set_unread;
mod show;
mod summary;
mod sync;
mod unread;
mod user_list;
mod visibility;

pub(crate) use self::change::{Changing, Outcome};
pub use self::delete::{Deleted, delete_conversation};
pub use self::find::find_conversations;
pub use self::import_unread::import_unread_count;
pub use self::last_msg_seqs::parse_last_msg_seqs;
pub use self::list::{ListCursor, ListFilter, ListPage, ListRequest, SortKey};
pub use self::pin::{set_muted, set_pinned};
pub(crate) use self::plan::Plan;
pub use self::recents::{RecentsKey, list_recents};
pub use self::set_unread::{mark_all_read, set_unread};
pub use self::show::{show, show_all};
pub use self::summary::{TypeSummary, UnreadSummary, summarize};
pub use self::sync::{Filter, Item, SyncAnswer, SyncRequest, Wanted, sync, sync_within};
pub(crate) use self::sync::{Reading, Stamping, follow};
pub use self::unread::{MAX_UNREAD, position, unread};
pub(crate) use self::unread::{join, prepare_join};
pub use self::user_list::UserList;

use crate::channel::ChannelKey;
use crate::ids::{ChannelRef, Seq, Uid, Version};
use crate::message::HeadState;
use crate::store::ConversationRow;

/// One user's view of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Whose view.
    pub uid: Uid,
    /// What this user calls the channel.
    pub channel: ChannelRef,
    /// The channel's internal id.
    pub(crate) channel_id: i64,
    /// Who the channel is, whoever looks at it.
    pub(crate) key: ChannelKey,
    /// Red-dot messages of others above the read position, unless the user set a number.
    pub unread: i64,
    /// The read position: the seq up to which the user has read. It may be above `last_msg_seq`.
    pub read_seq: Seq,
    /// When the last message was sent, epoch ms.
    pub last_activity_at: i64,
    /// The last message's number.
    pub last_msg_seq: Seq,
    /// The user's version of the last change.
    pub version: Version,
    /// When it was pinned, epoch ms; 0 when it is not.
    pub pinned_at: i64,
    /// Whether the user muted it.
    pub muted: bool,
    /// Messages up to here never show.
    pub(crate) deleted_to_seq: Seq,
    /// The channel as it was read.
    pub(crate) head: HeadState,
}

impl Conversation {
    fn new(uid: &Uid, row: &ConversationRow) -> Self {
        Self {
            uid: uid.clone(),
            channel: row.key.seen_by(uid.as_str()),
            channel_id: row.channel_id,
            key: row.key.clone(),
            unread: unread(row),
            read_seq: position(row),
            last_activity_at: row.last_message_at,
            last_msg_seq: row.last_seq,
            version: row.version,
            pinned_at: row.pinned_at,
            muted: row.muted,
            deleted_to_seq: row.deleted_to_seq,
            head: recents::head_state(row),
        }
    }
}

/// A conversation that does not show any more: deleted, left, or outside of the filters asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Whose view.
    pub uid: Uid,
    /// What this user calls the channel.
    pub channel: ChannelRef,
    /// The user's version of that change.
    pub version: Version,
    /// The channel's internal id.
    pub(crate) channel_id: i64,
    /// Whether the user is still in the channel, so that a message can bring it back.
    pub(crate) is_member: bool,
}

impl Removed {
    fn new(uid: &Uid, row: &ConversationRow) -> Self {
        Self {
            uid: uid.clone(),
            channel: row.key.seen_by(uid.as_str()),
            version: row.version,
            channel_id: row.channel_id,
            is_member: row.is_member(),
        }
    }
}
