//! Decides which conversations are listed, and which are stale.

use crate::model::{ConversationRow, EpochMs, Membership, Version};

/// Returns whether a conversation is listed: the user is a member, and there is a message that is
/// neither deleted nor older than the membership.
pub(crate) fn is_listed(row: &ConversationRow) -> bool {
    row.is_member()
        && row.key.channel_type.is_listed()
        && row.last_seq > row.deleted_to_seq.max(row.joined_seq)
}

/// Returns whether a walk lists a conversation: also one without messages that the user opened.
pub(crate) fn is_listed_or_activated(row: &ConversationRow) -> bool {
    let is_activated =
        row.is_member() && row.key.channel_type.is_listed() && row.activated_at > EpochMs::ZERO;
    is_activated || is_listed(row)
}

/// Returns whether a conversation is stale: its channel changed since the row was stamped. Users
/// who left get no further changes; users who were removed together with all members get that
/// change.
pub(crate) fn is_stale(row: &ConversationRow) -> bool {
    match row.membership {
        Membership::Member => row.revision > row.stamped_revision || row.version == Version::ZERO,
        Membership::Removed => true,
        Membership::Left | Membership::Absent => false,
    }
}

#[cfg(test)]
pub(crate) fn row(channel_id: i64) -> ConversationRow {
    use crate::model::{ChannelPk, Revision, Seq};
    let key = crate::model::ChannelKey {
        channel_type: crate::model::ChannelType::GROUP,
        key: format!("g{channel_id}"),
    };
    ConversationRow {
        last_seq: Seq(1),
        revision: Revision(1),
        red_dots: 1,
        ..ConversationRow::empty(ChannelPk(channel_id), key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Revision, Seq};

    #[test]
    fn conversations_of_members_are_listed_unless_deleted() {
        assert!(is_listed(&row(1)));
        assert!(!is_listed(&ConversationRow {
            deleted_to_seq: Seq(1),
            ..row(1)
        }));
        assert!(is_listed(&ConversationRow {
            deleted_to_seq: Seq(1),
            last_seq: Seq(2),
            ..row(1)
        }));
        assert!(!is_listed(&ConversationRow {
            joined_seq: Seq(1),
            ..row(1)
        }));
        assert!(!is_listed(&ConversationRow {
            membership: Membership::Left,
            ..row(1)
        }));
    }

    #[test]
    fn walks_list_what_members_have_opened() {
        let empty = ConversationRow {
            deleted_to_seq: Seq(1),
            ..row(1)
        };
        assert!(!is_listed_or_activated(&empty));
        let opened = ConversationRow {
            activated_at: EpochMs(9),
            ..empty
        };
        assert!(is_listed_or_activated(&opened) && !is_listed(&opened));
        assert!(!is_listed_or_activated(&ConversationRow {
            membership: Membership::Left,
            ..opened
        }));
    }

    #[test]
    fn former_members_are_never_stale() {
        assert!(is_stale(&row(1)));
        assert!(is_stale(&ConversationRow {
            version: Version(9),
            stamped_revision: Revision(0),
            ..row(1)
        }));
        assert!(!is_stale(&ConversationRow {
            version: Version(9),
            stamped_revision: Revision(1),
            ..row(1)
        }));
        assert!(!is_stale(&ConversationRow {
            version: Version(9),
            stamped_revision: Revision(0),
            membership: Membership::Left,
            ..row(1)
        }));
        assert!(is_stale(&ConversationRow {
            version: Version(9),
            stamped_revision: Revision(0),
            membership: Membership::Removed,
            ..row(1)
        }));
    }
}
