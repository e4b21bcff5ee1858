//! Imports the messages of channels that are not stored here.

use std::collections::HashMap;

use super::ingest::{decode, is_of_stream, store_messages};
use super::{Import, ImportSummary, next_gap, with_details};
use crate::import::source::{Listed, seq_of};
use crate::model::{ChannelKey, ChannelRef, Seq, Uid};
use crate::store::SeqRange;
use crate::upstream::RequestError;

/// Maximum number of messages of one transaction.
const MESSAGES_AT_ONCE: usize = 500;

/// Why the messages of a channel are not stored.
enum Failure {
    Request(RequestError),
    Fatal(anyhow::Error),
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Fatal(error)
    }
}

/// The history of a channel as a user may request it.
#[derive(Clone, Copy)]
struct History<'a> {
    uid: &'a Uid,
    channel: &'a ChannelRef,
    key: &'a ChannelKey,
    loses_red_dots: bool,
    /// Number of its messages that were found here.
    stored: u64,
}

/// A conversation with missing messages.
struct Incomplete<'a> {
    listed: &'a Listed,
    /// The first seq that may be missing.
    from: Seq,
    /// Number of messages from there on that are stored.
    stored: u64,
}

/// Returns the key of the progress of a channel: the newest seq that was requested.
pub(super) fn progress_key(import: &Import, key: &ChannelKey) -> String {
    let kind = key.channel_type.number().to_string();
    import.source.progress_key(&["channel", &kind, &key.key])
}

/// Stores the missing messages of a user's conversations, and returns whether all could be
/// requested. For a new user those below the progress of an earlier import were requested then; for
/// others the whole history is compared.
pub(super) async fn import_channels(
    import: &Import,
    uid: &Uid,
    conversations: &[Listed],
    is_new: bool,
) -> anyhow::Result<bool> {
    let store = &import.core.base.store;
    let open: Vec<&Listed> = conversations
        .iter()
        .filter(|listed| !is_checked(import, &listed.key, listed.last_seq))
        .collect();
    if open.is_empty() {
        return Ok(true);
    }
    let keys: Vec<String> = open
        .iter()
        .map(|listed| progress_key(import, &listed.key))
        .collect();
    let imported = store
        .list_imported_lines(&keys)
        .await
        .map_err(with_details)?;
    let imported_to = |progress_key: &String| {
        let lines = imported.get(progress_key).copied().unwrap_or_default();
        Seq(i64::try_from(lines).unwrap_or_default())
    };
    let from = |progress_key: &String| {
        if is_new {
            imported_to(progress_key).next()
        } else {
            Seq(1)
        }
    };
    let stored = count_stored(import, open.iter().copied().zip(keys.iter().map(from))).await?;

    let (mut short, mut long, mut done) = (Vec::new(), Vec::new(), Vec::new());
    let mut streams = Vec::new();
    for (listed, progress_key) in open.into_iter().zip(&keys) {
        let from = from(progress_key);
        let count = stored.get(&listed.key).copied().unwrap_or_default();
        let incomplete = Incomplete {
            listed,
            from,
            stored: u64::try_from(count).unwrap_or_default(),
        };
        if import.groups.contains(&listed.key) {
            // v1 may know an old last message of a large group.
            long.push(incomplete);
        } else if count > listed.last_seq.distance_from(from) {
            mark_checked(import, &listed.key, listed.last_seq, incomplete.stored);
            done.push((&listed.key, listed.last_seq));
            let of_streams = listed
                .recents
                .iter()
                .filter(|message| is_of_stream(message));
            streams.extend(decode(
                import,
                &listed.key,
                listed.loses_red_dots,
                of_streams.cloned(),
            ));
        } else if count == 0 && incomplete.is_in_recents(import) {
            short.push(incomplete);
        } else {
            long.push(incomplete);
        }
    }

    // Webhooks do not bring the text of a stream.
    store_messages(import, streams).await?;
    import_recents(import, &short).await?;
    done.extend(
        short
            .iter()
            .map(|one| (&one.listed.key, one.listed.last_seq)),
    );
    let mut is_complete = true;
    for incomplete in long {
        let listed = incomplete.listed;
        let history = History {
            uid,
            channel: &listed.channel,
            key: &listed.key,
            loses_red_dots: listed.loses_red_dots,
            stored: incomplete.stored,
        };
        match import_history(import, history, incomplete.from, listed.last_seq).await {
            Ok(complete_to) => done.push((&listed.key, complete_to)),
            Err(Failure::Request(error)) => {
                import.accept_failure(&format!("{:?} of {uid}", listed.channel), &error)?;
                is_complete = false;
            }
            Err(Failure::Fatal(error)) => return Err(error),
        }
    }
    write_progress(import, &imported, &done).await?;
    Ok(is_complete)
}

/// Imports a group that no user lists, as far as the server returns it to this user.
pub(super) async fn import_group(
    import: &Import,
    uid: &Uid,
    channel: &ChannelRef,
    key: &ChannelKey,
) -> anyhow::Result<()> {
    let history = History {
        uid,
        channel,
        key,
        // v2 lists large groups like others.
        loses_red_dots: import.source.is_v3(),
        stored: 0,
    };
    match import_history(import, history, Seq(1), Seq::ZERO).await {
        Ok(complete_to) => write_progress(import, &HashMap::new(), &[(key, complete_to)]).await,
        Err(Failure::Request(error)) => import.accept_failure(&format!("{channel:?}"), &error),
        Err(Failure::Fatal(error)) => Err(error),
    }
}

fn is_checked(import: &Import, key: &ChannelKey, last_seq: Seq) -> bool {
    import
        .checked
        .get(key)
        .is_some_and(|checked| checked >= last_seq)
}

/// Records that a channel is complete up to a seq. The messages that were found here are counted for
/// the first of several users.
fn mark_checked(import: &Import, key: &ChannelKey, checked_to: Seq, stored: u64) {
    let entry = import.checked.entry(key.clone()).or_insert(checked_to);
    if entry.is_fresh() {
        import.add(&ImportSummary {
            repeated: stored,
            ..ImportSummary::default()
        });
    } else if entry.into_value() < checked_to {
        import.checked.insert(key.clone(), checked_to);
    }
}

impl Incomplete<'_> {
    /// Returns whether the listing contains all messages from the first missing one on.
    fn is_in_recents(&self, import: &Import) -> bool {
        // v3 lists only the last message, without all of its fields.
        if import.source.is_v3() {
            return false;
        }
        let mut next = self.listed.last_seq;
        for message in &self.listed.recents {
            if seq_of(message) != Some(next) {
                return false;
            }
            if next == self.from {
                return true;
            }
            next = next.previous();
        }
        false
    }
}

/// Counts the stored messages from a seq on to the last one that is listed.
async fn count_stored<'a>(
    import: &Import,
    ranges: impl Iterator<Item = (&'a Listed, Seq)>,
) -> anyhow::Result<HashMap<ChannelKey, i64>> {
    let store = &import.core.base.store;
    let ranges: Vec<(&ChannelKey, Seq, Seq)> = ranges
        .map(|(listed, from)| (&listed.key, from, listed.last_seq))
        .collect();
    let keys: Vec<&ChannelKey> = ranges.iter().map(|(key, ..)| *key).collect();
    let ids = store.find_channels(&keys).await.map_err(with_details)?;
    let ranges: Vec<SeqRange> = ranges
        .iter()
        .filter(|(_, from, to)| from <= to)
        .filter_map(|(key, from, to)| {
            Some(SeqRange {
                channel_id: *ids.get(*key)?,
                from: *from,
                to: *to,
            })
        })
        .collect();
    let counts = store.count_stored(&ranges).await.map_err(with_details)?;
    Ok(ids
        .into_iter()
        .filter_map(|(key, id)| Some((key, *counts.get(&id)?)))
        .collect())
}

/// Stores the messages that came with the listing, of many channels in a transaction.
async fn import_recents(import: &Import, short: &[Incomplete<'_>]) -> anyhow::Result<()> {
    let mut rest = short;
    while !rest.is_empty() {
        let mut messages = 0;
        let count = rest
            .iter()
            .take_while(|one| {
                messages += one.listed.recents.len();
                messages <= MESSAGES_AT_ONCE
            })
            .count();
        let (some, others) = rest.split_at(count.max(1));
        rest = others;
        let keys = some.iter().map(|one| &one.listed.key);
        let _locks = import.locks.lock(keys).await;
        let mut batch = Vec::new();
        for Incomplete { listed, from, .. } in some {
            // Another user may have brought them meanwhile.
            if is_checked(import, &listed.key, listed.last_seq) {
                continue;
            }
            let missing = listed.recents.iter().rev();
            let missing = missing.filter(|message| seq_of(message).is_some_and(|seq| seq >= *from));
            batch.extend(decode(
                import,
                &listed.key,
                listed.loses_red_dots,
                missing.cloned(),
            ));
        }
        store_messages(import, batch).await?;
        for one in some {
            mark_checked(import, &one.listed.key, one.listed.last_seq, 0);
        }
    }
    Ok(())
}

/// Stores the missing messages of a channel from a seq to the last one, which is not known for
/// large groups. Returns the seq up to which nothing is missing any more, as far as the server told.
async fn import_history(
    import: &Import,
    history: History<'_>,
    from: Seq,
    last_seq: Seq,
) -> Result<Seq, Failure> {
    let store = &import.core.base.store;
    let key = history.key;
    let _locks = import.locks.lock(std::iter::once(key)).await;
    if is_checked(import, key, last_seq.max(Seq(1))) {
        return Ok(last_seq);
    }
    let is_open_ended = import.groups.contains(key);
    let mut last_seq = last_seq;
    if is_open_ended {
        let head = store.find_channel_seqs(key).await.map_err(with_details)?;
        last_seq = head.map_or(Seq::ZERO, |(_, seqs)| *seqs.end());
    }
    let mut next = from;
    while let Some((start, end)) = next_gap(store, key, next, last_seq)
        .await
        .map_err(with_details)?
    {
        fetch(import, history, start, Some(end)).await?;
        next = end.next();
    }
    if is_open_ended {
        last_seq = fetch(import, history, last_seq.next(), None)
            .await?
            .unwrap_or(last_seq);
    }
    let complete_to = if import.source.is_v3() {
        // v3 hides from a user the messages that the user deleted, so another user may see more.
        let gap = next_gap(store, key, from, last_seq)
            .await
            .map_err(with_details)?;
        gap.map_or(last_seq, |(start, _)| start.previous())
    } else {
        last_seq
    };
    let checked_to = if is_open_ended { Seq::MAX } else { complete_to };
    mark_checked(import, key, checked_to, history.stored);
    Ok(complete_to)
}

/// Fetches and stores the messages of a range. Returns the seq of the newest one, if any.
async fn fetch(
    import: &Import,
    history: History<'_>,
    start: Seq,
    end: Option<Seq>,
) -> Result<Option<Seq>, Failure> {
    let (mut next, mut newest) = (start, None);
    loop {
        let page = import
            .source
            .newer(history.uid, history.channel, next, end)
            .await?;
        let last = page.messages.iter().filter_map(seq_of).max();
        let more = page.more;
        let mut messages = decode(
            import,
            history.key,
            history.loses_red_dots,
            page.messages.into_iter(),
        );
        messages.sort_by_key(|incoming| incoming.message.seq);
        store_messages(import, messages).await?;
        newest = newest.max(last);
        match last {
            Some(last) if more && last >= next && end.is_none_or(|end| last < end) => {
                next = last.next();
            }
            _ => return Ok(newest),
        }
    }
}

/// Stores up to where channels are complete, unless they were before.
async fn write_progress(
    import: &Import,
    before: &HashMap<String, u64>,
    done: &[(&ChannelKey, Seq)],
) -> anyhow::Result<()> {
    let lines: Vec<(String, u64)> = done
        .iter()
        .map(|(key, seq)| {
            (
                progress_key(import, key),
                u64::try_from(seq.0).unwrap_or_default(),
            )
        })
        .filter(|(key, seq)| *seq > before.get(key).copied().unwrap_or_default())
        .collect();
    import
        .core
        .base
        .store
        .write_imported(lines)
        .await
        .map_err(with_details)
}
