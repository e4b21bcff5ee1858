//! Looks for messages that are only there. Seqs are dense, so the number of stored messages shows
//! whether there are any.

use super::{Comparer, Comparison, name};
use crate::import::decode::decode_messages;
use crate::import::server::next_gap;
use crate::import::source::seq_of;
use crate::model::{ChannelKey, ChannelRef, Seq, Uid};
use crate::store::{FindMessages, SeqRange};
use crate::upstream::RequestError;

impl Comparer {
    /// Compares the messages of a channel up to the last one there, once for all users.
    pub(super) async fn compare_messages(
        &self,
        uid: &Uid,
        channel: &ChannelRef,
        key: &ChannelKey,
        last_seq: Seq,
        loses_red_dots: bool,
    ) -> anyhow::Result<()> {
        let before = {
            // Locked, so that two users do not both compare the channel.
            let mut result = self.result();
            let before = self.compared.get(key).unwrap_or_default();
            if before >= last_seq {
                return Ok(());
            }
            self.compared.insert(key.clone(), last_seq);
            result.messages += u64::try_from(last_seq.distance_from(before))?;
            before
        };
        let from = before.next();
        let store = &self.core.base.store;
        if let Some(channel_id) = store.find_channel(key).await? {
            let range = SeqRange {
                channel_id,
                from,
                to: last_seq,
            };
            let counts = store.count_stored(&[range]).await?;
            if counts.get(&channel_id).copied().unwrap_or_default() > last_seq.distance_from(from) {
                return Ok(());
            }
        }
        let counted = self
            .count_missing(uid, channel, key, (from, last_seq), loses_red_dots)
            .await;
        match counted {
            Ok(Ok(0)) => {}
            Ok(Ok(missing)) => {
                let mut described = Comparison::default();
                described.record_many("missing messages", missing, || {
                    format!("{}: {missing} messages are not here", name(channel))
                });
                self.result().add(described);
            }
            Ok(Err(error)) => return self.accept_failure(&name(channel), &error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Counts the messages of a range that are there and not here.
    async fn count_missing(
        &self,
        uid: &Uid,
        channel: &ChannelRef,
        key: &ChannelKey,
        (from, to): (Seq, Seq),
        loses_red_dots: bool,
    ) -> anyhow::Result<Result<u64, RequestError>> {
        let store = &self.core.base.store;
        let (mut next, mut missing) = (from, 0);
        while let Some((start, end)) = next_gap(store, key, next, to).await? {
            let mut at = start;
            loop {
                let page = match self.source.newer(uid, channel, at, Some(end)).await {
                    Ok(page) => page,
                    Err(error) => return Ok(Err(error)),
                };
                let last = page.messages.iter().filter_map(seq_of).max();
                let more = page.more;
                let messages = page.messages.into_iter();
                let (messages, _) = decode_messages(&self.core.base, key, loses_red_dots, messages);
                missing += self.count_unknown(key, &messages).await?;
                match last {
                    Some(last) if more && last >= at && last < end => at = last.next(),
                    _ => break,
                }
            }
            next = end.next();
        }
        Ok(Ok(missing))
    }

    async fn count_unknown(
        &self,
        key: &ChannelKey,
        messages: &[crate::message::IncomingMessage],
    ) -> anyhow::Result<u64> {
        let store = &self.core.base.store;
        let Some(channel_id) = store.find_channel(key).await? else {
            return Ok(messages.len() as u64);
        };
        let ids: Vec<_> = messages
            .iter()
            .map(|incoming| (channel_id, incoming.message.message_id))
            .collect();
        let known = store.find_message_ids(&ids).await?;
        Ok((messages.len() - known.len()) as u64)
    }
}
