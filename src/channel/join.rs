//! Joining a channel: by a request, or implied by a message.
//!
//! A user without a conversation gets one by an insert that never overwrites, based on the head
//! that was read. No lock is needed, because a row is valid with any newer head. A user who left is
//! locked, because the row is overwritten.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use moka::sync::Cache;

use super::ChannelService;
use crate::error::Error;
use crate::model::unread::{join, prepare_join, read_position};
use crate::model::{ChannelPk, EpochMs, Membership, Seq, Uid};
use crate::store::{CountRequest, LockPolicy, MemberView};

/// Maximum number of users in one statement or transaction.
const MAX_USERS_PER_TRANSACTION: usize = 500;
/// A message makes a removed user a member again only if it was sent this long after the removal,
/// because webhooks are delayed and repeated.
const REJOIN_BLOCK_MS: i64 = 10_000;

/// Why a user becomes a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinReason {
    /// A request to add the user.
    Request,
    /// A message that the user sent or received.
    Message {
        /// Seq of the message: the user joins just below it.
        seq: Seq,
        /// When it was sent.
        sent_at: EpochMs,
    },
}

impl JoinReason {
    fn below(self) -> Option<Seq> {
        match self {
            Self::Request => None,
            Self::Message { seq, .. } => Some(seq),
        }
    }

    /// Returns whether the user becomes a member, even after a removal.
    fn makes_member(self, view: &MemberView) -> bool {
        let Self::Message { seq, sent_at } = self else {
            return true;
        };
        let is_after = |removed_at: EpochMs| {
            removed_at == EpochMs::ZERO || sent_at > removed_at.plus(REJOIN_BLOCK_MS)
        };
        match view.row.membership {
            Membership::Absent => is_after(view.cleared_at),
            Membership::Left | Membership::Removed => {
                seq > view.row.left_seq && is_after(view.row.left_at) && is_after(view.cleared_at)
            }
            Membership::Member => false,
        }
    }
}

/// A user who is, or should become, a member of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberHint {
    pub(crate) channel_id: ChannelPk,
    pub(crate) uid: Uid,
    pub(crate) reason: JoinReason,
}

/// Cache of known members, so that not every message needs a look-up of its sender. Entries expire
/// after a minute: until then, a later message does not bring back a user who was removed through
/// another server.
#[derive(Debug)]
pub(crate) struct MemberCache(Cache<(ChannelPk, Uid), ()>);

impl MemberCache {
    pub(crate) fn new() -> Self {
        Self(
            Cache::builder()
                .max_capacity(100_000)
                .time_to_live(Duration::from_secs(60))
                .build(),
        )
    }

    pub(crate) fn contains(&self, channel_id: ChannelPk, uid: &Uid) -> bool {
        self.0.contains_key(&(channel_id, uid.clone()))
    }

    fn insert(&self, channel_id: ChannelPk, uid: Uid) {
        self.0.insert((channel_id, uid), ());
    }

    pub(super) fn remove(&self, channel_id: ChannelPk, uid: &Uid) {
        self.0.invalidate(&(channel_id, uid.clone()));
    }
}

/// Makes users members, unless a stored removal contradicts the hint, and notifies their devices.
/// Returns the users who could not join because another transaction holds their lock and
/// `lock_policy` is not to wait.
///
/// # Errors
/// [`Error::Store`].
pub(crate) async fn join_members(
    service: &ChannelService,
    hints: &[MemberHint],
    lock_policy: LockPolicy,
) -> Result<HashSet<Uid>, Error> {
    let mut locked_elsewhere = HashSet::new();
    for hints in hints.chunks(MAX_USERS_PER_TRANSACTION) {
        locked_elsewhere.extend(join_some(service, hints, lock_policy).await?);
    }
    Ok(locked_elsewhere)
}

async fn join_some(
    service: &ChannelService,
    hints: &[MemberHint],
    lock_policy: LockPolicy,
) -> Result<HashSet<Uid>, Error> {
    let mut reasons: HashMap<(ChannelPk, &Uid), Vec<JoinReason>> = HashMap::new();
    for hint in hints {
        reasons
            .entry((hint.channel_id, &hint.uid))
            .or_default()
            .push(hint.reason);
    }
    let pairs: Vec<(&Uid, ChannelPk)> = reasons
        .keys()
        .map(|(channel_id, uid)| (*uid, *channel_id))
        .collect();
    let mut new = Vec::new();
    let mut returning: Vec<(Uid, ChannelPk, JoinReason)> = Vec::new();
    for view in service.base.store.find_member_views(&pairs).await? {
        let channel_id = view.row.channel_id;
        let Some(reasons) = reasons.get(&(channel_id, &view.uid)) else {
            continue;
        };
        if view.row.is_member() {
            service.members.insert(channel_id, view.uid);
            continue;
        }
        // If several messages imply the membership, it begins below the lowest one.
        let reason = reasons
            .iter()
            .copied()
            .filter(|reason| reason.makes_member(&view))
            .min_by_key(|reason| reason.below());
        if let Some(reason) = reason {
            match view.row.membership {
                Membership::Absent => new.push((view, reason)),
                _ => returning.push((view.uid, channel_id, reason)),
            }
        }
    }
    let mut joined = Vec::with_capacity(new.len() + returning.len());
    for (view, reason) in &mut new {
        prepare_join(&mut view.row, reason.below());
    }
    service
        .base
        .store
        .count(
            &mut new
                .iter_mut()
                .map(|(view, _)| counted(view))
                .collect::<Vec<_>>(),
        )
        .await?;
    let mut rows = Vec::with_capacity(new.len());
    for (mut view, _) in new {
        join(&mut view.row);
        view.row.joined_removals = view.removals;
        joined.push(view.uid.clone());
        rows.push((view.uid, view.row));
    }
    service.base.store.insert_conversations(&rows).await?;
    let (rejoined, locked_elsewhere) = rejoin(service, &returning, lock_policy).await?;
    joined.extend(rejoined);
    service.base.bus.users_changed(&joined);
    Ok(locked_elsewhere)
}

fn counted(view: &mut MemberView) -> CountRequest<'_> {
    let up_to = Some(read_position(&view.row));
    CountRequest {
        uid: &view.uid,
        row: &mut view.row,
        up_to,
    }
}

/// Makes users who left members again, under their locks. Returns the users who joined, and those
/// whose locks another transaction holds.
async fn rejoin(
    service: &ChannelService,
    returning: &[(Uid, ChannelPk, JoinReason)],
    lock_policy: LockPolicy,
) -> Result<(Vec<Uid>, HashSet<Uid>), Error> {
    if returning.is_empty() {
        return Ok((Vec::new(), HashSet::new()));
    }
    let uids: Vec<Uid> = returning.iter().map(|(uid, ..)| uid.clone()).collect();
    service.base.store.ensure_cursors(&uids).await?;
    let reasons: HashMap<(ChannelPk, &Uid), JoinReason> = returning
        .iter()
        .map(|(uid, channel_id, reason)| ((*channel_id, uid), *reason))
        .collect();
    let (uids, reasons) = (&uids, &reasons);
    let joined = service
        .base
        .store
        .transaction(|tx| async move {
            let locked = tx.lock_users(uids, lock_policy).await?;
            let is_locked_elsewhere = |uid: &Uid| {
                lock_policy == LockPolicy::SkipLocked && !locked.contains_key(uid.as_str())
            };
            let locked_elsewhere: HashSet<Uid> = uids
                .iter()
                .filter(|uid| is_locked_elsewhere(uid))
                .cloned()
                .collect();
            let pairs: Vec<(&Uid, ChannelPk)> = reasons
                .keys()
                .map(|(channel_id, uid)| (*uid, *channel_id))
                .collect();
            let pairs: Vec<(&Uid, ChannelPk)> = pairs
                .into_iter()
                .filter(|(uid, _)| !locked_elsewhere.contains(uid))
                .collect();
            let mut views = tx.find_member_views(&pairs).await?;
            let reason =
                |view: &MemberView| reasons.get(&(view.row.channel_id, &view.uid)).copied();
            views.retain(|view| {
                reason(view)
                    .is_some_and(|reason| !view.row.is_member() && reason.makes_member(view))
            });
            for view in &mut views {
                let below = reason(view).and_then(JoinReason::below);
                prepare_join(&mut view.row, below);
            }
            tx.count(&mut views.iter_mut().map(counted).collect::<Vec<_>>())
                .await?;
            for view in &mut views {
                join(&mut view.row);
                view.row.joined_removals = view.removals;
            }
            tx.write_conversations(
                views.iter().map(|view| (&view.uid, &view.row)).collect(),
                &locked,
            )
            .await?;
            tx.commit((
                views.into_iter().map(|view| view.uid).collect::<Vec<Uid>>(),
                locked_elsewhere,
            ))
            .await
        })
        .await?;
    Ok(joined)
}

/// Protects these users, if they are members, from the removal of all members with this number.
pub(super) async fn keep_members(
    service: &ChannelService,
    channel_id: ChannelPk,
    uids: &[Uid],
    number: i64,
) -> Result<(), Error> {
    for uids in uids.chunks(MAX_USERS_PER_TRANSACTION) {
        service.base.store.ensure_cursors(uids).await?;
        service
            .base
            .store
            .lock_waiting_transaction(|tx| async move {
                let locked = tx.lock_users(uids, LockPolicy::Wait).await?;
                let pairs: Vec<(&Uid, ChannelPk)> =
                    uids.iter().map(|uid| (uid, channel_id)).collect();
                let mut views = tx.find_member_views(&pairs).await?;
                views.retain(|view| view.row.is_member());
                for view in &mut views {
                    view.row.joined_removals = view.row.joined_removals.max(number);
                }
                tx.write_conversations(
                    views.iter().map(|view| (&view.uid, &view.row)).collect(),
                    &locked,
                )
                .await?;
                tx.commit(()).await
            })
            .await?;
    }
    Ok(())
}
