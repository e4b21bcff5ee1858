//! Changes of conversations by their user: locks in their order, the rows stamped at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Conversation;
use super::rules::is_listed;
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};
use crate::store::{ConversationRow, State, StoreError};
use crate::together::{Answers, lane};

/// Conversations that are changed in one transaction: the channel of each is locked.
const CHANGED_AT_ONCE: usize = 500;

/// What became of a conversation that a user wanted to change.
#[derive(Debug)]
pub(crate) enum Outcome {
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

/// Says of a row whether it changed it.
type Change<'a> = dyn Fn(&mut ConversationRow) -> bool + Send + Sync + 'a;

/// A conversation that its user wants to change.
pub(crate) struct Changing {
    uid: Uid,
    key: ChannelKey,
    change: Box<Change<'static>>,
}

impl std::fmt::Debug for Changing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Changing").field("uid", &self.uid).field("key", &self.key).finish_non_exhaustive()
    }
}

/// Changes the user's conversation as `change` says: `true` when it changed the row. It is called with the row as it is under
/// the locks of the user and the channel, so that a message in between can neither be missed nor counted twice.
pub(super) async fn change(
    core: &Arc<Core>,
    uid: &Uid,
    channel: &ChannelRef,
    change: impl Fn(&mut ConversationRow) -> bool + Send + Sync + 'static,
) -> Result<Outcome, Error> {
    core.check_conversations_on()?;
    let changing = Changing { uid: uid.clone(), key: ChannelKey::new(uid, channel), change: Box::new(change) };
    let shared = Arc::clone(core);
    // By the user: what waits for the same lock is done in one transaction.
    let lane = lane(uid, core.store.writers());
    core.changes.run(lane, changing, move |all| change_some(Arc::clone(&shared), all)).await
}

/// Changes of several users at the same time, in one transaction.
async fn change_some(core: Arc<Core>, all: Vec<Arc<Changing>>) -> Answers<Outcome> {
    // A look without locks, so that who asks for something unknown, or for what is already so, costs one read for all of them.
    let names: HashSet<(&Uid, &ChannelKey)> = all.iter().map(|changing| (&changing.uid, &changing.key)).collect();
    let found = core.store.find_conversations(&names.into_iter().collect::<Vec<_>>()).await?;
    let found: HashMap<(&str, &ChannelKey), &ConversationRow> =
        found.iter().map(|(uid, row)| ((uid.as_str(), &row.key), row)).collect();
    let mut wanted = Vec::new();
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(all.len());
    let mut without_cursor = Vec::new();
    for changing in &all {
        let row = found.get(&(changing.uid.as_str(), &changing.key)).copied();
        let Some(row) = row.filter(|row| row.state != State::Left) else {
            outcomes.push(Some(Outcome::Unknown));
            continue;
        };
        if !(changing.change)(&mut row.clone()) {
            outcomes.push(Some(Outcome::Unchanged(row.clone())));
            continue;
        }
        if row.version == 0 {
            without_cursor.push(changing.uid.clone());
        }
        wanted.push(Wanted { uid: &changing.uid, channel_id: row.channel_id, change: &*changing.change });
        outcomes.push(None);
    }
    core.store.ensure_cursors(&without_cursor).await?;
    let mut changed = apply(&core, &wanted).await?.into_iter();
    Ok(outcomes.into_iter().map(|outcome| Ok(outcome.or_else(|| changed.next()).unwrap_or(Outcome::Unknown))).collect())
}

/// Changes all of the user's conversations for which `change` says `true`, [`CHANGED_AT_ONCE`] in one transaction; those that were
/// changed, oldest activity first.
pub(super) async fn change_all(
    core: &Core,
    uid: &Uid,
    change: impl Fn(&mut ConversationRow) -> bool + Send + Sync,
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
        let wanted: Vec<Wanted> = rows.iter().map(|row| Wanted { uid, channel_id: row.channel_id, change: &change }).collect();
        changed.extend(apply(core, &wanted).await?.into_iter().filter_map(|outcome| match outcome {
            Outcome::Changed(row) => Some(row),
            Outcome::Unchanged(_) | Outcome::Unknown => None,
        }));
    }
    changed.sort_by_key(|row| row.version);
    Ok(changed)
}

/// A change that a look without locks found to be one.
struct Wanted<'a> {
    uid: &'a Uid,
    channel_id: i64,
    change: &'a Change<'a>,
}

/// In one transaction; the users' other devices are told of it. Versions ascend with last activity: the newest gets the largest. The
/// outcomes stand in the order of `wanted`.
async fn apply(core: &Core, wanted: &[Wanted<'_>]) -> Result<Vec<Outcome>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let uids: HashSet<&Uid> = wanted.iter().map(|wanted| wanted.uid).collect();
    let uids = &uids.into_iter().cloned().collect::<Vec<Uid>>();
    let (outcomes, changed) = core
        .store
        .transaction(|tx| async move {
            let mut cursors = tx.lock_users(uids).await?;
            let pairs: Vec<(&Uid, i64)> = wanted.iter().map(|wanted| (wanted.uid, wanted.channel_id)).collect();
            let mut rows: HashMap<(String, i64), ConversationRow> =
                tx.lock_conversations(&pairs).await?.into_iter().map(|(uid, row)| ((uid, row.channel_id), row)).collect();
            let activity =
                |wanted: &Wanted| rows.get(&(wanted.uid.to_string(), wanted.channel_id)).map(|row| row.last_message_at);
            let mut order: Vec<(Option<i64>, i64, usize)> =
                wanted.iter().enumerate().map(|(at, wanted)| (activity(wanted), wanted.channel_id, at)).collect();
            order.sort_unstable();

            let mut outcomes: Vec<(usize, Outcome)> = Vec::with_capacity(wanted.len());
            let mut changed: HashMap<(String, i64), ConversationRow> = HashMap::new();
            let mut moved: HashSet<&str> = HashSet::new();
            for (_, channel_id, at) in order {
                let Wanted { uid, change, .. } = &wanted[at];
                let name = (uid.to_string(), channel_id);
                let Some(row) = rows.get_mut(&name).filter(|row| row.state != State::Left) else {
                    outcomes.push((at, Outcome::Unknown));
                    continue;
                };
                if !change(row) {
                    outcomes.push((at, Outcome::Unchanged(row.clone())));
                    continue;
                }
                let Some(cursor) = cursors.get_mut(uid.as_str()) else {
                    return Err(StoreError::Broken("a user without a cursor cannot be locked".to_owned()).into());
                };
                *cursor = (*cursor).max(core.clock.now_ms() - 1) + 1;
                row.version = *cursor;
                row.stamped_revision = row.revision;
                moved.insert(uid.as_str());
                changed.insert(name, row.clone());
                outcomes.push((at, Outcome::Changed(row.clone())));
            }
            if !changed.is_empty() {
                tx.write_conversations(changed.iter().map(|((uid, _), row)| (uid.as_str(), row)).collect()).await?;
            }
            outcomes.sort_unstable_by_key(|(at, _)| *at);
            let changed: Vec<&Uid> = wanted.iter().map(|wanted| wanted.uid).filter(|uid| moved.contains(uid.as_str())).collect();
            tx.commit((outcomes, changed)).await
        })
        .await?;
    core.bus.users_changed(changed);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}
