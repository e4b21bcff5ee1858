//! The unread count: the number of red-dot messages of others above the user's read position,
//! unless the user set a number. All interfaces use these functions.
//!
//! A row holds a *mark*: how much was unread (`red_dots` − `read_mark`) at a certain revision and
//! last seq of the channel. The messages since then are the difference of two counters of the
//! channel's head, except for two rare terms in [`Counts`]: messages that the user had read before
//! they arrived, and messages that arrived late. A newer own message is a mark, too; it is stored
//! with the channel.
//!
//! Functions that change a row return whether they changed it. They set a new mark at the head in
//! the row, which was read under the user's lock. `docs/ARCHITECTURE.md` explains the reasons, and
//! `tests/it/api/read_positions.rs` has the shortest histories that break simpler rules.

use super::{ConversationRow, Counts, EpochMs, Membership, Revision, Seq};

/// The largest unread count that is returned or can be set: clients store it in 32 bits.
pub const MAX_UNREAD: i64 = i32::MAX as i64;

/// Returns the read position: the largest seq that the user read, sent, deleted or joined at.
#[must_use]
pub fn read_position(row: &ConversationRow) -> Seq {
    row.read_seq.max(row.own.seq)
}

/// Unread messages at the mark, plus the red-dot messages since then above the counted position.
fn unread_since_mark(row: &ConversationRow) -> i64 {
    row.red_dots - row.read_mark - row.counts.ahead - row.counts.late
}

/// Returns the number of unread messages.
#[must_use]
pub fn unread(row: &ConversationRow) -> i64 {
    let unread = if row.own.seq <= row.read_seq {
        unread_since_mark(row)
    } else {
        // A newer own message is the read position.
        let since_own = row.red_dots - row.own.red_dots - row.counts.late_own;
        if row.own.seq > row.marked_seq {
            since_own
        } else {
            since_own.min(unread_since_mark(row))
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

/// Sets a mark with the same position and unread count at the head in the row, so that later reads
/// need no counts.
pub(crate) fn renew_mark(row: &mut ConversationRow) {
    let unread = unread(row);
    set_mark(row, read_position(row), unread);
}

/// Marks messages up to `up_to`, or all messages, as read. A seq below the position changes
/// nothing: the receipt is late or repeated.
pub(crate) fn mark_read(row: &mut ConversationRow, up_to: Option<Seq>) -> bool {
    up_to.is_none_or(|up_to| up_to >= read_position(row)) && move_position(row, up_to)
}

fn move_position(row: &mut ConversationRow, up_to: Option<Seq>) -> bool {
    let position = read_position(row).max(up_to.unwrap_or(row.last_seq));
    let mut unread = if position >= row.last_seq {
        0
    } else {
        row.counts.above
    };
    if position < row.marked_seq {
        // A number that the user set below the actual count is kept.
        unread = unread.min(unread_since_mark(row));
    }
    set_mark(row, position, unread.max(0))
}

/// Sets the number of unread messages: in total, or up to `up_to`, so that later messages are
/// added.
pub(crate) fn set_unread(row: &mut ConversationRow, count: i64, up_to: Option<Seq>) -> bool {
    if count == 0 {
        return mark_read(row, up_to);
    }
    let above = if up_to.is_some_and(|up_to| up_to.max(read_position(row)) < row.last_seq) {
        row.counts.above
    } else {
        0
    };
    set_mark(row, read_position(row), (count + above).min(MAX_UNREAD))
}

/// Takes over the state of another server when the last message was `up_to`: the number of unread
/// messages, and the seq up to which messages are deleted.
pub(crate) fn import(row: &mut ConversationRow, count: i64, up_to: Option<Seq>, deleted_to: Seq) {
    set_unread(row, count, up_to);
    if deleted_to > row.deleted_to_seq {
        let unread = unread(row);
        set_mark(row, read_position(row).max(deleted_to), unread);
        row.deleted_to_seq = deleted_to;
    }
}

/// Deletes messages up to `up_to`, or all messages: marks them as read and hides them for good.
pub(crate) fn delete(row: &mut ConversationRow, up_to: Option<Seq>) -> bool {
    let up_to = up_to.unwrap_or(row.last_seq);
    let moved = move_position(row, Some(up_to));
    let deleted = up_to > row.deleted_to_seq;
    row.deleted_to_seq = row.deleted_to_seq.max(up_to);
    moved || deleted
}

/// Prepares the row of a user who is not a member for joining: at the head, or just below the
/// message that made the user a member. The read position is reset; the deletion watermark and the
/// version are kept. The caller must then count [`ConversationRow::counts`] above
/// [`read_position`].
pub(crate) fn prepare_join(row: &mut ConversationRow, below: Option<Seq>) {
    row.joined_seq = below.map_or(row.last_seq, Seq::previous);
    row.read_seq = row.joined_seq.max(row.deleted_to_seq);
    row.marked_revision = Revision::ZERO;
    row.marked_seq = Seq::ZERO;
    // The user opened it during an earlier membership.
    row.activated_at = EpochMs::ZERO;
}

/// Makes the user a member, after [`prepare_join`]. The conversation is stale, because the change
/// has no version yet.
pub(crate) fn join(row: &mut ConversationRow) {
    let unread = if read_position(row) >= row.last_seq {
        0
    } else {
        row.counts.above
    };
    set_mark(row, read_position(row), unread);
    row.membership = Membership::Member;
    row.stamped_revision = Revision::UNSTAMPED;
}
