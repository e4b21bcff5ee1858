//! The heart: what a user's conversations are, what changed, what is unread.
//!
//! How to add a use case: a file here named for what the user does, its types and tests beside it; a mutation of one
//! conversation goes through `change::change`, which takes the locks in their order and stamps the row; then a route in
//! `rest` and a resolver in `graphql`, which only translate.

mod carry_over;
mod change;
mod delete;
mod find;
mod last_msg_seqs;
mod list;
mod pin;
mod plan;
mod recents;
mod rules;
mod set_unread;
mod show;
mod summary;
mod sync;

pub use self::carry_over::carry_over;
pub(crate) use self::change::{Changing, Outcome};
pub use self::delete::delete_conversation;
pub use self::find::find_conversations;
pub use self::last_msg_seqs::parse_last_msg_seqs;
pub use self::list::{ListFilter, ListPage, ListRequest, Place, Rank, list_conversations};
pub use self::pin::{set_muted, set_pinned};
pub(crate) use self::plan::Plan;
pub use self::recents::{RecentsKey, list_recents};
pub use self::rules::{MAX_UNREAD, unread};
pub use self::set_unread::{mark_all_read, set_unread};
pub use self::show::{show, show_all};
pub use self::summary::{TypeSummary, UnreadSummary, summarize};
pub use self::sync::{Filter, Item, SyncAnswer, SyncRequest, sync};
pub(crate) use self::sync::{Reading, Stamping, follow};

use crate::channel::ChannelKey;
use crate::ids::{ChannelRef, Seq, Uid, Version};
use crate::message::HeadState;
use crate::store::{ConversationRow, State};

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
    /// Red-dot messages of others since the user's read mark.
    pub unread: i64,
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
            unread: rules::unread(row),
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
            is_member: row.state != State::Left,
        }
    }
}
