//! Changes of conversations by their user: locks in their order, the rows stamped at once.

use super::Conversation;
use super::rules::is_listed;
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};
use crate::store::{ConversationRow, State};

/// Conversations that are changed in one transaction: the channel of each is locked.
const CHANGED_AT_ONCE: usize = 500;

/// What became of a conversation that a user wanted to change.
pub(super) enum Outcome {
    /// The user has no such conversation.
    Unknown,
    /// As it was before: `change` saw nothing to do.
    Unchanged(ConversationRow),
    /// Changed and stamped.
    Changed(ConversationRow),
}

impl Outcome {
    /// The conversation as it is now.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not show.
    pub(super) fn listed(self, uid: &Uid) -> Result<Conversation, Error> {
        match self {
            Self::Changed(row) | Self::Unchanged(row) if is_listed(&row) => Ok(Conversation::new(uid, &row)),
            _ => Err(Error::NotFound("conversation")),
        }
    }
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
    if row.version == 0 {
        core.store.ensure_cursors(std::slice::from_ref(uid)).await?;
    }
    Ok(apply(core, uid, &[row.channel_id], &change).await?.pop().unwrap_or(Outcome::Unknown))
}

/// Changes all of the user's conversations for which `change` says `true`, [`CHANGED_AT_ONCE`] in one transaction; those that were
/// changed, oldest activity first.
pub(super) async fn change_all(
    core: &Core,
    uid: &Uid,
    change: impl Fn(&mut ConversationRow) -> bool,
) -> Result<Vec<ConversationRow>, Error> {
    core.check_conversations_on()?;
    let mut rows = core.store.list_conversations(uid).await?;
    rows.retain(|row| row.state != State::Left && change(&mut row.clone()));
    rows.sort_by_key(|row| (row.last_message_at, row.channel_id));
    if rows.iter().any(|row| row.version == 0) {
        core.store.ensure_cursors(std::slice::from_ref(uid)).await?;
    }
    let mut changed = Vec::with_capacity(rows.len());
    for rows in rows.chunks(CHANGED_AT_ONCE) {
        let ids: Vec<i64> = rows.iter().map(|row| row.channel_id).collect();
        changed.extend(apply(core, uid, &ids, &change).await?.into_iter().filter_map(|outcome| match outcome {
            Outcome::Changed(row) => Some(row),
            Outcome::Unchanged(_) | Outcome::Unknown => None,
        }));
    }
    Ok(changed)
}

/// In one transaction; the user's other devices are told of it. Versions ascend with last activity: the newest gets the largest.
async fn apply(
    core: &Core,
    uid: &Uid,
    channel_ids: &[i64],
    change: &impl Fn(&mut ConversationRow) -> bool,
) -> Result<Vec<Outcome>, Error> {
    let outcomes = core
        .store
        .transaction(|tx| async move {
            let cursor = tx.lock_user(uid).await?;
            tx.lock_channels(channel_ids).await?;
            let mut rows = tx.list_conversations(uid, channel_ids).await?;
            rows.sort_by_key(|row| (row.last_message_at, row.channel_id));
            let mut version = cursor.max(core.clock.now_ms() - 1);
            let mut outcomes = Vec::with_capacity(rows.len());
            let mut changed = Vec::new();
            for mut row in rows {
                outcomes.push(if row.state == State::Left {
                    Outcome::Unknown
                } else if change(&mut row) {
                    version += 1;
                    row.version = version;
                    row.stamped_revision = row.revision;
                    changed.push(row.clone());
                    Outcome::Changed(row)
                } else {
                    Outcome::Unchanged(row)
                });
            }
            if !changed.is_empty() {
                tx.write_conversations(uid, &changed).await?;
                tx.write_cursors(&[(uid.as_str(), version)]).await?;
            }
            tx.commit(outcomes).await
        })
        .await?;
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Changed(_))) {
        core.bus.users_changed([uid]);
    }
    Ok(outcomes)
}
