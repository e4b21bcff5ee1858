//! The messages of a channel that have not arrived.
//!
//! The seqs of a channel are dense in every version of `WuKongIM`, so a jump shows that a message
//! is on its way, or lost.

use super::{EpochMs, Seq};

/// The seqs of a channel without a message, counted when messages are stored. The seqs themselves
/// are found by reading those of the stored messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelGaps {
    /// Up to this seq no message is expected any more: it is stored, or nobody has it, or it is
    /// older than the first message of the channel that arrived here.
    pub complete_to: Seq,
    /// Number of seqs above `complete_to` and below the newest message without a message.
    pub missing: i64,
    /// The first message that arrived, if the `WuKongIM` was not asked for earlier ones yet;
    /// otherwise 0.
    pub begins_at: Seq,
    /// Since when messages are missing or earlier ones were not asked for; otherwise 0.
    pub since: EpochMs,
}

impl ChannelGaps {
    /// Counts a message above the newest one. `newest` is 0 before the first message.
    pub(crate) fn append(&mut self, newest: Seq, seq: Seq, now: EpochMs) {
        if newest == Seq::ZERO {
            if seq > Seq(1) {
                self.begins_at = seq;
                self.open(now);
            }
            self.complete_to = Seq(seq.0 - 1);
            return;
        }
        if self.missing == 0 {
            self.complete_to = newest;
        }
        let skipped = seq.0 - newest.0 - 1;
        if skipped > 0 {
            self.missing += skipped;
            self.open(now);
        }
    }

    /// Counts a message below the newest one.
    pub(crate) fn insert(&mut self, seq: Seq) {
        if seq.next() == self.begins_at {
            self.begins_at = seq;
        }
        if seq > self.complete_to && self.missing > 0 {
            self.missing -= 1;
        }
        self.close_if_complete();
    }

    /// Gives up the seqs up to `to` that are still without a message; `absent` is their number.
    pub(crate) fn give_up(&mut self, to: Seq, absent: i64) {
        self.missing = (self.missing - absent).max(0);
        self.complete_to = self.complete_to.max(to);
        self.close_if_complete();
    }

    /// Records that the `WuKongIM` was asked for the messages before the first one.
    pub(crate) fn begin_known(&mut self) {
        self.begins_at = Seq::ZERO;
        self.close_if_complete();
    }

    fn open(&mut self, now: EpochMs) {
        if self.since.0 == 0 {
            self.since = now;
        }
    }

    fn close_if_complete(&mut self) {
        if self.missing == 0 && self.begins_at <= Seq(1) {
            self.begins_at = Seq::ZERO;
            self.since = EpochMs(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: EpochMs = EpochMs(7);

    /// Stores messages in this order; returns the gaps and the newest seq.
    fn after(seqs: &[i64]) -> (ChannelGaps, Seq) {
        let (mut gaps, mut newest) = (ChannelGaps::default(), Seq::ZERO);
        for seq in seqs.iter().copied().map(Seq) {
            if seq > newest {
                gaps.append(newest, seq, NOW);
                newest = seq;
            } else {
                gaps.insert(seq);
            }
        }
        (gaps, newest)
    }

    #[test]
    fn a_jump_is_missing_until_it_is_filled() {
        let (gaps, _) = after(&[1, 2, 5]);
        assert_eq!((gaps.complete_to, gaps.missing), (Seq(2), 2));
        assert_eq!(gaps.since, NOW);
        let (gaps, _) = after(&[1, 2, 5, 4, 3]);
        assert_eq!((gaps.missing, gaps.since), (0, EpochMs(0)));
    }

    #[test]
    fn messages_before_the_first_one_are_not_missing() {
        let (gaps, _) = after(&[40, 41]);
        assert_eq!(
            (gaps.missing, gaps.begins_at, gaps.since),
            (0, Seq(40), NOW)
        );
        let (mut gaps, _) = after(&[40, 41, 39, 7]);
        assert_eq!((gaps.missing, gaps.begins_at), (0, Seq(39)));
        gaps.begin_known();
        assert_eq!((gaps.begins_at, gaps.since), (Seq::ZERO, EpochMs(0)));
        // The first two arrived in the wrong order.
        assert_eq!(after(&[2, 1]).0.since, EpochMs(0));
    }

    #[test]
    fn seqs_that_were_given_up_do_not_count_again() {
        let (mut gaps, newest) = after(&[1, 5, 9]);
        assert_eq!(gaps.missing, 6);
        gaps.give_up(Seq(5), 3);
        assert_eq!((gaps.missing, gaps.complete_to), (3, Seq(5)));
        gaps.insert(Seq(3));
        assert_eq!(gaps.missing, 3, "3 was given up");
        gaps.give_up(newest, 3);
        assert_eq!((gaps.missing, gaps.since), (0, EpochMs(0)));
    }

    proptest! {
        #[test]
        fn the_number_is_that_of_the_seqs_without_a_message(
            seqs in Just((1..=12).collect::<Vec<i64>>()).prop_shuffle(),
            count in 1..12_usize,
        ) {
            let stored: BTreeSet<i64> = seqs[..count].iter().copied().collect();
            let (gaps, newest) = after(&seqs[..count]);
            let expected = (gaps.complete_to.0 + 1..=newest.0).filter(|seq| !stored.contains(seq));
            prop_assert_eq!(gaps.missing, i64::try_from(expected.count()).unwrap());
            let is_open = gaps.missing > 0 || gaps.begins_at > Seq(1);
            prop_assert_eq!(gaps.since == NOW, is_open);
        }
    }
}
