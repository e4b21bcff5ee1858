//! Lists the messages that have not arrived.

use std::ops::RangeInclusive;

use super::channel::find_gaps;
use crate::error::Error;
use crate::model::{ChannelKey, Seq};
use crate::store::Store;

const CHANNELS_PER_STATEMENT: u64 = 500;

/// The messages of a channel that have not arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapReport {
    /// The channel.
    pub key: ChannelKey,
    /// The missing seqs.
    pub gaps: Vec<RangeInclusive<Seq>>,
}

impl GapReport {
    /// Returns the number of missing messages.
    #[must_use]
    pub fn missing(&self) -> i64 {
        let lengths = self.gaps.iter();
        lengths
            .map(|gap| gap.end().distance_from(*gap.start()) + 1)
            .sum()
    }
}

impl std::fmt::Display for GapReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (channel_type, missing) = (self.key.channel_type.number(), self.missing());
        match self.key.pair() {
            Some((one, other)) => write!(f, "persons {one} and {other}")?,
            None => write!(f, "channel {}, type {channel_type}", self.key.key)?,
        }
        write!(f, ": {missing} missing:")?;
        for gap in &self.gaps {
            if gap.start() == gap.end() {
                write!(f, " {}", gap.start().0)?;
            } else {
                write!(f, " {}-{}", gap.start().0, gap.end().0)?;
            }
        }
        Ok(())
    }
}

/// Calls `report` for each channel with missing messages.
///
/// # Errors
/// [`Error::Store`]
pub async fn list_gaps(store: &Store, mut report: impl FnMut(GapReport)) -> Result<(), Error> {
    let mut after = None;
    loop {
        let heads = store
            .list_channels_after(after, CHANNELS_PER_STATEMENT)
            .await?;
        let Some(last) = heads.last() else {
            return Ok(());
        };
        after = Some(last.id);
        for head in heads.into_iter().filter(|head| head.gaps.missing > 0) {
            let range = head.gaps.complete_to.next()..=head.last_seq;
            let gaps = find_gaps(store, head.id, range).await?;
            if !gaps.is_empty() {
                report(GapReport {
                    key: head.key,
                    gaps,
                });
            }
        }
    }
}
