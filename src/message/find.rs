//! Messages by their channels and ids.

use std::collections::{HashMap, HashSet};

use super::{Message, seqs_seen_by};
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Uid;

/// The messages with these ids in these channels, as far as `viewer` may see them (`None`: a service, which may see all); one
/// statement for any number of them, up to 1024, and for a viewer two more.
///
/// # Errors
/// [`Error::Store`].
pub async fn find_messages(
    core: &Core,
    viewer: Option<&Uid>,
    names: &[(ChannelKey, i64)],
) -> Result<HashMap<(ChannelKey, i64), Message>, Error> {
    let named: HashSet<(&ChannelKey, i64)> = names.iter().map(|(key, message_id)| (key, *message_id)).collect();
    let message_ids: Vec<i64> = named.iter().map(|(_, message_id)| *message_id).collect();
    let mut found = core.store.list_messages(&message_ids).await?;
    found.retain(|(stored, key)| named.contains(&(key, stored.message_id)));
    if let Some(uid) = viewer {
        let mut keys: Vec<ChannelKey> = found.iter().map(|(_, key)| key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let names: Vec<(&Uid, &ChannelKey)> = keys.iter().map(|key| (uid, key)).collect();
        let rows = core.store.find_conversations(&names).await?;
        let seen: HashMap<ChannelKey, _> = rows.into_iter().map(|(_, row)| (row.key.clone(), seqs_seen_by(&row))).collect();
        found.retain(|(stored, key)| seen.get(key).is_some_and(|seqs| seqs.contains(&stored.seq)));
    }
    Ok(found.into_iter().map(|(stored, key)| ((key.clone(), stored.message_id), Message::new(stored, &key))).collect())
}
