//! The formulas that everything agrees on.

use crate::store::{ConversationRow, State};

/// The largest number of unread messages that is shown or can be set: clients keep it in 32 bits.
pub const MAX_UNREAD: i64 = i32::MAX as i64;

/// Red-dot messages of others since the user's read mark.
#[must_use]
pub fn unread(row: &ConversationRow) -> i64 {
    (row.red_dots - row.read_mark).clamp(0, MAX_UNREAD)
}

/// Whether the conversation shows: the user is in the channel, and there is a message that was neither deleted nor before the
/// user came.
pub(crate) fn is_listed(row: &ConversationRow) -> bool {
    row.state != State::Left && row.key.channel_type.is_listed() && row.last_seq > row.deleted_to_seq.max(row.joined_seq)
}

/// Whether the channel changed since the row was stamped. Who left is told nothing more.
pub(crate) fn is_stale(row: &ConversationRow) -> bool {
    row.state != State::Left && (row.revision > row.stamped_revision || row.version == 0)
}

#[cfg(test)]
pub(crate) fn row(channel_id: i64) -> ConversationRow {
    ConversationRow {
        channel_id,
        key: crate::channel::ChannelKey { channel_type: crate::ids::ChannelType::GROUP, key: format!("g{channel_id}") },
        last_seq: 1,
        revision: 1,
        red_dots: 1,
        last_message_at: 0,
        read_mark: 0,
        deleted_to_seq: 0,
        joined_seq: 0,
        left_seq: 0,
        state: State::Live,
        version: 0,
        stamped_revision: -1,
        pinned_at: 0,
        muted: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_is_never_negative() {
        assert_eq!(unread(&ConversationRow { red_dots: 3, read_mark: 5, ..row(1) }), 0);
        assert_eq!(unread(&ConversationRow { red_dots: 3, read_mark: 1, ..row(1) }), 2);
        assert_eq!(unread(&ConversationRow { red_dots: 3, read_mark: -4, ..row(1) }), 7);
    }

    #[test]
    fn listed_is_who_is_in_it_and_has_something_to_see() {
        assert!(is_listed(&row(1)));
        assert!(!is_listed(&ConversationRow { deleted_to_seq: 1, state: State::Deleted, ..row(1) }));
        assert!(is_listed(&ConversationRow { deleted_to_seq: 1, last_seq: 2, state: State::Deleted, ..row(1) }));
        assert!(!is_listed(&ConversationRow { joined_seq: 1, ..row(1) }));
        assert!(!is_listed(&ConversationRow { state: State::Left, ..row(1) }));
    }

    #[test]
    fn who_left_is_never_stale() {
        assert!(is_stale(&row(1)));
        assert!(is_stale(&ConversationRow { version: 9, stamped_revision: 0, ..row(1) }));
        assert!(!is_stale(&ConversationRow { version: 9, stamped_revision: 1, ..row(1) }));
        assert!(!is_stale(&ConversationRow { version: 9, stamped_revision: 0, state: State::Left, ..row(1) }));
    }
}
