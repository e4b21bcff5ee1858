//! Channels: identity and membership.

mod bulk_removal;
mod delete;
mod find;
mod join;
mod leave;
mod listed_members;
mod members;

pub(crate) use bulk_removal::run_bulk_removals;
pub use delete::delete_channel;
pub use find::{find_channels, list_members};
pub(crate) use join::{JoinReason, MemberHint, join_members};
pub(crate) use listed_members::join_listed_members;
pub(crate) use members::check_change;
pub use members::{
    CreateChannel, FlagChanges, Flags, add_members, create_channel, remove_all_members,
    remove_members,
};

use std::sync::Arc;

use tokio::sync::Notify;

use self::join::MemberCache;
use crate::base::Base;

/// The use cases for channels and their members.
#[derive(Debug)]
pub struct ChannelService {
    pub(crate) base: Arc<Base>,
    /// Cache of group members.
    pub(crate) members: MemberCache,
    /// Wakes the worker that writes bulk removals.
    removal_enqueued: Notify,
}

impl ChannelService {
    pub(crate) fn new(base: Arc<Base>) -> Self {
        Self {
            base,
            members: MemberCache::new(),
            removal_enqueued: Notify::new(),
        }
    }
}
