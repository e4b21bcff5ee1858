//! One user's view of one channel, as the rules of unread and visibility need it.

use std::ops::RangeInclusive;

use super::{ChannelKey, ChannelPk, ChannelSnapshotId, EpochMs, Revision, Seq, Version};

/// Membership of a user in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// There is no row: the user was never a member.
    Absent,
    /// The user is a member.
    Member,
    /// The user left, or was removed before becoming known as a member.
    Left,
    /// Removed together with all members. The stored row still says member, and no version reports
    /// the removal yet.
    Removed,
}

impl Membership {
    /// Exists only in query results, never in the database.
    pub(crate) const REMOVED: i16 = 2;

    pub(crate) fn stored(self) -> i16 {
        i16::from(self == Self::Left)
    }

    pub(crate) fn from_stored(number: Option<i16>) -> Self {
        match number {
            None => Self::Absent,
            Some(0) => Self::Member,
            Some(Self::REMOVED) => Self::Removed,
            Some(_) => Self::Left,
        }
    }
}

/// A user's newest own message in a channel; all zero if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderMark {
    /// Seq of the message.
    pub seq: Seq,
    /// The value of the channel's `red_dots` at which no message of others above it was unread.
    pub red_dots: i64,
    /// The channel's revision after the message was stored.
    pub revision: Revision,
}

/// Numbers of red-dot messages that had to be counted, from the same snapshot as the head; 0 in the
/// common case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Above `marked_seq` and at most `read_seq`: read before they arrived.
    pub ahead: i64,
    /// Late messages since the mark that are at or below both `marked_seq` and the position.
    pub late: i64,
    /// Late messages since the own message that are below it.
    pub late_own: i64,
    /// Messages of others above the position, and above the seq that the user named, if any.
    pub above: i64,
}

/// One user's view of one channel, with the channel's head from the same statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationRow {
    /// Internal id of the channel.
    pub channel_id: ChannelPk,
    /// Identity of the channel.
    pub key: ChannelKey,
    /// Head: the channel's largest message seq.
    pub last_seq: Seq,
    /// Head: the channel's revision.
    pub revision: Revision,
    /// Head: the channel's red-dot messages so far.
    pub red_dots: i64,
    /// Head: when the channel's last message was sent.
    pub last_message_at: EpochMs,
    /// Head: the revision of the newest late message.
    pub late_revision: Revision,
    /// Head: the user's newest own message. It is read only if the revision is above
    /// `marked_revision`; otherwise the mark covers it.
    pub own: SenderMark,
    /// Head: counted messages.
    pub counts: Counts,
    /// Membership of the user.
    pub membership: Membership,
    /// The seq up to which the user has read; an own message may be above it.
    pub read_seq: Seq,
    /// The value of `red_dots` at which unread was 0 when the mark was set.
    pub read_mark: i64,
    /// The revision at which the mark was set.
    pub marked_revision: Revision,
    /// The `last_seq` at which the mark was set.
    pub marked_seq: Seq,
    /// The deletion watermark: the user's, or the channel's where that is higher.
    pub deleted_to_seq: Seq,
    /// Messages up to this seq do not make the conversation listed.
    pub joined_seq: Seq,
    /// The channel's `last_seq` when the user left.
    pub left_seq: Seq,
    /// When the user left.
    pub left_at: EpochMs,
    /// Number of bulk removals in the channel when the user joined.
    pub joined_removals: i64,
    /// The user's version of the last stamped change; 0 before the first.
    pub version: Version,
    /// The channel revision that `version` covers.
    pub stamped_revision: Revision,
    /// When the user pinned it; 0 if it is not pinned.
    pub pinned_at: EpochMs,
    /// True if the user muted it.
    pub muted: bool,
    /// When the user last opened it (v3's `/conversations/activate`); 0 if never, or after a
    /// deletion.
    pub activated_at: EpochMs,
}

impl ConversationRow {
    /// The conversation of a member in an empty channel.
    pub(crate) fn empty(channel_id: ChannelPk, key: ChannelKey) -> Self {
        Self {
            channel_id,
            key,
            last_seq: Seq::ZERO,
            revision: Revision::ZERO,
            red_dots: 0,
            last_message_at: EpochMs::ZERO,
            late_revision: Revision::ZERO,
            own: SenderMark::default(),
            counts: Counts::default(),
            membership: Membership::Member,
            read_seq: Seq::ZERO,
            read_mark: 0,
            marked_revision: Revision::ZERO,
            marked_seq: Seq::ZERO,
            deleted_to_seq: Seq::ZERO,
            joined_seq: Seq::ZERO,
            left_seq: Seq::ZERO,
            left_at: EpochMs::ZERO,
            joined_removals: 0,
            version: Version::ZERO,
            stamped_revision: Revision::UNSTAMPED,
            pinned_at: EpochMs::ZERO,
            muted: false,
            activated_at: EpochMs::ZERO,
        }
    }

    /// Returns whether the user is a member.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.membership == Membership::Member
    }

    /// Returns the range of seqs that the user may see: above the deletion watermark, and for a
    /// former member up to the point of leaving.
    pub(crate) fn visible_seqs(&self) -> RangeInclusive<Seq> {
        let highest = if self.is_member() {
            self.last_seq
        } else {
            self.left_seq.min(self.last_seq)
        };
        self.deleted_to_seq.next()..=highest
    }

    /// Identifies the state of the channel's messages in the row.
    pub(crate) fn snapshot_id(&self) -> ChannelSnapshotId {
        ChannelSnapshotId {
            revision: self.revision,
            last_seq: self.last_seq,
            last_message_at: self.last_message_at,
        }
    }

    /// Returns whether the row alone does not determine how many messages are unread, or how many
    /// are above `up_to`.
    pub(crate) fn needs_counts(&self, up_to: Option<Seq>) -> bool {
        let position = Ord::max(self.read_seq, self.own.seq);
        let is_ahead = self.read_seq > self.marked_seq && self.last_seq > self.marked_seq;
        let is_late = self.late_revision > self.marked_revision
            || (self.own.seq > self.read_seq && self.late_revision > self.own.revision);
        (self.revision > self.marked_revision && (is_ahead || is_late))
            || up_to.is_some_and(|up_to| Ord::max(up_to, position) < self.last_seq)
    }
}
