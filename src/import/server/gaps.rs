//! The seqs of a channel that are not stored here: seqs are dense, so these messages are missing,
//! or do not exist there either.

use crate::model::{ChannelKey, Seq};
use crate::store::{Store, StoreError};

/// Number of seqs that are read at once.
const SEQS_PER_STATEMENT: u64 = 1_000;
/// Gaps that lie within this many seqs are requested together.
const MAX_JOINED: i64 = 500;

/// The result of looking at some of the stored seqs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// These seqs are missing, and perhaps some stored ones between them are not.
    Gap(Seq, Seq),
    /// Everything below this seq is stored.
    ContinueAt(Seq),
    Complete,
}

/// Returns the first range from `from` to `to` that begins and ends with a seq without a message.
pub(in crate::import) async fn next_gap(
    store: &Store,
    key: &ChannelKey,
    mut from: Seq,
    to: Seq,
) -> Result<Option<(Seq, Seq)>, StoreError> {
    let channel_id = store.find_channel(key).await?;
    loop {
        if from > to {
            return Ok(None);
        }
        let stored = match channel_id {
            Some(channel_id) => {
                store
                    .list_seqs(channel_id, &(from..=to), SEQS_PER_STATEMENT)
                    .await?
            }
            None => Vec::new(),
        };
        let is_all = (stored.len() as u64) < SEQS_PER_STATEMENT;
        match first_gap(from, to, &stored, is_all) {
            Search::Gap(start, end) => return Ok(Some((start, end))),
            Search::ContinueAt(next) => from = next,
            Search::Complete => return Ok(None),
        }
    }
}

/// Looks for a gap among the stored seqs from `from` on, which are in ascending order. `is_all`
/// says that there are no others up to `to`.
fn first_gap(from: Seq, to: Seq, stored: &[Seq], is_all: bool) -> Search {
    let mut start = from;
    let mut rest = stored.iter().copied();
    let after = loop {
        match rest.next() {
            Some(seq) if seq == start => start = start.next(),
            after => break after,
        }
    };
    let Some(after) = after else {
        return match is_all {
            true if start > to => Search::Complete,
            true => Search::Gap(start, to),
            false => Search::ContinueAt(start),
        };
    };
    let (mut end, mut next) = (after.previous(), after.next());
    for seq in rest {
        if seq.distance_from(start) > MAX_JOINED {
            break;
        }
        if seq > next {
            end = seq.previous();
        }
        next = seq.next();
    }
    Search::Gap(start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(from: i64, to: i64, stored: &[i64], is_all: bool) -> Search {
        let stored: Vec<Seq> = stored.iter().copied().map(Seq).collect();
        first_gap(Seq(from), Seq(to), &stored, is_all)
    }

    #[test]
    fn gaps_are_found_and_near_ones_joined() {
        let gap = |start, end| Search::Gap(Seq(start), Seq(end));
        assert_eq!(search(1, 3, &[1, 2, 3], true), Search::Complete);
        assert_eq!(search(1, 9, &[1, 2], false), Search::ContinueAt(Seq(3)));
        assert_eq!(search(1, 9, &[], true), gap(1, 9));
        assert_eq!(search(1, 9, &[1, 2], true), gap(3, 9));
        assert_eq!(search(4, 9, &[7, 8, 9], true), gap(4, 6));
        assert_eq!(search(1, 9, &[1, 3, 4, 6, 7, 8, 9], true), gap(2, 5));
        // The end of the second gap is too far away.
        assert_eq!(search(1, 900, &[1, 4, 600, 900], true), gap(2, 3));
        // A gap itself may be long.
        assert_eq!(search(1, 9_000, &[1, 8_000, 9_000], true), gap(2, 7_999));
    }
}
