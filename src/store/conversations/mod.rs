//! `conversation`: users' views of channels, read together with the head of the channel: the
//! channel row and the user's `sender_mark`.
//!
//! `docs/ARCHITECTURE.md` says how unread is stored ("Marks"). The common case reads one row and
//! one head. Where messages above the head were read, or late messages came since the mark,
//! [`counts`] adds what has to be counted.

mod counts;
mod read;
mod statements;
mod write;

use sea_orm::{DbErr, QueryResult, TryGetable};

pub(crate) use self::counts::Counted;
pub(crate) use self::read::View;
pub(super) use self::statements::hot_statements;
pub(super) use self::write::person_conversations;
use crate::channel::ChannelKey;
use crate::ids::{ChannelType, Seq, Version};

/// Conversations that one statement names by user and channel: all that are changed at once.
const PAIRS_PER_STATEMENT: usize = 512;

/// Whether a user is in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// There is no row: the user was never in it.
    Absent,
    /// In it.
    Member,
    /// Not any more, or removed before anybody knew the user as a member.
    Left,
    /// Removed with all other members, and not told yet: the stored row still says member.
    Removed,
}

impl Membership {
    /// Only read, never stored.
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

/// A user's newest own message in a channel; all zero where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderMark {
    /// Its seq.
    pub seq: Seq,
    /// The value of the channel's `red_dots` at which no message of others above it was unread.
    pub red_dots: i64,
    /// The channel's revision after it was stored.
    pub revision: i64,
}

/// Red-dot messages that had to be counted, of the same moment as the head; 0 in the common case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Above `marked_seq`, up to `read_seq`: read before they came.
    pub ahead: i64,
    /// Late ones since the mark that are at or below both `marked_seq` and the position.
    pub late: i64,
    /// Late ones since the own message that are below it.
    pub late_own: i64,
    /// Of others above the position, and above the seq that a user named, where one did.
    pub above: i64,
}

/// One user's view of one channel, with the channel's head as it was read in the same statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationRow {
    /// The channel's internal id.
    pub channel_id: i64,
    /// The channel's identity.
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
    /// Head: the user's newest own message. Read only where the revision is above
    /// `marked_revision`: a mark is never below it.
    pub own: SenderMark,
    /// Head: what had to be counted.
    pub counts: Counts,
    /// Whether the user is in the channel.
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
    /// Messages up to this seq do not make the conversation show.
    pub joined_seq: Seq,
    /// The channel's `last_seq` when the user left.
    pub left_seq: Seq,
    /// When the user left, epoch ms.
    pub left_at: i64,
    /// The channel's removals of many when the user joined.
    pub joined_removals: i64,
    /// The user's version of the last stamped change, 0 before the first.
    pub version: Version,
    /// The revision that `version` stands for.
    pub stamped_revision: i64,
    /// When it was pinned, 0 when it is not.
    pub pinned_at: i64,
    /// Whether it is muted.
    pub muted: bool,
}

impl ConversationRow {
    /// The conversation that a member of an empty channel has.
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

    /// Whether the user is in the channel.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.membership == Membership::Member
    }
}

/// What a sync reads in one statement.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The user's cursor; `None` when the user has none yet.
    pub cursor: Option<Version>,
    /// The conversations asked for.
    pub rows: Vec<ConversationRow>,
}

/// The columns of a [`ConversationRow`]: table, column, name in an answer. [`row_from`] reads them
/// in this order. `membership` and `left_seq` are what they are after a removal of all members,
/// also where the row does not say so yet.
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

/// Reads the columns of an answer one after the other.
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

    /// A number of an outer join, 0 where nothing was joined.
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
