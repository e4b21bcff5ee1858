//! Messages by their global ids.

use std::collections::HashMap;

use super::{Message, seqs_seen_by};
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Uid;

/// Those of these messages that there are and that `viewer` may see (`None`: a service, which may see all); one statement for any
/// number of them, up to 1024, and for a viewer two more.
///
/// # Errors
/// [`Error::Store`].
pub async fn find_messages(core: &Core, viewer: Option<&Uid>, message_ids: &[i64]) -> Result<HashMap<i64, Message>, Error> {
    let mut found = core.store.list_messages(message_ids).await?;
    if let Some(uid) = viewer {
        let mut keys: Vec<ChannelKey> = found.iter().map(|(_, key)| key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let names: Vec<(&Uid, &ChannelKey)> = keys.iter().map(|key| (uid, key)).collect();
        let rows = core.store.find_conversations(&names).await?;
        let seen: HashMap<ChannelKey, _> = rows.into_iter().map(|(_, row)| (row.key.clone(), seqs_seen_by(&row))).collect();
        found.retain(|(stored, key)| seen.get(key).is_some_and(|seqs| seqs.contains(&stored.seq)));
    }
    Ok(found.into_iter().map(|(stored, key)| (stored.message_id, Message::new(stored, &key))).collect())
}
