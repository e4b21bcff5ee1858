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
use crate::model::{ChannelKey, ChannelType, ConversationRow, Membership, SenderMark, Version};

/// Maximum number of conversations that one statement selects by user and channel; also the largest
/// number of conversations in one update.
const PAIRS_PER_STATEMENT: usize = 512;

/// The rows that a sync reads in one statement.
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
const COLUMNS: [(&str, &str, &str); 27] = [
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
    ("c", "activated_at", "activated_at"),
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
    fn number<T: TryGetable + Default>(&mut self) -> Result<T, DbErr> {
        Ok(self.next::<Option<T>>()?.unwrap_or_default())
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
    found.activated_at = columns.next()?;
    Ok(found)
}
