//! Use cases for conversations: the list of a user, its changes, and unread counts.
//!
//! How to add a use case: add a file here, named for the user's action, with its types and tests. A
//! change of one conversation goes through `update::update_conversation`, which takes the user's
//! lock and stamps the row. Then add a route in `rest` and a resolver in `graphql`, which only
//! translate.

mod activate;
mod delete;
mod find;
mod import_state;
mod last_msg_seqs;
mod list;
mod pin;
mod recent_messages;
mod set_unread;
mod snapshot;
mod summary;
mod sync;
mod update;
mod visibility;
mod walk;
mod with_messages;

pub use self::activate::activate_conversation;
pub use self::delete::{DeleteOutcome, delete_conversation};
pub use self::find::find_conversations;
pub use self::import_state::{
    ImportedState, import_deletion, import_state, import_unread_count, list_unseen,
};
pub use self::last_msg_seqs::parse_last_msg_seqs;
pub use self::list::{ListCursor, ListFilter, ListOrder, ListPage, ListRequest, SortKey};
pub use self::pin::{set_muted, set_pinned};
pub use self::recent_messages::{RecentMessagesKey, list_recent_messages};
pub use self::set_unread::{mark_all_read, set_unread};
pub use self::snapshot::ConversationSnapshot;
pub use self::summary::{TypeSummary, UnreadSummary, summarize};
pub(crate) use self::sync::sync_under_lock;
pub use self::sync::{
    ConversationWithMessages, SyncAnswer, SyncDetail, SyncFilter, SyncRequest, sync,
    sync_with_size_limit,
};
pub use self::walk::{WalkCursor, WalkPage, WalkRequest, find_in_walk, walk};
pub use self::with_messages::{get_conversations_with_messages, list_conversations_with_messages};

use std::sync::Arc;

use self::sync::{ReadHandler, VersionHandler};
use self::update::UpdateHandler;
use crate::base::Base;
use crate::batching::{Batcher, MAX_BATCH_SIZE};
use crate::message::MessageService;
use crate::model::unread::{read_position, unread};
use crate::model::{
    ChannelKey, ChannelPk, ChannelRef, ChannelSnapshotId, ConversationRow, EpochMs, Seq, Uid,
    Version,
};

/// The use cases for conversations.
#[derive(Debug)]
pub struct ConversationService {
    base: Arc<Base>,
    messages: Arc<MessageService>,
    /// Reads of conversations.
    reads: Batcher<ReadHandler>,
    /// Assignments of versions.
    version_assignments: Batcher<VersionHandler>,
    /// Updates of conversations.
    updates: Batcher<UpdateHandler>,
}

impl ConversationService {
    pub(crate) fn new(messages: Arc<MessageService>) -> Self {
        let base = Arc::clone(&messages.base);
        Self {
            reads: base.batcher(ReadHandler(Arc::clone(&base)), MAX_BATCH_SIZE),
            version_assignments: base.batcher(VersionHandler(Arc::clone(&base)), MAX_BATCH_SIZE),
            updates: base.batcher(UpdateHandler(Arc::clone(&base)), MAX_BATCH_SIZE),
            messages,
            base,
        }
    }
}

/// One user's view of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The user.
    pub uid: Uid,
    /// The channel as this user names it.
    pub channel_ref: ChannelRef,
    /// Internal id of the channel.
    pub(crate) channel_pk: ChannelPk,
    /// Identity of the channel, the same for all users.
    pub(crate) channel_key: ChannelKey,
    /// Number of red-dot messages of others above the read position, unless the user set a number.
    pub unread: i64,
    /// The read position: the seq up to which the user has read. It may be above `last_msg_seq`.
    pub read_seq: Seq,
    /// When the last message was sent.
    pub last_activity_at: EpochMs,
    /// The seq of the last message.
    pub last_msg_seq: Seq,
    /// The user's version of the last change.
    pub version: Version,
    /// When the user pinned it; 0 if it is not pinned.
    pub pinned_at: EpochMs,
    /// True if the user muted it.
    pub muted: bool,
    /// When the user last opened it; 0 if never, or after a deletion.
    pub activated_at: EpochMs,
    /// The deletion watermark: messages up to this seq never show.
    pub deleted_to_seq: Seq,
    /// State of the channel when it was read.
    pub(crate) head: ChannelSnapshotId,
}

impl Conversation {
    fn new(uid: &Uid, row: &ConversationRow) -> Self {
        Self {
            uid: uid.clone(),
            channel_ref: row.key.seen_by(uid.as_str()),
            channel_pk: row.channel_id,
            channel_key: row.key.clone(),
            unread: unread(row),
            read_seq: read_position(row),
            last_activity_at: row.last_message_at,
            last_msg_seq: row.last_seq,
            version: row.version,
            pinned_at: row.pinned_at,
            muted: row.muted,
            activated_at: row.activated_at,
            deleted_to_seq: row.deleted_to_seq,
            head: row.snapshot_id(),
        }
    }
}

/// A conversation that is no longer listed: deleted, left, or excluded by the filters of the
/// request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationRemoval {
    /// The user.
    pub uid: Uid,
    /// The channel as this user names it.
    pub channel_ref: ChannelRef,
    /// The user's version of this change.
    pub version: Version,
    /// Internal id of the channel.
    pub(crate) channel_pk: ChannelPk,
    /// True if the user is still a member, so that a message can bring the conversation back.
    pub(crate) is_member: bool,
}

impl ConversationRemoval {
    fn new(uid: &Uid, row: &ConversationRow) -> Self {
        Self {
            uid: uid.clone(),
            channel_ref: row.key.seen_by(uid.as_str()),
            version: row.version,
            channel_pk: row.channel_id,
            is_member: row.is_member(),
        }
    }
}
