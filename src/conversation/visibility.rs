//! Which conversations show, and which have changed since their last version.

use crate::store::{ConversationRow, Membership};

/// A conversation shows if the user is in the channel, and there is a message that was neither
/// deleted nor before the user joined.
pub(crate) fn is_listed(row: &ConversationRow) -> bool {
    row.is_member()
        && row.key.channel_type.is_listed()
        && row.last_seq > row.deleted_to_seq.max(row.joined_seq)
}

/// A conversation is stale if its channel changed since the row was stamped. A user who left is
/// told nothing more; one who was removed with everybody is told that.
pub(crate) fn is_stale(row: &ConversationRow) -> bool {
    match row.membership {
        Membership::Member => row.revision > row.stamped_revision || row.version == 0,
        Membership::Removed => true,
        Membership::Left | Membership::Absent => false,
    }
}

#[cfg(test)]
pub(crate) fn row(channel_id: i64) -> ConversationRow {
    let key = crate::channel::ChannelKey {
        channel_type: crate::ids::ChannelType::GROUP,
        key: format!("g{channel_id}"),
    };
    ConversationRow {
        last_seq: 1,
        revision: 1,
        red_dots: 1,
        ..ConversationRow::empty(channel_id, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_see_what_they_did_not_delete() {
        assert!(is_listed(&row(1)));
        assert!(!is_listed(&ConversationRow {
            deleted_to_seq: 1,
            ..row(1)
        }));
        assert!(is_listed(&ConversationRow {
            deleted_to_seq: 1,
            last_seq: 2,
            ..row(1)
        }));
        assert!(!is_listed(&ConversationRow {
            joined_seq: 1,
            ..row(1)
        }));
        assert!(!is_listed(&ConversationRow {
            membership: Membership::Left,
            ..row(1)
        }));
    }

    #[test]
    fn former_members_are_never_stale() {
        assert!(is_stale(&row(1)));
        assert!(is_stale(&ConversationRow {
            version: 9,
            stamped_revision: 0,
            ..row(1)
        }));
        assert!(!is_stale(&ConversationRow {
            version: 9,
            stamped_revision: 1,
            ..row(1)
        }));
        assert!(!is_stale(&ConversationRow {
            version: 9,
            stamped_revision: 0,
            membership: Membership::Left,
            ..row(1)
        }));
        assert!(is_stale(&ConversationRow {
            version: 9,
            stamped_revision: 0,
            membership: Membership::Removed,
            ..row(1)
        }));
    }
}
