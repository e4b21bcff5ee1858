//! Fetches the missing messages of one channel.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{RepairError, RepairSummary, Repairer};
use crate::config::WukongimVersion;
use crate::message::{IncomingMessage, MessageBatch, ingest};
use crate::model::{ChannelHead, ChannelPk, Seq};
use crate::store::{Store, StoreError, StoredPlace};
use crate::upstream::{ChannelHistory, HistoryPage};
use crate::wukongim::{MessageDecoder, SourceDialect};

/// Number of seqs that are read at once.
const SEQS_PER_STATEMENT: u64 = 10_000;

/// Returns the ranges of `within` without a message.
pub(super) async fn find_gaps(
    store: &Store,
    channel_id: ChannelPk,
    within: RangeInclusive<Seq>,
) -> Result<Vec<RangeInclusive<Seq>>, StoreError> {
    let mut gaps = Vec::new();
    let mut next = *within.start();
    while next <= *within.end() {
        let range = next..=*within.end();
        let seqs = store
            .list_seqs(channel_id, &range, SEQS_PER_STATEMENT)
            .await?;
        for seq in &seqs {
            if *seq > next {
                gaps.push(next..=seq.previous());
            }
            next = seq.next();
        }
        if (seqs.len() as u64) < SEQS_PER_STATEMENT {
            if next <= *within.end() {
                gaps.push(next..=*within.end());
            }
            break;
        }
    }
    Ok(gaps)
}

/// The outcome of fetching a range.
#[derive(Clone, Copy, Debug, Default)]
struct Fetched {
    stored: u64,
    overdue: u64,
    /// True if an answer contained the message beside the missing ones. This shows that it is the
    /// history of this channel, and complete in this range.
    is_confirmed: bool,
}

impl Fetched {
    fn add(&mut self, other: Self) {
        self.stored += other.stored;
        self.overdue += other.overdue;
        self.is_confirmed |= other.is_confirmed;
    }
}

impl RepairSummary {
    fn count(&mut self, fetched: Fetched) {
        self.stored += fetched.stored;
        self.overdue += fetched.overdue;
    }
}

impl Repairer {
    /// Fetches the messages between stored ones, and those before the first one.
    pub(super) async fn fill_gaps(&self, head: &ChannelHead) -> Result<RepairSummary, RepairError> {
        let mut summary = RepairSummary {
            channels: 1,
            ..RepairSummary::default()
        };
        let mut begin_is_known = head.gaps.begins_at <= Seq(1);
        if head.gaps.begins_at > Seq(1) {
            let fetched = self.fetch_older(head, head.gaps.begins_at).await?;
            summary.count(fetched);
            begin_is_known = fetched.is_confirmed;
        }
        let store = &self.services.base.store;
        let range = head.gaps.complete_to.next()..=head.last_seq;
        let mut is_confirmed = true;
        if head.gaps.missing > 0 {
            for gap in find_gaps(store, head.id, range.clone()).await? {
                let below = Some(gap.end().plus(2));
                let fetched = self.fetch_newer(head, *gap.start(), below).await?;
                summary.count(fetched);
                is_confirmed &= fetched.is_confirmed;
            }
        }
        summary.absent = self
            .close_gaps(head.id, &range, is_confirmed, begin_is_known)
            .await?;
        // Otherwise the channel would be asked for again at once.
        if is_confirmed && begin_is_known {
            Ok(summary)
        } else {
            Err(RepairError::Channel(
                "the WuKongIM does not have the messages beside the missing ones".to_owned(),
            ))
        }
    }

    /// Records what was found. Seqs that are still without a message after a confirmed answer are
    /// not expected any more. Returns their number.
    async fn close_gaps(
        &self,
        channel_id: ChannelPk,
        range: &RangeInclusive<Seq>,
        is_confirmed: bool,
        begin_is_known: bool,
    ) -> Result<u64, RepairError> {
        let store = &self.services.base.store;
        let absent = store
            .lock_waiting_transaction(|tx| async move {
                let Some(mut head) = tx.lock_channel(channel_id).await? else {
                    return Ok(0);
                };
                let before = head.gaps;
                let mut absent = 0;
                // Another server may have closed the same gaps.
                if is_confirmed && before.missing > 0 && before.complete_to.next() == *range.start()
                {
                    let length = range.end().distance_from(*range.start()) + 1;
                    absent = length - tx.count_messages(channel_id, range).await?;
                    head.gaps.give_up(*range.end(), absent);
                }
                if begin_is_known {
                    head.gaps.begin_known();
                }
                if head.gaps != before {
                    tx.write_heads(&[&head]).await?;
                }
                tx.commit(absent).await
            })
            .await?;
        Ok(u64::try_from(absent).unwrap_or_default())
    }

    /// Fetches the messages above the newest one that is stored.
    pub(super) async fn fetch_newest(
        &self,
        head: &ChannelHead,
    ) -> Result<RepairSummary, RepairError> {
        let mut summary = RepairSummary {
            channels: 1,
            ..RepairSummary::default()
        };
        let newest = self.newest_seq(head).await?;
        if newest > head.last_seq {
            summary.count(if head.last_seq == Seq::ZERO {
                self.fetch_older(head, newest).await?
            } else {
                self.fetch_newer(head, head.last_seq, None).await?
            });
        }
        Ok(summary)
    }

    async fn newest_seq(&self, head: &ChannelHead) -> Result<Seq, RepairError> {
        let mut newest = Seq::ZERO;
        for history in ChannelHistory::of(&head.key) {
            newest = newest.max(history.newest_seq(&self.client).await?);
            // Only v3's answer depends on the user.
            if self.version != WukongimVersion::V3 {
                break;
            }
        }
        Ok(newest)
    }

    fn decoder(&self) -> MessageDecoder<'_> {
        MessageDecoder {
            dialect: SourceDialect::of_webhooks(self.version),
            limits: &self.services.base.limits,
            clock: &self.services.base.clock,
        }
    }

    /// Fetches and stores the messages from `from` on, and below `below` if it is given.
    async fn fetch_newer(
        &self,
        head: &ChannelHead,
        from: Seq,
        below: Option<Seq>,
    ) -> Result<Fetched, RepairError> {
        // The message beside the missing ones, which is stored here.
        let boundary = below.map_or(from, Seq::previous);
        let mut total = Fetched::default();
        for history in ChannelHistory::of(&head.key) {
            let mut next = from;
            loop {
                let page = history
                    .newer(&self.client, self.decoder(), next, below)
                    .await?;
                let end = page.seqs.map(|(_, highest)| highest);
                let has_more = page.more;
                let fetched = self.store(head, page, boundary).await?;
                total.add(fetched);
                match end {
                    Some(end) if has_more && end >= next => next = end.next(),
                    _ => break,
                }
            }
            if total.is_confirmed {
                break;
            }
        }
        Ok(total)
    }

    /// Fetches and stores the messages up to `from`, back to the time of the first webhook.
    async fn fetch_older(&self, head: &ChannelHead, from: Seq) -> Result<Fetched, RepairError> {
        let mut total = Fetched::default();
        for history in ChannelHistory::of(&head.key) {
            let mut pages = Vec::new();
            let mut next = from;
            loop {
                let mut page = history.older(&self.client, self.decoder(), next).await?;
                let start = page.seqs.map(|(lowest, _)| lowest);
                let count = page.messages.len();
                page.messages
                    .retain(|incoming| incoming.message.sent_at >= self.began_at);
                let reached_begin = page.messages.len() < count;
                let has_more = page.more && !reached_begin;
                pages.push(page);
                match start {
                    Some(start) if has_more && start > Seq(1) && start <= next => {
                        next = start.previous();
                    }
                    _ => break,
                }
            }
            // In ascending order, so that few messages are late.
            for page in pages.into_iter().rev() {
                let fetched = self.store(head, page, from).await?;
                total.add(fetched);
            }
            if total.is_confirmed {
                break;
            }
        }
        Ok(total)
    }

    /// Stores a page, and tells whether it fits to the messages that are stored here.
    async fn store(
        &self,
        head: &ChannelHead,
        mut page: HistoryPage,
        boundary: Seq,
    ) -> Result<Fetched, RepairError> {
        let known = self.find_known(head.id, &page).await?;
        for incoming in &page.messages {
            let message = &incoming.message;
            if let Some(known) = known.get(&message.seq)
                && known.message_id != message.message_id
            {
                return Err(RepairError::Channel(format!(
                    "message {} has the id {} there and {} here: is it the WuKongIM that sends the webhooks?",
                    message.seq.0, message.message_id, known.message_id
                )));
            }
        }
        if self.has_lost_red_dots(&page.messages, &known) {
            for incoming in &mut page.messages {
                incoming.message.red_dot = true;
            }
        }
        // Other known messages may have been fetched from there before.
        let is_confirmed = known.contains_key(&boundary)
            && page
                .messages
                .iter()
                .any(|incoming| incoming.message.seq == boundary);
        page.messages
            .retain(|incoming| !known.contains_key(&incoming.message.seq));
        if page.messages.is_empty() {
            return Ok(Fetched {
                is_confirmed,
                ..Fetched::default()
            });
        }
        let overdue = page.messages.iter();
        let overdue = overdue.filter(|incoming| incoming.message.sent_at < self.overdue_before);
        let overdue = overdue.count() as u64;
        let batch = Arc::new(MessageBatch {
            messages: page.messages,
            recipients: None,
        });
        let report = ingest(&self.services.messages, Arc::clone(&batch)).await?;
        if let Some(member_lookup) = &self.services.member_lookup {
            // Their lists of recipients are lost.
            member_lookup.enqueue_unknown(&batch.messages, true);
        }
        metrics::counter!(crate::metrics::REPAIRED_MESSAGES_TOTAL).increment(report.stored);
        Ok(Fetched {
            stored: report.stored,
            overdue: overdue.min(report.stored),
            is_confirmed,
        })
    }

    /// Returns the stored messages among those of a page.
    async fn find_known(
        &self,
        channel_id: ChannelPk,
        page: &HistoryPage,
    ) -> Result<HashMap<Seq, StoredPlace>, StoreError> {
        let Some((lowest, highest)) = page.seqs else {
            return Ok(HashMap::new());
        };
        let store = &self.services.base.store;
        let places = store.list_places(channel_id, &(lowest..=highest)).await?;
        Ok(places.into_iter().map(|place| (place.seq, place)).collect())
    }

    /// v1 keeps red dots. v3 keeps none. v2 keeps those of recent messages in memory, so a message
    /// that is known with a red dot shows whether it has kept them.
    fn has_lost_red_dots(
        &self,
        messages: &[IncomingMessage],
        known: &HashMap<Seq, StoredPlace>,
    ) -> bool {
        match self.version {
            WukongimVersion::V1 => false,
            WukongimVersion::V3 => true,
            WukongimVersion::V2 => {
                let has_lost = |incoming: &IncomingMessage| {
                    !incoming.message.red_dot
                        && known
                            .get(&incoming.message.seq)
                            .is_some_and(|known| known.red_dot)
                };
                messages.iter().any(has_lost)
                    || messages.iter().all(|incoming| !incoming.message.red_dot)
            }
        }
    }
}
