//! Updates of conversations by their user. Takes the user's lock, reads the row and its head, and
//! stamps the row at once. No channel is locked: a message that commits meanwhile has a larger
//! revision, so it counts after the update.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::visibility::is_listed;
use super::{Conversation, ConversationService};
use crate::base::Base;
use crate::batching::{BatchHandler, BatchReply, BatchResult, row_hash, shard_of};
use crate::error::Error;
use crate::model::unread::renew_mark;
use crate::model::{
    ChannelKey, ChannelPk, ChannelRef, ConversationRow, EpochMs, Seq, Uid, Version,
};
use crate::store::{CountRequest, LockPolicy, StoreError};

/// Maximum number of conversations in one update transaction.
const MAX_UPDATES_PER_TRANSACTION: usize = 500;

/// Result of an update.
#[derive(Debug)]
pub(crate) enum UpdateOutcome {
    /// The user has no such conversation.
    Unknown,
    /// The update had nothing to change.
    Unchanged(ConversationRow),
    /// Changed and stamped.
    Changed(ConversationRow),
}

impl UpdateOutcome {
    pub(super) fn is_changed(&self) -> bool {
        matches!(self, Self::Changed(_))
    }

    /// Returns the conversation after the update.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not listed and nothing changed.
    pub(super) fn listed(self, uid: &Uid) -> Result<Conversation, Error> {
        match self {
            Self::Changed(row) => Ok(Conversation::new(uid, &row)),
            Self::Unchanged(row) if is_listed(&row) => Ok(Conversation::new(uid, &row)),
            _ => Err(Error::NotFound("conversation")),
        }
    }
}

/// Changes a row, given the seq up to which the user wants to read, if any. Returns whether it
/// changed the row.
type UpdateFn<'a> = dyn Fn(&mut ConversationRow, Option<Seq>) -> bool + Send + Sync + 'a;

/// A change of one conversation by its user.
pub(crate) struct ConversationUpdate {
    uid: Uid,
    key: ChannelKey,
    up_to: Option<Seq>,
    apply: Box<UpdateFn<'static>>,
}

impl std::fmt::Debug for ConversationUpdate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ConversationUpdate")
            .field("uid", &self.uid)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Updates the user's conversation with `apply`, which gets the row and its head as read under the
/// user's lock.
pub(super) async fn update_conversation(
    service: &ConversationService,
    uid: &Uid,
    channel: &ChannelRef,
    up_to: Option<Seq>,
    apply: impl Fn(&mut ConversationRow, Option<Seq>) -> bool + Send + Sync + 'static,
) -> Result<UpdateOutcome, Error> {
    service.base.check_conversations_on()?;
    let update = ConversationUpdate {
        uid: uid.clone(),
        key: ChannelKey::new(uid, channel),
        up_to,
        apply: Box::new(apply),
    };
    // Sharded by user: updates that need the same lock share a transaction.
    let shard = shard_of(uid, service.base.store.write_shards());
    service.updates.submit(shard, update).await
}

/// Applies updates of several users in one transaction.
pub(super) struct UpdateHandler(pub(super) Arc<Base>);

impl BatchHandler for UpdateHandler {
    type Request = ConversationUpdate;
    type Reply = UpdateOutcome;

    async fn run(
        &self,
        batch: Vec<Arc<ConversationUpdate>>,
        lock_policy: LockPolicy,
    ) -> BatchResult<UpdateOutcome> {
        apply_batch(&self.0, &batch, lock_policy).await
    }
}

async fn apply_batch(
    base: &Base,
    batch: &[Arc<ConversationUpdate>],
    lock_policy: LockPolicy,
) -> BatchResult<UpdateOutcome> {
    // Reads without locks first, so that updates of unknown conversations, or without effect, cost
    // one read for the whole batch.
    let names: HashSet<(&Uid, &ChannelKey)> = batch
        .iter()
        .map(|update| (&update.uid, &update.key))
        .collect();
    let found = base
        .store
        .find_without_counts(&names.into_iter().collect::<Vec<_>>())
        .await?;
    let found: HashMap<(&Uid, &ChannelKey), &ConversationRow> = found
        .iter()
        .map(|(uid, row)| ((uid, &row.key), row))
        .collect();
    let mut updates = Vec::new();
    let mut outcomes: Vec<Option<UpdateOutcome>> = Vec::with_capacity(batch.len());
    let mut without_cursor = Vec::new();
    for update in batch {
        let row = found.get(&(&update.uid, &update.key)).copied();
        let Some(row) = row.filter(|row| row.is_member()) else {
            outcomes.push(Some(UpdateOutcome::Unknown));
            continue;
        };
        let up_to = base.limits.cap_read(update.up_to, row.last_seq);
        if !row.needs_counts(up_to) && !(update.apply)(&mut row.clone(), up_to) {
            outcomes.push(Some(UpdateOutcome::Unchanged(row.clone())));
            continue;
        }
        if row.version == Version::ZERO {
            without_cursor.push(update.uid.clone());
        }
        updates.push(LockedUpdate {
            uid: &update.uid,
            channel_id: row.channel_id,
            up_to: update.up_to,
            apply: &*update.apply,
        });
        outcomes.push(None);
    }
    base.store.ensure_cursors(&without_cursor).await?;
    let mut changed = apply_locked(base, updates, lock_policy).await?.into_iter();
    let done = |outcome: Option<UpdateOutcome>| match outcome {
        Some(outcome) => BatchReply::Ready(Ok(outcome)),
        None => changed
            .next()
            .unwrap_or(BatchReply::Ready(Ok(UpdateOutcome::Unknown))),
    };
    Ok(outcomes.into_iter().map(done).collect())
}

/// Updates all of the user's conversations for which `apply` returns `true`, in transactions of
/// [`MAX_UPDATES_PER_TRANSACTION`]. Returns the changed rows, oldest activity first.
pub(super) async fn update_all(
    service: &ConversationService,
    uid: &Uid,
    apply: impl Fn(&mut ConversationRow) -> bool + Send + Sync,
) -> Result<Vec<ConversationRow>, Error> {
    service.base.check_conversations_on()?;
    let apply = |row: &mut ConversationRow, _| apply(row);
    let mut rows = service.base.store.list_conversations(uid).await?;
    rows.retain(|row| row.is_member() && apply(&mut row.clone(), None));
    rows.sort_by_key(|row| (row.last_message_at, row.channel_id));
    if rows.iter().any(|row| row.version == Version::ZERO) {
        service
            .base
            .store
            .ensure_cursors(std::slice::from_ref(uid))
            .await?;
    }
    let mut changed = Vec::with_capacity(rows.len());
    for rows in rows.chunks(MAX_UPDATES_PER_TRANSACTION) {
        let updates = rows.iter().map(|row| LockedUpdate {
            uid,
            channel_id: row.channel_id,
            up_to: None,
            apply: &apply,
        });
        let _permit = service.base.store.acquire_lock_wait_permit().await;
        for outcome in apply_locked(&service.base, updates.collect(), LockPolicy::Wait).await? {
            if let BatchReply::Ready(Ok(UpdateOutcome::Changed(row))) = outcome {
                changed.push(row);
            }
        }
    }
    changed.sort_by_key(|row| row.version);
    Ok(changed)
}

/// An update that a read without locks found to have an effect.
#[derive(Clone, Copy)]
struct LockedUpdate<'a> {
    uid: &'a Uid,
    channel_id: ChannelPk,
    up_to: Option<Seq>,
    apply: &'a UpdateFn<'a>,
}

/// Returns the outcomes in the order of the updates. Updates of one conversation share a
/// transaction, unless a later one needs counts that depend on an earlier one.
async fn apply_locked(
    base: &Base,
    updates: Vec<LockedUpdate<'_>>,
    lock_policy: LockPolicy,
) -> BatchResult<UpdateOutcome> {
    let mut outcomes: Vec<Option<BatchReply<UpdateOutcome>>> =
        updates.iter().map(|_| None).collect();
    let mut open: Vec<usize> = (0..updates.len()).collect();
    while !open.is_empty() {
        let some: Vec<LockedUpdate> = open.iter().map(|at| updates[*at]).collect();
        for (at, outcome) in open
            .iter()
            .zip(apply_in_transaction(base, &some, lock_policy).await?)
        {
            outcomes[*at] = outcome;
        }
        open.retain(|at| outcomes[*at].is_none());
    }
    Ok(outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or(BatchReply::Ready(Ok(UpdateOutcome::Unknown))))
        .collect())
}

/// Applies updates in one transaction and notifies the users' other devices. Versions ascend with
/// last activity: the newest activity gets the largest version. The outcome is `None` for an update
/// that needs counts after an earlier one of the same conversation.
async fn apply_in_transaction(
    base: &Base,
    updates: &[LockedUpdate<'_>],
    lock_policy: LockPolicy,
) -> Result<Vec<Option<BatchReply<UpdateOutcome>>>, Error> {
    let uids: HashSet<&Uid> = updates.iter().map(|update| update.uid).collect();
    let uids = &uids.into_iter().cloned().collect::<Vec<Uid>>();
    let (outcomes, changed) = base
        .store
        .transaction(|tx| async move {
            let locked = tx.lock_users(uids, lock_policy).await?;
            let is_locked_elsewhere = |uid: &Uid| {
                lock_policy == LockPolicy::SkipLocked && !locked.contains_key(uid.as_str())
            };
            let mut cursors = locked.clone();
            let free = updates
                .iter()
                .filter(|update| !is_locked_elsewhere(update.uid));
            let pairs: HashSet<(&Uid, ChannelPk)> =
                free.map(|update| (update.uid, update.channel_id)).collect();
            let mut rows: HashMap<(Uid, ChannelPk), ConversationRow> = tx
                .find_conversations(&pairs.into_iter().collect::<Vec<_>>())
                .await?
                .into_iter()
                .map(|(uid, row)| ((uid, row.channel_id), row))
                .collect();
            let name = |update: &LockedUpdate| (update.uid.clone(), update.channel_id);
            let mut first: HashMap<(Uid, ChannelPk), Option<Seq>> = HashMap::new();
            for update in updates {
                let last_seq = rows
                    .get(&name(update))
                    .map_or(Seq::ZERO, |row| row.last_seq);
                first
                    .entry(name(update))
                    .or_insert_with(|| base.limits.cap_read(update.up_to, last_seq));
            }
            let mut counted: Vec<CountRequest> = rows
                .iter_mut()
                .map(|(name, row)| CountRequest {
                    uid: &name.0,
                    row,
                    up_to: first.get(name).copied().flatten(),
                })
                .collect();
            tx.count(&mut counted).await?;
            let activity =
                |update: &LockedUpdate| rows.get(&name(update)).map(|row| row.last_message_at);
            let mut order: Vec<(Option<EpochMs>, ChannelPk, usize)> = updates
                .iter()
                .enumerate()
                .map(|(at, update)| (activity(update), update.channel_id, at))
                .collect();
            order.sort_unstable();

            let mut outcomes: Vec<Option<BatchReply<UpdateOutcome>>> =
                updates.iter().map(|_| None).collect();
            let mut changed: HashSet<(Uid, ChannelPk)> = HashSet::new();
            for (_, _, at) in order {
                let update = &updates[at];
                if is_locked_elsewhere(update.uid) {
                    outcomes[at] = Some(BatchReply::RowLocked(row_hash(update.uid)));
                    continue;
                }
                let name = name(update);
                let Some(row) = rows.get_mut(&name).filter(|row| row.is_member()) else {
                    outcomes[at] = Some(BatchReply::Ready(Ok(UpdateOutcome::Unknown)));
                    continue;
                };
                let up_to = base.limits.cap_read(update.up_to, row.last_seq);
                if first.remove(&name).is_none() && row.needs_counts(up_to) {
                    continue;
                }
                if !(update.apply)(row, up_to) {
                    outcomes[at] =
                        Some(BatchReply::Ready(Ok(UpdateOutcome::Unchanged(row.clone()))));
                    continue;
                }
                let Some(cursor) = cursors.get_mut(update.uid.as_str()) else {
                    return Err(StoreError::Internal(
                        "cannot lock a user without a cursor".into(),
                    ));
                };
                renew_mark(row);
                *cursor = cursor.next(base.clock.now_ms());
                row.version = *cursor;
                row.stamped_revision = row.revision;
                outcomes[at] = Some(BatchReply::Ready(Ok(UpdateOutcome::Changed(row.clone()))));
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
    base.bus.users_changed(users);
    Ok(outcomes)
}
