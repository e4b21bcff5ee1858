//! Changes of conversations by their user: the user's lock, then the row and its head, stamped at
//! once. No channel is locked: a message that commits meanwhile has a larger revision, so it counts
//! after the change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Conversation;
use super::unread::renew_mark;
use super::visibility::is_listed;
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid};
use crate::store::{ConversationRow, Counted, Locks, StoreError};
use crate::together::{Answers, Done, lane, row};

/// Conversations that are changed in one transaction.
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
    /// [`Error::NotFound`] when it does not show and nothing was changed.
    pub(super) fn listed(self, uid: &Uid) -> Result<Conversation, Error> {
        match self {
            Self::Changed(row) => Ok(Conversation::new(uid, &row)),
            Self::Unchanged(row) if is_listed(&row) => Ok(Conversation::new(uid, &row)),
            _ => Err(Error::NotFound("conversation")),
        }
    }
}

/// Changes a row, given the seq up to which its user wants to read, if one is named; returns
/// whether it changed it.
type Change<'a> = dyn Fn(&mut ConversationRow, Option<Seq>) -> bool + Send + Sync + 'a;

/// A conversation that its user wants to change.
pub(crate) struct Changing {
    uid: Uid,
    key: ChannelKey,
    up_to: Option<Seq>,
    change: Box<Change<'static>>,
}

impl std::fmt::Debug for Changing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Changing")
            .field("uid", &self.uid)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Changes the user's conversation as `change` says. It is called with the row and its head as they
/// are under the user's lock.
pub(super) async fn change(
    core: &Arc<Core>,
    uid: &Uid,
    channel: &ChannelRef,
    up_to: Option<Seq>,
    change: impl Fn(&mut ConversationRow, Option<Seq>) -> bool + Send + Sync + 'static,
) -> Result<Outcome, Error> {
    core.check_conversations_on()?;
    let changing = Changing {
        uid: uid.clone(),
        key: ChannelKey::new(uid, channel),
        up_to,
        change: Box::new(change),
    };
    let shared = Arc::clone(core);
    // By the user: what waits for the same lock is done in one transaction.
    let lane = lane(uid, core.store.writers());
    core.changes
        .run(lane, changing, move |all, locks| {
            change_some(Arc::clone(&shared), all, locks)
        })
        .await
}

/// Changes of several users at the same time, in one transaction.
async fn change_some(core: Arc<Core>, all: Vec<Arc<Changing>>, locks: Locks) -> Answers<Outcome> {
    // Reads without locks first, so that a change of something unknown, or to what is already so,
    // costs one read for all of them.
    let names: HashSet<(&Uid, &ChannelKey)> = all
        .iter()
        .map(|changing| (&changing.uid, &changing.key))
        .collect();
    let found = core
        .store
        .find_uncounted(&names.into_iter().collect::<Vec<_>>())
        .await?;
    let found: HashMap<(&Uid, &ChannelKey), &ConversationRow> = found
        .iter()
        .map(|(uid, row)| ((uid, &row.key), row))
        .collect();
    let mut wanted = Vec::new();
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(all.len());
    let mut without_cursor = Vec::new();
    for changing in &all {
        let row = found.get(&(&changing.uid, &changing.key)).copied();
        let Some(row) = row.filter(|row| row.is_member()) else {
            outcomes.push(Some(Outcome::Unknown));
            continue;
        };
        let up_to = core.limits.cap_read(changing.up_to, row.last_seq);
        if !row.needs_counts(up_to) && !(changing.change)(&mut row.clone(), up_to) {
            outcomes.push(Some(Outcome::Unchanged(row.clone())));
            continue;
        }
        if row.version == 0 {
            without_cursor.push(changing.uid.clone());
        }
        wanted.push(Wanted {
            uid: &changing.uid,
            channel_id: row.channel_id,
            up_to: changing.up_to,
            change: &*changing.change,
        });
        outcomes.push(None);
    }
    core.store.ensure_cursors(&without_cursor).await?;
    let mut changed = apply(&core, wanted, locks).await?.into_iter();
    let done = |outcome: Option<Outcome>| match outcome {
        Some(outcome) => Done::Answer(Ok(outcome)),
        None => changed.next().unwrap_or(Done::Answer(Ok(Outcome::Unknown))),
    };
    Ok(outcomes.into_iter().map(done).collect())
}

/// Changes all of the user's conversations for which `change` says `true`, [`CHANGED_AT_ONCE`] in
/// one transaction; those that were changed, oldest activity first.
pub(super) async fn change_all(
    core: &Core,
    uid: &Uid,
    change: impl Fn(&mut ConversationRow) -> bool + Send + Sync,
) -> Result<Vec<ConversationRow>, Error> {
    core.check_conversations_on()?;
    let change = |row: &mut ConversationRow, _| change(row);
    let mut rows = core.store.list_conversations(uid).await?;
    rows.retain(|row| row.is_member() && change(&mut row.clone(), None));
    rows.sort_by_key(|row| (row.last_message_at, row.channel_id));
    if rows.iter().any(|row| row.version == 0) {
        core.store.ensure_cursors(std::slice::from_ref(uid)).await?;
    }
    let mut changed = Vec::with_capacity(rows.len());
    for rows in rows.chunks(CHANGED_AT_ONCE) {
        let wanted = rows.iter().map(|row| Wanted {
            uid,
            channel_id: row.channel_id,
            up_to: None,
            change: &change,
        });
        let _place = core.store.may_wait().await;
        for outcome in apply(core, wanted.collect(), Locks::Wait).await? {
            if let Done::Answer(Ok(Outcome::Changed(row))) = outcome {
                changed.push(row);
            }
        }
    }
    changed.sort_by_key(|row| row.version);
    Ok(changed)
}

/// A change that a read without locks found to be one.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    uid: &'a Uid,
    channel_id: i64,
    up_to: Option<Seq>,
    change: &'a Change<'a>,
}

/// The outcomes of these changes, in their order. Several changes of one conversation share a
/// transaction, unless a later one needs counts that depend on an earlier one.
async fn apply(core: &Core, wanted: Vec<Wanted<'_>>, locks: Locks) -> Answers<Outcome> {
    let mut outcomes: Vec<Option<Done<Outcome>>> = wanted.iter().map(|_| None).collect();
    let mut open: Vec<usize> = (0..wanted.len()).collect();
    while !open.is_empty() {
        let some: Vec<Wanted> = open.iter().map(|at| wanted[*at]).collect();
        for (at, outcome) in open.iter().zip(apply_locked(core, &some, locks).await?) {
            outcomes[*at] = outcome;
        }
        open.retain(|at| outcomes[*at].is_none());
    }
    Ok(outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or(Done::Answer(Ok(Outcome::Unknown))))
        .collect())
}

/// In one transaction; the users' other devices are told of it. Versions ascend with last activity:
/// the newest gets the largest. `None` for a change that needs counts after an earlier one of the
/// same conversation.
async fn apply_locked(
    core: &Core,
    wanted: &[Wanted<'_>],
    locks: Locks,
) -> Result<Vec<Option<Done<Outcome>>>, Error> {
    let uids: HashSet<&Uid> = wanted.iter().map(|wanted| wanted.uid).collect();
    let uids = &uids.into_iter().cloned().collect::<Vec<Uid>>();
    let (outcomes, changed) = core
        .store
        .transaction(|tx| async move {
            let locked = tx.lock_users(uids, locks).await?;
            let is_held = |uid: &Uid| locks == Locks::Skip && !locked.contains_key(uid.as_str());
            let mut cursors = locked.clone();
            let free = wanted.iter().filter(|wanted| !is_held(wanted.uid));
            let pairs: HashSet<(&Uid, i64)> =
                free.map(|wanted| (wanted.uid, wanted.channel_id)).collect();
            let mut rows: HashMap<(Uid, i64), ConversationRow> = tx
                .find_conversations(&pairs.into_iter().collect::<Vec<_>>())
                .await?
                .into_iter()
                .map(|(uid, row)| ((uid, row.channel_id), row))
                .collect();
            let name = |wanted: &Wanted| (wanted.uid.clone(), wanted.channel_id);
            let mut first: HashMap<(Uid, i64), Option<Seq>> = HashMap::new();
            for wanted in wanted {
                let last_seq = rows.get(&name(wanted)).map_or(0, |row| row.last_seq);
                first
                    .entry(name(wanted))
                    .or_insert_with(|| core.limits.cap_read(wanted.up_to, last_seq));
            }
            let mut counted: Vec<Counted> = rows
                .iter_mut()
                .map(|(name, row)| Counted {
                    uid: &name.0,
                    row,
                    up_to: first.get(name).copied().flatten(),
                })
                .collect();
            tx.count(&mut counted).await?;
            let activity = |wanted: &Wanted| rows.get(&name(wanted)).map(|row| row.last_message_at);
            let mut order: Vec<(Option<i64>, i64, usize)> = wanted
                .iter()
                .enumerate()
                .map(|(at, wanted)| (activity(wanted), wanted.channel_id, at))
                .collect();
            order.sort_unstable();

            let mut outcomes: Vec<Option<Done<Outcome>>> = wanted.iter().map(|_| None).collect();
            let mut changed: HashSet<(Uid, i64)> = HashSet::new();
            for (_, _, at) in order {
                let wanted = &wanted[at];
                if is_held(wanted.uid) {
                    outcomes[at] = Some(Done::Held(row(wanted.uid)));
                    continue;
                }
                let name = name(wanted);
                let Some(row) = rows.get_mut(&name).filter(|row| row.is_member()) else {
                    outcomes[at] = Some(Done::Answer(Ok(Outcome::Unknown)));
                    continue;
                };
                let up_to = core.limits.cap_read(wanted.up_to, row.last_seq);
                if first.remove(&name).is_none() && row.needs_counts(up_to) {
                    continue;
                }
                if !(wanted.change)(row, up_to) {
                    outcomes[at] = Some(Done::Answer(Ok(Outcome::Unchanged(row.clone()))));
                    continue;
                }
                let Some(cursor) = cursors.get_mut(wanted.uid.as_str()) else {
                    return Err(StoreError::Broken(
                        "a user without a cursor cannot be locked".to_owned(),
                    )
                    .into());
                };
                renew_mark(row);
                *cursor = (*cursor).max(core.clock.now_ms() - 1) + 1;
                row.version = *cursor;
                row.stamped_revision = row.revision;
                outcomes[at] = Some(Done::Answer(Ok(Outcome::Changed(row.clone()))));
                changed.insert(name);
            }
            let written = rows.iter().filter(|(name, _)| changed.contains(*name));
            let written: Vec<(&Uid, &ConversationRow)> =
                written.map(|((uid, _), row)| (uid, row)).collect();
            if !written.is_empty() {
                tx.write_conversations(written, &locked).await?;
            }
            tx.commit((outcomes, changed)).await
        })
        .await?;
    let users: HashSet<&Uid> = changed.iter().map(|(uid, _)| uid).collect();
    core.bus.users_changed(users);
    Ok(outcomes)
}
