//! The rule of unread, which everything agrees on: the red-dot messages of others above the user's
//! read position, unless the user set a number.
//!
//! A row holds a *mark*: how much was unread (`red_dots` − `read_mark`), at which revision and
//! which last seq of the channel. What came since is the difference of two counters of the
//! channel's head, but for two rare terms of [`Counts`]: messages that the user had read before
//! they came, and messages that came late. A newer own message is a mark, too; it stands beside the
//! channel.
//!
//! The functions that change a row return whether they changed it. They set a new mark at the head
//! in the row, which was read under the user's lock. `docs/ARCHITECTURE.md` has the reasons, and
//! `tests/read_positions.rs` the shortest histories that break simpler rules.

use crate::ids::Seq;
use crate::store::{ConversationRow, Counts, Membership};

/// The largest number of unread messages that is shown or can be set: clients keep it in 32 bits.
pub const MAX_UNREAD: i64 = i32::MAX as i64;

/// The read position: the largest of the seqs that the user read, sent, deleted or joined at.
#[must_use]
pub fn position(row: &ConversationRow) -> Seq {
    row.read_seq.max(row.own.seq)
}

/// Unread at the mark, and the red dots that came since above the position that was counted for.
fn since_mark(row: &ConversationRow) -> i64 {
    row.red_dots - row.read_mark - row.counts.ahead - row.counts.late
}

/// How many messages are unread.
#[must_use]
pub fn unread(row: &ConversationRow) -> i64 {
    let unread = if row.own.seq <= row.read_seq {
        since_mark(row)
    } else {
        // An own message is the position.
        let since_own = row.red_dots - row.own.red_dots - row.counts.late_own;
        if row.own.seq > row.marked_seq {
            since_own
        } else {
            since_own.min(since_mark(row))
        }
    };
    unread.clamp(0, MAX_UNREAD)
}

fn set_mark(row: &mut ConversationRow, position: Seq, unread: i64) -> bool {
    let before = (
        row.read_seq,
        row.read_mark,
        row.marked_revision,
        row.marked_seq,
    );
    row.read_seq = position;
    row.read_mark = row.red_dots - unread;
    row.marked_revision = row.revision;
    row.marked_seq = row.last_seq;
    row.counts = Counts::default();
    before
        != (
            row.read_seq,
            row.read_mark,
            row.marked_revision,
            row.marked_seq,
        )
}

/// Sets a mark that says the same at the head in the row, so that later reads have nothing to
/// count.
pub(super) fn renew_mark(row: &mut ConversationRow) {
    let unread = unread(row);
    set_mark(row, position(row), unread);
}

/// Reads up to `up_to`, or everything. A seq below the position says nothing new: a receipt that is
/// late or repeated changes nothing.
pub(super) fn read(row: &mut ConversationRow, up_to: Option<Seq>) -> bool {
    up_to.is_none_or(|up_to| up_to >= position(row)) && move_position(row, up_to)
}

fn move_position(row: &mut ConversationRow, up_to: Option<Seq>) -> bool {
    let position = position(row).max(up_to.unwrap_or(row.last_seq));
    let mut unread = if position >= row.last_seq {
        0
    } else {
        row.counts.above
    };
    if position < row.marked_seq {
        // A number that the user set below the count stays.
        unread = unread.min(since_mark(row));
    }
    set_mark(row, position, unread.max(0))
}

/// Sets how many are unread: of all, or below `up_to`, so that what is above it counts on top.
pub(super) fn set_unread(row: &mut ConversationRow, count: i64, up_to: Option<Seq>) -> bool {
    if count == 0 {
        return read(row, up_to);
    }
    let above = if up_to.is_some_and(|up_to| up_to.max(position(row)) < row.last_seq) {
        row.counts.above
    } else {
        0
    };
    set_mark(row, position(row), (count + above).min(MAX_UNREAD))
}

/// Deletes up to `up_to`, or everything: reads up to there, and messages up to there never show
/// again.
pub(super) fn delete(row: &mut ConversationRow, up_to: Option<Seq>) -> bool {
    let up_to = up_to.unwrap_or(row.last_seq);
    let moved = move_position(row, Some(up_to));
    let deleted = up_to > row.deleted_to_seq;
    row.deleted_to_seq = row.deleted_to_seq.max(up_to);
    moved || deleted
}

/// Prepares the row of a user who is not in the channel to become a member: at the head, or just
/// below a message that made the user a member. What was read before is forgotten; the deletion and
/// the version are kept. [`ConversationRow::counts`] must then be counted above [`position`].
pub(crate) fn prepare_join(row: &mut ConversationRow, below: Option<Seq>) {
    row.joined_seq = below.map_or(row.last_seq, |seq| seq - 1);
    row.read_seq = row.joined_seq.max(row.deleted_to_seq);
    row.marked_revision = 0;
    row.marked_seq = 0;
}

/// Makes the user a member, after [`prepare_join`]. The conversation is stale: it has no version
/// for this yet.
pub(crate) fn join(row: &mut ConversationRow) {
    let unread = if position(row) >= row.last_seq {
        0
    } else {
        row.counts.above
    };
    set_mark(row, position(row), unread);
    row.membership = Membership::Member;
    row.stamped_revision = -1;
}
