//! What is unread, as another server said it at some moment.

use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid};
use crate::store::State;

/// Sets what was unread when the channel's last message was `last_seq`; messages of others above it count on top of that. Whoever has
/// said something since has read everything before it, and is left alone; who has no such conversation, too.
///
/// # Errors
/// [`Error::Store`].
pub async fn carry_over(core: &Core, uid: &Uid, channel: &ChannelRef, last_seq: Seq, unread: i64) -> Result<(), Error> {
    let key = ChannelKey::new(uid, channel);
    let Some(row) = core.store.find_conversation(uid, &key).await? else { return Ok(()) };
    core.store.ensure_cursors(std::slice::from_ref(uid)).await?;
    let channel_id = row.channel_id;
    let changed = core
        .store
        .transaction(|tx| async move {
            let cursor = tx.lock_user(uid).await?;
            let Some((_, mut row)) = tx.lock_conversations(&[(uid, channel_id)]).await?.pop() else { return Ok(false) };
            let newer = tx.count_red_dots(channel_id, last_seq + 1).await?;
            if row.state == State::Left || newer.contains_key(uid.as_str()) {
                return Ok(false);
            }
            let mark = row.red_dots - newer.values().sum::<i64>() - unread;
            if mark == row.read_mark {
                return Ok(false);
            }
            let version = (cursor + 1).max(core.clock.now_ms());
            row.read_mark = mark;
            row.version = version;
            row.stamped_revision = row.revision;
            tx.write_conversations(vec![(uid.as_str(), &row)]).await?;
            tx.commit(true).await
        })
        .await?;
    if changed {
        core.bus.users_changed([uid]);
    }
    Ok(())
}
