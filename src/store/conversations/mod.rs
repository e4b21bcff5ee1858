//! `conversation`: users' views of channels, read together with the head of the channel: the
//! channel row and the user's `sender_mark`.
//!
//! `docs/ARCHITECTURE.md` describes how unread is stored ("Marks"). The common case reads one row
//! and one head. If messages above the head were read, or late messages arrived after the mark,
//! [`counts`] runs another statement.

mod counts;
mod read;
mod statements;
mod write;

use sea_orm::{DbErr, QueryResult, TryGetable};

pub(crate) use self::counts::CountRequest;
pub(crate) use self::read::MemberView;
pub(super) use self::statements::hot_statements;
pub(super) use self::write::person_conversations;
use crate::channel::ChannelKey;
use crate::ids::{ChannelType, Seq, Version};

/// Maximum number of conversations that one statement selects by user and channel; also the largest
/// number of conversations in one update.
const PAIRS_PER_STATEMENT: usize = 512;

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
    const REMOVED: i16 = 2;

    pub(crate) fn stored(self) -> i16 {
        i16::from(self == Self::Left)
    }

    fn from_stored(number: Option<i16>) -> Self {
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
    pub revision: i64,
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
    pub channel_id: i64,
    /// Identity of the channel.
    pub key: ChannelKey,
    /// Head: the channel's largest message seq.
    pub last_seq: Seq,
    /// Head: the channel's revision.
    pub revision: i64,
    /// Head: the channel's red-dot messages so far.
    pub red_dots: i64,
    /// Head: when the channel's last message was sent, epoch ms.
    pub last_message_at: i64,
    /// Head: the revision of the newest late message.
    pub late_revision: i64,
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
    pub marked_revision: i64,
    /// The `last_seq` at which the mark was set.
    pub marked_seq: Seq,
    /// The deletion watermark: the user's, or the channel's where that is higher.
    pub deleted_to_seq: Seq,
    /// Messages up to this seq do not make the conversation listed.
    pub joined_seq: Seq,
    /// The channel's `last_seq` when the user left.
    pub left_seq: Seq,
    /// When the user left, epoch ms.
    pub left_at: i64,
    /// Number of bulk removals in the channel when the user joined.
    pub joined_removals: i64,
    /// The user's version of the last stamped change; 0 before the first.
    pub version: Version,
    /// The channel revision that `version` covers.
    pub stamped_revision: i64,
    /// When the user pinned it, epoch ms; 0 if it is not pinned.
    pub pinned_at: i64,
    /// Whether the user muted it.
    pub muted: bool,
}

impl ConversationRow {
    /// The conversation of a member in an empty channel.
    pub(crate) fn empty(channel_id: i64, key: ChannelKey) -> Self {
        Self {
            channel_id,
            key,
            last_seq: 0,
            revision: 0,
            red_dots: 0,
            last_message_at: 0,
            late_revision: 0,
            own: SenderMark::default(),
            counts: Counts::default(),
            membership: Membership::Member,
            read_seq: 0,
            read_mark: 0,
            marked_revision: 0,
            marked_seq: 0,
            deleted_to_seq: 0,
            joined_seq: 0,
            left_seq: 0,
            left_at: 0,
            joined_removals: 0,
            version: 0,
            stamped_revision: -1,
            pinned_at: 0,
            muted: false,
        }
    }

    /// Returns whether the user is a member.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.membership == Membership::Member
    }
}

/// What a sync reads in one statement.
#[derive(Clone, Debug)]
pub struct ChangedConversations {
    /// The user's cursor; `None` if the user has none yet.
    pub cursor: Option<Version>,
    /// The selected conversations.
    pub rows: Vec<ConversationRow>,
}

/// The columns of a [`ConversationRow`]: table, column, name in the result. [`row_from`] reads them
/// in this order. `membership` and `left_seq` take a removal of all members into account, even if
/// it is not yet written to the row.
const COLUMNS: [(&str, &str, &str); 26] = [
    ("ch", "id", "channel_id"),
    ("ch", "channel_type", "channel_type"),
    ("ch", "channel_key", "channel_key"),
    ("ch", "last_seq", "last_seq"),
    ("ch", "revision", "revision"),
    ("ch", "red_dots", "red_dots"),
    ("ch", "last_message_at", "last_message_at"),
    ("ch", "late_revision", "late_revision"),
    ("ch", "cleared_to_seq", "cleared_to_seq"),
    ("own", "seq", "own_seq"),
    ("own", "red_dots", "own_red_dots"),
    ("own", "revision", "own_revision"),
    ("c", "membership", "membership"),
    ("c", "read_seq", "read_seq"),
    ("c", "read_mark", "read_mark"),
    ("c", "marked_revision", "marked_revision"),
    ("c", "marked_seq", "marked_seq"),
    ("c", "deleted_to_seq", "deleted_to_seq"),
    ("c", "joined_seq", "joined_seq"),
    ("c", "left_seq", "left_seq"),
    ("c", "left_at", "left_at"),
    ("c", "joined_removals", "joined_removals"),
    ("c", "version", "version"),
    ("c", "stamped_revision", "stamped_revision"),
    ("c", "pinned_at", "pinned_at"),
    ("c", "muted", "muted"),
];

/// Reads the columns of a result row in order.
struct Columns<'a> {
    row: &'a QueryResult,
    at: usize,
}

impl<'a> Columns<'a> {
    fn new(row: &'a QueryResult) -> Self {
        Self { row, at: 0 }
    }

    fn next<T: TryGetable>(&mut self) -> Result<T, DbErr> {
        self.at += 1;
        self.row.try_get_by_index(self.at - 1)
    }

    /// Returns a number of an outer join; 0 if no row was joined.
    fn number(&mut self) -> Result<i64, DbErr> {
        Ok(self.next::<Option<i64>>()?.unwrap_or_default())
    }
}

fn row_from(row: &QueryResult) -> Result<ConversationRow, DbErr> {
    let columns = &mut Columns::new(row);
    let channel_id = columns.next()?;
    let key = ChannelKey {
        channel_type: ChannelType::from_stored(columns.next()?),
        key: columns.next()?,
    };
    let mut found = ConversationRow::empty(channel_id, key);
    found.last_seq = columns.next()?;
    found.revision = columns.next()?;
    found.red_dots = columns.next()?;
    found.last_message_at = columns.next()?;
    found.late_revision = columns.next()?;
    found.deleted_to_seq = columns.next()?;
    found.own = SenderMark {
        seq: columns.number()?,
        red_dots: columns.number()?,
        revision: columns.number()?,
    };
    found.membership = Membership::from_stored(columns.next()?);
    if found.membership == Membership::Absent {
        return Ok(found);
    }
    found.read_seq = columns.next()?;
    found.read_mark = columns.next()?;
    found.marked_revision = columns.next()?;
    found.marked_seq = columns.next()?;
    found.deleted_to_seq = Ord::max(found.deleted_to_seq, columns.next()?);
    found.joined_seq = columns.next()?;
    found.left_seq = columns.next()?;
    found.left_at = columns.next()?;
    found.joined_removals = columns.next()?;
    found.version = columns.next()?;
    found.stamped_revision = columns.next()?;
    found.pinned_at = columns.next()?;
    found.muted = columns.next()?;
    Ok(found)
}
