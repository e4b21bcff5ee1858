//! Decides which conversations a sync returns, which of them it stamps, and which version it
//! returns. Uses no database.

use super::SyncFilter;
use crate::conversation::visibility::{is_listed, is_listed_or_activated, is_stale};
use crate::model::unread::{renew_mark, unread};
use crate::model::{ConversationRow, EpochMs, Version};

/// The plan for the answer of a sync.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SyncPlan {
    /// The rows of the answer with their new versions, by version; stamped rows come last.
    pub(in crate::conversation) rows: Vec<ConversationRow>,
    /// How many of the last rows are stamped. They must be committed before the answer.
    pub(in crate::conversation) stamped_count: usize,
    /// The version to return.
    pub(in crate::conversation) version: Version,
    /// The largest version that had been given before.
    pub(in crate::conversation) cursor: Version,
    /// True if there are more changes after this page.
    pub(in crate::conversation) has_more: bool,
    /// Unchanged rows. The last page may contain them if the client named their channels.
    pub(in crate::conversation) unchanged: Vec<ConversationRow>,
}

/// Plans the answer for a client at `client_version` (0: no data).
///
/// Without `first`: all changes, and everything for version 0. With `first`: a page. Rows that have
/// a version above `client_version` and are not stale come first, by version. Then come the stale
/// rows, which get their versions now, but only those of this page. A row that has a version and is
/// stale belongs to the second phase: with a new version in place it would jump over rows that are
/// not returned yet.
///
/// Versions ascend with last activity: the newest activity gets the largest version.
pub(super) fn plan_sync(
    rows: Vec<ConversationRow>,
    client_version: Version,
    cursor: Version,
    now_ms: EpochMs,
    first: Option<usize>,
) -> SyncPlan {
    let (mut stale, other): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_stale);
    let all = client_version == Version::ZERO && first.is_none();
    let (mut versioned, unchanged): (Vec<_>, Vec<_>) = other
        .into_iter()
        .partition(|row| all || row.version > client_version);
    versioned.sort_by_key(|row| row.version);
    stale.sort_by_key(|row| (row.last_message_at, row.channel_id));

    let size = first.unwrap_or(usize::MAX);
    let mut has_more = versioned.len() > size;
    versioned.truncate(size);
    let room = size - versioned.len();
    has_more |= stale.len() > room;
    stale.truncate(room);

    let mut last = cursor;
    for row in &mut stale {
        last = last.next(now_ms);
        row.version = last;
        row.stamped_revision = row.revision;
        // The row is written anyway; with a new mark, later reads need no counts.
        renew_mark(row);
    }
    let version = match (stale.last(), versioned.last()) {
        (Some(row), _) => row.version,
        (None, Some(row)) if has_more => row.version,
        (None, None) if has_more => client_version,
        _ => cursor,
    };
    let stamped_count = stale.len();
    versioned.append(&mut stale);
    SyncPlan {
        rows: versioned,
        stamped_count,
        version,
        cursor,
        has_more,
        unchanged,
    }
}

impl SyncPlan {
    /// Returns the stamped rows.
    pub(super) fn stamped_rows(&self) -> &[ConversationRow] {
        &self.rows[self.rows.len() - self.stamped_count..]
    }
}

/// Returns whether a row of the answer is returned as a conversation; otherwise it is returned as
/// removed.
pub(super) fn matches_filter(row: &ConversationRow, filter: &SyncFilter) -> bool {
    let is_shown = if filter.include_activated {
        is_listed_or_activated(row)
    } else {
        is_listed(row)
    };
    is_shown
        && !(filter.only_unread && unread(row) == 0)
        && !filter
            .exclude_channel_types
            .contains(&row.key.channel_type.number())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::visibility::row;
    use crate::model::Revision;

    fn plan(
        rows: Vec<ConversationRow>,
        client_version: i64,
        cursor: i64,
        now_ms: i64,
        first: Option<usize>,
    ) -> SyncPlan {
        let (client_version, cursor) = (Version(client_version), Version(cursor));
        plan_sync(rows, client_version, cursor, EpochMs(now_ms), first)
    }

    fn stale(channel_id: i64, at: i64) -> ConversationRow {
        ConversationRow {
            last_message_at: EpochMs(at),
            version: Version(1),
            stamped_revision: Revision(0),
            ..row(channel_id)
        }
    }

    fn at_version(channel_id: i64, version: i64) -> ConversationRow {
        ConversationRow {
            version: Version(version),
            stamped_revision: Revision(1),
            ..row(channel_id)
        }
    }

    fn versions(plan: &SyncPlan) -> Vec<(i64, i64)> {
        plan.rows
            .iter()
            .map(|row| (row.channel_id.0, row.version.0))
            .collect()
    }

    #[test]
    fn stale_rows_get_versions_above_cursor_and_clock_in_order_of_activity() {
        let result = plan(
            vec![stale(1, 30), stale(2, 10), stale(3, 20)],
            5,
            100,
            50,
            None,
        );
        assert_eq!(versions(&result), [(2, 101), (3, 102), (1, 103)]);
        assert_eq!(result.version.0, 103);
        let result = plan(vec![stale(1, 30)], 5, 100, 5000, None);
        assert_eq!(versions(&result), [(1, 5000)]);
    }

    #[test]
    fn stamped_rows_have_the_revision_that_was_read() {
        let result = plan(
            vec![ConversationRow {
                revision: Revision(7),
                ..stale(1, 1)
            }],
            0,
            0,
            10,
            None,
        );
        assert_eq!(
            result
                .stamped_rows()
                .iter()
                .map(|row| (row.version.0, row.stamped_revision.0))
                .collect::<Vec<_>>(),
            [(10, 7)]
        );
    }

    #[test]
    fn without_stale_rows_the_version_is_the_cursor() {
        let result = plan(
            vec![at_version(1, 40), at_version(2, 30)],
            20,
            90,
            1000,
            None,
        );
        assert_eq!(
            (versions(&result), result.version.0, result.stamped_count),
            (vec![(2, 30), (1, 40)], 90, 0)
        );
    }

    #[test]
    fn a_page_returns_the_version_of_its_last_row_while_there_is_more() {
        let rows = vec![at_version(1, 40), at_version(2, 30), stale(3, 1)];
        let result = plan(rows.clone(), 20, 90, 0, Some(1));
        assert_eq!(
            (versions(&result), result.version.0, result.has_more),
            (vec![(2, 30)], 30, true)
        );
        let result = plan(rows.clone(), 30, 90, 0, Some(1));
        assert_eq!(
            (versions(&result), result.version.0, result.has_more),
            (vec![(1, 40)], 40, true)
        );
        let result = plan(rows.clone(), 40, 90, 0, Some(1));
        assert_eq!(
            (versions(&result), result.version.0, result.has_more),
            (vec![(3, 91)], 91, false)
        );
        let result = plan(rows, 20, 90, 0, Some(2));
        assert_eq!(
            (versions(&result), result.version.0, result.has_more),
            (vec![(2, 30), (1, 40)], 40, true)
        );
    }

    #[test]
    fn a_versioned_and_stale_row_belongs_to_the_second_phase() {
        // A new version in place would raise the page's version above row 2, which would be lost.
        let both = ConversationRow {
            version: Version(30),
            ..stale(1, 1)
        };
        let result = plan(vec![both, at_version(2, 40)], 20, 90, 0, Some(1));
        assert_eq!(
            (versions(&result), result.version.0, result.has_more),
            (vec![(2, 40)], 40, true)
        );
    }

    #[test]
    fn an_empty_page_keeps_the_version_of_the_client() {
        let result = plan(vec![at_version(1, 40), stale(2, 1)], 20, 90, 0, Some(0));
        assert_eq!(
            (versions(&result), result.version.0, result.has_more),
            (vec![], 20, true)
        );
    }

    #[test]
    fn only_the_stale_rows_of_the_page_are_stamped() {
        let result = plan(
            vec![stale(1, 1), stale(2, 2), stale(3, 3)],
            5,
            10,
            0,
            Some(2),
        );
        assert_eq!(
            (versions(&result), result.version.0, result.has_more),
            (vec![(1, 11), (2, 12)], 12, true)
        );
        assert_eq!(result.stamped_count, 2);
    }
}
