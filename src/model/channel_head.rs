//! The head of a channel.

use super::{ChannelGaps, ChannelKey, ChannelPk, EpochMs, Revision, Seq};

/// The head of a channel, read under its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelHead {
    /// Internal id of the channel.
    pub id: ChannelPk,
    /// Identity of the channel.
    pub key: ChannelKey,
    /// The largest message seq; 0 before the first message.
    pub last_seq: Seq,
    /// Grows with every change that members can see.
    pub revision: Revision,
    /// Number of red-dot messages so far.
    pub red_dots: i64,
    /// When the message with `last_seq` was sent.
    pub last_message_at: EpochMs,
    /// The revision of the newest late message with a red dot.
    pub late_revision: Revision,
    /// Bits: 1 large, 2 banned, 4 disbanded.
    pub flags: i64,
    /// Messages up to this seq were deleted with the channel.
    pub cleared_to_seq: Seq,
    /// When all members were last removed.
    pub cleared_at: EpochMs,
    /// The messages that have not arrived.
    pub gaps: ChannelGaps,
}

/// Identifies a state of a channel's messages. The revision alone would suffice, except after a
/// database is restored to an earlier state under a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelSnapshotId {
    /// Revision of the channel.
    pub revision: Revision,
    /// The largest message seq.
    pub last_seq: Seq,
    /// When the message with `last_seq` was sent.
    pub last_message_at: EpochMs,
}

impl ChannelHead {
    /// Identifies the current state of the channel's messages.
    pub(crate) fn snapshot_id(&self) -> ChannelSnapshotId {
        ChannelSnapshotId {
            revision: self.revision,
            last_seq: self.last_seq,
            last_message_at: self.last_message_at,
        }
    }
}
