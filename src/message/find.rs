//! Messages by their channels and global ids.

use std::collections::HashMap;

use super::answer_bytes::{AnswerBytes, Weigh};
use super::{Message, seqs_seen_by};
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Uid;
use crate::store::Measured;

/// Those of these messages that there are and that `viewer` may see (`None`: a service, which may
/// see all), by channel and global id; a number of statements that does not depend on theirs, up to
/// 256.
///
/// # Errors
/// [`Error::TooComplex`] when they do not fit into the answer; [`Error::Store`].
pub async fn find_messages(
    core: &Core,
    viewer: Option<&Uid>,
    names: &[(ChannelKey, i64)],
    bytes: &AnswerBytes,
) -> Result<HashMap<(ChannelKey, i64), Message>, Error> {
    let mut keys: Vec<&ChannelKey> = names.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    let channels = core.store.find_channels(&keys).await?;
    let ids: Vec<(i64, i64)> = names
        .iter()
        .filter_map(|(key, id)| Some((*channels.get(key)?, *id)))
        .collect();
    let mut found = core
        .store
        .list_messages(&ids, bytes.short_enough(ids.len()))
        .await?;
    if let Some(uid) = viewer {
        let names: Vec<(&Uid, &ChannelKey)> = keys.iter().map(|key| (uid, *key)).collect();
        let rows = core.store.find_uncounted(&names).await?;
        let seen: HashMap<i64, _> = rows
            .into_iter()
            .map(|(_, row)| (row.channel_id, seqs_seen_by(&row)))
            .collect();
        found.retain(|stored| {
            let stored = &stored.message;
            seen.get(&stored.channel_id)
                .is_some_and(|seqs| seqs.contains(&stored.seq))
        });
    }
    let weight: usize = found.iter().map(Weigh::weight).sum();
    bytes.with(|left| match left.checked_sub(weight) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        // What is left out here would look as if it were not there.
        None => Err(Error::TooComplex(
            "the messages do not fit into limits.answer_bytes: ask for fewer at once".into(),
        )),
    })?;
    bytes.hold()?;
    core.store.read_payloads(found.iter_mut().collect()).await?;
    let keys: HashMap<i64, ChannelKey> = channels.into_iter().map(|(key, id)| (id, key)).collect();
    let named = found.into_iter().filter_map(
        |Measured {
             message: stored, ..
         }| {
            let key = keys.get(&stored.channel_id)?.clone();
            Some(((key.clone(), stored.message_id), Message::new(stored, &key)))
        },
    );
    Ok(named.collect())
}
