//! Which conversations a sync answers with, which of them it stamps, and with what: without a
//! database.

use super::unread::{renew_mark, unread};
use super::visibility::{is_listed, is_stale};
use crate::ids::Version;
use crate::store::ConversationRow;

/// What a sync answers with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The rows of the answer, their new versions in them: by version, the stale ones last.
    pub(super) rows: Vec<ConversationRow>,
    /// How many of them, the last ones, are stamped: they must be committed before the answer.
    pub(super) stamped: usize,
    /// The version to return.
    pub(super) version: Version,
    /// The largest version that had been given out before.
    pub(super) cursor: Version,
    /// Whether there is more after this page.
    pub(super) has_more: bool,
    /// Rows that did not change; on the last page they may be returned because the client named
    /// them.
    pub(super) rest: Vec<ConversationRow>,
}

/// Plans the answer to somebody who has seen everything up to `since` (0: nothing).
///
/// Without `first`: everything that changed, and for 0 everything. With `first`: a page; rows that
/// have a version above `since` and are not stale come first, by version; then the stale ones,
/// which get their versions now, and only those of this page. A row that is both belongs to the
/// second phase: stamped in place it would jump over rows not yet returned.
///
/// Versions ascend with last activity: the newest gets the largest.
pub(super) fn plan(
    rows: Vec<ConversationRow>,
    since: Version,
    cursor: Version,
    now_ms: i64,
    first: Option<usize>,
) -> Plan {
    let (mut stale, other): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_stale);
    let all = since == 0 && first.is_none();
    let (mut versioned, rest): (Vec<_>, Vec<_>) = other
        .into_iter()
        .partition(|row| all || row.version > since);
    versioned.sort_by_key(|row| row.version);
    stale.sort_by_key(|row| (row.last_message_at, row.channel_id));

    let size = first.unwrap_or(usize::MAX);
    let mut has_more = versioned.len() > size;
    versioned.truncate(size);
    let room = size - versioned.len();
    has_more |= stale.len() > room;
    stale.truncate(room);

    let mut last = cursor.max(now_ms - 1);
    for row in &mut stale {
        last += 1;
        row.version = last;
        row.stamped_revision = row.revision;
        // The row is written anyway: later reads of it have nothing to look for.
        renew_mark(row);
    }
    let version = match (stale.last(), versioned.last()) {
        (Some(row), _) => row.version,
        (None, Some(row)) if has_more => row.version,
        (None, None) if has_more => since,
        _ => cursor,
    };
    let stamped = stale.len();
    versioned.append(&mut stale);
    Plan {
        rows: versioned,
        stamped,
        version,
        cursor,
        has_more,
        rest,
    }
}

impl Plan {
    /// The rows that are stamped.
    pub(super) fn stamps(&self) -> &[ConversationRow] {
        &self.rows[self.rows.len() - self.stamped..]
    }
}

/// Whether a row of the answer shows as a conversation (or is told as removed).
pub(super) fn shows(row: &ConversationRow, only_unread: bool, excluded: &[u8]) -> bool {
    is_listed(row)
        && !(only_unread && unread(row) == 0)
        && !excluded.contains(&row.key.channel_type.number())
}

#[cfg(test)]
mod tests {
    use super::super::visibility::row;
    use super::*;

    fn stale(channel_id: i64, at: i64) -> ConversationRow {
        ConversationRow {
            last_message_at: at,
            version: 1,
            stamped_revision: 0,
            ..row(channel_id)
        }
    }

    fn at_version(channel_id: i64, version: Version) -> ConversationRow {
        ConversationRow {
            version,
            stamped_revision: 1,
            ..row(channel_id)
        }
    }

    fn versions(plan: &Plan) -> Vec<(i64, Version)> {
        plan.rows
            .iter()
            .map(|row| (row.channel_id, row.version))
            .collect()
    }

    #[test]
    fn stale_rows_get_versions_in_order_of_last_activity_above_the_cursor_and_the_clock() {
        let result = plan(
            vec![stale(1, 30), stale(2, 10), stale(3, 20)],
            5,
            100,
            50,
            None,
        );
        assert_eq!(versions(&result), [(2, 101), (3, 102), (1, 103)]);
        assert_eq!(result.version, 103);
        let result = plan(vec![stale(1, 30)], 5, 100, 5000, None);
        assert_eq!(versions(&result), [(1, 5000)]);
    }

    #[test]
    fn the_stamp_carries_the_revision_that_was_read() {
        let result = plan(
            vec![ConversationRow {
                revision: 7,
                ..stale(1, 1)
            }],
            0,
            0,
            10,
            None,
        );
        assert_eq!(
            result
                .stamps()
                .iter()
                .map(|row| (row.version, row.stamped_revision))
                .collect::<Vec<_>>(),
            [(10, 7)]
        );
    }

    #[test]
    fn without_stale_rows_the_cursor_is_the_answer() {
        let result = plan(
            vec![at_version(1, 40), at_version(2, 30)],
            20,
            90,
            1000,
            None,
        );
        assert_eq!(
            (versions(&result), result.version, result.stamped),
            (vec![(2, 30), (1, 40)], 90, 0)
        );
    }

    #[test]
    fn a_page_returns_the_version_of_its_last_row_while_there_is_more() {
        let rows = vec![at_version(1, 40), at_version(2, 30), stale(3, 1)];
        let result = plan(rows.clone(), 20, 90, 0, Some(1));
        assert_eq!(
            (versions(&result), result.version, result.has_more),
            (vec![(2, 30)], 30, true)
        );
        let result = plan(rows.clone(), 30, 90, 0, Some(1));
        assert_eq!(
            (versions(&result), result.version, result.has_more),
            (vec![(1, 40)], 40, true)
        );
        let result = plan(rows.clone(), 40, 90, 0, Some(1));
        assert_eq!(
            (versions(&result), result.version, result.has_more),
            (vec![(3, 91)], 91, false)
        );
        let result = plan(rows, 20, 90, 0, Some(2));
        assert_eq!(
            (versions(&result), result.version, result.has_more),
            (vec![(2, 30), (1, 40)], 40, true)
        );
    }

    #[test]
    fn a_row_that_is_versioned_and_stale_waits_for_the_second_phase() {
        // Stamped in place it would lift the page's version over row 2, which would be lost.
        let both = ConversationRow {
            version: 30,
            ..stale(1, 1)
        };
        let result = plan(vec![both, at_version(2, 40)], 20, 90, 0, Some(1));
        assert_eq!(
            (versions(&result), result.version, result.has_more),
            (vec![(2, 40)], 40, true)
        );
    }

    #[test]
    fn an_empty_page_moves_nobody() {
        let result = plan(vec![at_version(1, 40), stale(2, 1)], 20, 90, 0, Some(0));
        assert_eq!(
            (versions(&result), result.version, result.has_more),
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
            (versions(&result), result.version, result.has_more),
            (vec![(1, 11), (2, 12)], 12, true)
        );
        assert_eq!(result.stamped, 2);
    }
}
