//! Look-up of messages by channel and global id.

use std::collections::HashMap;

use super::MessageService;
use super::answer_size::{AnswerSizeLimit, SizedInAnswer};
use crate::error::Error;
use crate::model::{ChannelKey, ChannelPk, Message, MessageId, Uid};
use crate::store::PartialMessage;

/// Returns the existing messages that `viewer` may see (`None`: a service, which may see all), by
/// channel and global id. The number of statements does not depend on the number of messages, up to
/// 256.
///
/// # Errors
/// [`Error::TooComplex`] if they do not fit into the answer; [`Error::Store`].
pub async fn find_messages(
    service: &MessageService,
    viewer: Option<&Uid>,
    names: &[(ChannelKey, MessageId)],
    bytes: &AnswerSizeLimit,
) -> Result<HashMap<(ChannelKey, MessageId), Message>, Error> {
    let mut keys: Vec<&ChannelKey> = names.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    let channels = service.base.store.find_channels(&keys).await?;
    let ids: Vec<(ChannelPk, MessageId)> = names
        .iter()
        .filter_map(|(key, id)| Some((*channels.get(key)?, *id)))
        .collect();
    let mut found = service
        .base
        .store
        .list_messages(&ids, bytes.inline_payload_bytes(ids.len()))
        .await?;
    if let Some(uid) = viewer {
        let names: Vec<(&Uid, &ChannelKey)> = keys.iter().map(|key| (uid, *key)).collect();
        let rows = service.base.store.find_without_counts(&names).await?;
        let seen: HashMap<ChannelPk, _> = rows
            .into_iter()
            .map(|(_, row)| (row.channel_id, row.visible_seqs()))
            .collect();
        found.retain(|stored| {
            seen.get(&ChannelPk(stored.message.channel_id))
                .is_some_and(|seqs| seqs.contains(&stored.seq()))
        });
    }
    let weight: usize = found.iter().map(SizedInAnswer::size_in_answer).sum();
    bytes.take_with(|left| match left.checked_sub(weight) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        // Leaving messages out would make them look missing.
        None => Err(Error::TooComplex(
            "the messages do not fit into limits.answer_bytes: ask for fewer at once".into(),
        )),
    })?;
    bytes.reserve_memory()?;
    service
        .base
        .store
        .read_payloads(found.iter_mut().collect())
        .await?;
    let keys: HashMap<ChannelPk, ChannelKey> =
        channels.into_iter().map(|(key, id)| (id, key)).collect();
    let named = found.into_iter().filter_map(
        |PartialMessage {
             message: stored, ..
         }| {
            let key = keys.get(&ChannelPk(stored.channel_id))?.clone();
            Some((
                (key.clone(), MessageId(stored.message_id)),
                Message::from_stored(stored, &key),
            ))
        },
    );
    Ok(named.collect())
}
