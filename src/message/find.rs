//! Messages by their global ids.

use std::collections::HashMap;

use super::Message;
use crate::core::Core;
use crate::error::Error;

/// Those of these messages that there are; one statement for any number of them, up to 1000.
///
/// # Errors
/// [`Error::Store`].
pub async fn find_messages(core: &Core, message_ids: &[i64]) -> Result<HashMap<i64, Message>, Error> {
    let found = core.store.list_messages(message_ids).await?;
    Ok(found.into_iter().map(|(stored, key)| (stored.message_id, Message::new(stored, &key))).collect())
}
