//! One change of one conversation by its user: locks in their order, the row stamped at once.

use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};
use crate::store::{ConversationRow, State};

/// What became of a conversation that a user wanted to change.
pub(super) enum Outcome {
    /// The user has no such conversation.
    Unknown,
    /// As it was before: `change` saw nothing to do.
    Unchanged(ConversationRow),
    /// Changed and stamped.
    Changed(ConversationRow),
}

/// Changes the user's conversation as `change` says: `true` when it changed the row. It is called with the row as it is under
/// the locks of the user and the channel, so that a message in between can neither be missed nor counted twice.
pub(super) async fn change(
    core: &Core,
    uid: &Uid,
    channel: &ChannelRef,
    change: impl Fn(&mut ConversationRow) -> bool,
) -> Result<Outcome, Error> {
    core.check_conversations_on()?;
    // A look without locks, so that who asks for something unknown, or for what is already so, costs one read.
    let key = ChannelKey::new(uid, channel);
    let Some(mut row) = core.store.find_conversation(uid, &key).await? else { return Ok(Outcome::Unknown) };
    if row.state == State::Left {
        return Ok(Outcome::Unknown);
    }
    let before = row.clone();
    if !change(&mut row) {
        return Ok(Outcome::Unchanged(before));
    }
    let channel_id = row.channel_id;
    if row.version == 0 {
        core.store.ensure_cursors(std::slice::from_ref(uid)).await?;
    }
    let change = &change;
    core.store
        .transaction(|tx| async move {
            let cursor = tx.lock_user(uid).await?;
            let head = tx.lock_channel(channel_id).await?;
            let row = tx.find_conversation(uid, channel_id).await?;
            let (Some(_), Some(mut row)) = (head, row) else { return Ok(Outcome::Unknown) };
            if row.state == State::Left {
                return Ok(Outcome::Unknown);
            }
            if !change(&mut row) {
                return Ok(Outcome::Unchanged(row));
            }
            row.version = (cursor + 1).max(core.clock.now_ms());
            row.stamped_revision = row.revision;
            tx.write_conversation(uid, &row).await?;
            tx.write_cursors(&[(uid.as_str(), row.version)]).await?;
            tx.commit(Outcome::Changed(row)).await
        })
        .await
}
