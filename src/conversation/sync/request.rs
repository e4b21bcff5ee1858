//! The request of a sync.

use std::collections::{HashMap, HashSet};

use crate::model::{ChannelRef, Seq, Uid, Version};

/// Filters for a sync. A cursor is valid only for the filters it was requested with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncFilter {
    /// Only conversations with unread messages.
    pub only_unread: bool,
    /// Channel types to leave out.
    pub exclude_channel_types: Vec<u8>,
    /// Also conversations without messages that the user opened.
    pub include_activated: bool,
}

/// A sync request.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The user.
    pub uid: Uid,
    /// The version of the client's last answer; 0 requests everything.
    pub version: Version,
    /// The newest message that the client has of each channel, if known.
    pub last_msg_seqs: HashMap<ChannelRef, Seq>,
    /// Channels to return whatever their version is.
    pub force_include: HashSet<ChannelRef>,
    /// Maximum number of newest messages for each conversation.
    pub msg_count: u32,
    /// Filters.
    pub filter: SyncFilter,
    /// Maximum number of changes, in order of version.
    pub first: Option<usize>,
    /// The parts of the answer that are needed.
    pub detail: SyncDetail,
}

impl SyncRequest {
    /// Returns whether unchanged conversations may have to be returned.
    pub(super) fn names_channels(&self) -> bool {
        !self.last_msg_seqs.is_empty() || !self.force_include.is_empty()
    }
}

/// The parts of an answer that are needed: nothing else is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncDetail {
    /// The version and the removed conversations.
    Version,
    /// Conversations without their messages.
    Conversations,
    /// Conversations with their messages.
    #[default]
    Messages,
}

impl SyncRequest {
    /// Requests all conversations of `uid`, without messages.
    #[must_use]
    pub fn new(uid: Uid) -> Self {
        Self {
            uid,
            version: Version::ZERO,
            last_msg_seqs: HashMap::new(),
            force_include: HashSet::new(),
            msg_count: 0,
            filter: SyncFilter::default(),
            first: None,
            detail: SyncDetail::Messages,
        }
    }
}
