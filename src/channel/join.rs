//! Becoming a member: by a request, or because a message implies it.
//!
//! A user who has no conversation gets one by an insert that never overwrites, from the head that
//! was read: no lock is needed, because a row and any newer head belong together. A user who left
//! is locked: the row is written over.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use moka::sync::Cache;

use crate::conversation::{join, position, prepare_join};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{Seq, Uid};
use crate::store::{Counted, Locks, Membership, View};

/// Users that are looked up, or locked, at once.
const USERS_AT_ONCE: usize = 500;
/// A message makes a removed user a member again only when it was sent so long after the removal:
/// webhooks are delayed and repeated.
const REMOVAL_HOLDS_MS: i64 = 10_000;

/// The reason to take a user for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A request to add the user.
    Request,
    /// A message that the user sent or received.
    Message {
        /// Its seq: the user joins just below it.
        seq: Seq,
        /// When it was sent, epoch ms.
        sent_at: i64,
    },
}

impl Reason {
    fn below(self) -> Option<Seq> {
        match self {
            Self::Request => None,
            Self::Message { seq, .. } => Some(seq),
        }
    }

    /// Returns whether the reason makes the user a member, also against a removal.
    fn makes_member(self, view: &View) -> bool {
        let Self::Message { seq, sent_at } = self else {
            return true;
        };
        let is_after = |removed_at: i64| {
            removed_at == 0 || sent_at > removed_at.saturating_add(REMOVAL_HOLDS_MS)
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

/// A user who is, or should be, in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberHint {
    pub(crate) channel_id: i64,
    pub(crate) uid: Uid,
    pub(crate) reason: Reason,
}

/// Members who were seen lately, so that not every message asks for its sender. It forgets within a
/// minute: a user who is removed through another server may come back by a later message only after
/// that.
#[derive(Debug)]
pub(crate) struct KnownMembers(Cache<(i64, Uid), ()>);

impl KnownMembers {
    pub(crate) fn new() -> Self {
        Self(
            Cache::builder()
                .max_capacity(100_000)
                .time_to_live(Duration::from_secs(60))
                .build(),
        )
    }

    pub(crate) fn contains(&self, channel_id: i64, uid: &Uid) -> bool {
        self.0.contains_key(&(channel_id, uid.clone()))
    }

    fn insert(&self, channel_id: i64, uid: Uid) {
        self.0.insert((channel_id, uid), ());
    }

    pub(super) fn remove(&self, channel_id: i64, uid: &Uid) {
        self.0.invalidate(&(channel_id, uid.clone()));
    }
}

/// Makes users members, unless a stored removal stands against the hint; their devices are told.
/// Those for whom that could not be done, because somebody else holds their locks and nobody is to
/// wait.
///
/// # Errors
/// [`Error::Store`].
pub(crate) async fn join_members(
    core: &Core,
    hints: &[MemberHint],
    locks: Locks,
) -> Result<HashSet<Uid>, Error> {
    let mut held = HashSet::new();
    for hints in hints.chunks(USERS_AT_ONCE) {
        held.extend(join_some(core, hints, locks).await?);
    }
    Ok(held)
}

async fn join_some(core: &Core, hints: &[MemberHint], locks: Locks) -> Result<HashSet<Uid>, Error> {
    let mut reasons: HashMap<(i64, &Uid), Vec<Reason>> = HashMap::new();
    for hint in hints {
        reasons
            .entry((hint.channel_id, &hint.uid))
            .or_default()
            .push(hint.reason);
    }
    let pairs: Vec<(&Uid, i64)> = reasons
        .keys()
        .map(|(channel_id, uid)| (*uid, *channel_id))
        .collect();
    let mut new = Vec::new();
    let mut returning: Vec<(Uid, i64, Reason)> = Vec::new();
    for view in core.store.find_views(&pairs).await? {
        let channel_id = view.row.channel_id;
        let Some(reasons) = reasons.get(&(channel_id, &view.uid)) else {
            continue;
        };
        if view.row.is_member() {
            core.members.insert(channel_id, view.uid);
            continue;
        }
        // Of several messages the lowest decides where the membership begins.
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
    core.store
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
    core.store.insert_conversations(&rows).await?;
    let (rejoined, held) = rejoin(core, &returning, locks).await?;
    joined.extend(rejoined);
    core.bus.users_changed(&joined);
    Ok(held)
}

fn counted(view: &mut View) -> Counted<'_> {
    let up_to = Some(position(&view.row));
    Counted {
        uid: &view.uid,
        row: &mut view.row,
        up_to,
    }
}

/// Users who left become members again, under their locks; and those whose locks somebody else
/// holds.
async fn rejoin(
    core: &Core,
    returning: &[(Uid, i64, Reason)],
    locks: Locks,
) -> Result<(Vec<Uid>, HashSet<Uid>), Error> {
    if returning.is_empty() {
        return Ok((Vec::new(), HashSet::new()));
    }
    let uids: Vec<Uid> = returning.iter().map(|(uid, ..)| uid.clone()).collect();
    core.store.ensure_cursors(&uids).await?;
    let reasons: HashMap<(i64, &Uid), Reason> = returning
        .iter()
        .map(|(uid, channel_id, reason)| ((*channel_id, uid), *reason))
        .collect();
    let (uids, reasons) = (&uids, &reasons);
    core.store
        .transaction(|tx| async move {
            let locked = tx.lock_users(uids, locks).await?;
            let is_held = |uid: &Uid| locks == Locks::Skip && !locked.contains_key(uid.as_str());
            let held: HashSet<Uid> = uids.iter().filter(|uid| is_held(uid)).cloned().collect();
            let pairs: Vec<(&Uid, i64)> = reasons
                .keys()
                .map(|(channel_id, uid)| (*uid, *channel_id))
                .collect();
            let pairs: Vec<(&Uid, i64)> = pairs
                .into_iter()
                .filter(|(uid, _)| !held.contains(uid))
                .collect();
            let mut views = tx.find_views(&pairs).await?;
            let reason = |view: &View| reasons.get(&(view.row.channel_id, &view.uid)).copied();
            views.retain(|view| {
                reason(view)
                    .is_some_and(|reason| !view.row.is_member() && reason.makes_member(view))
            });
            for view in &mut views {
                let below = reason(view).and_then(Reason::below);
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
                held,
            ))
            .await
        })
        .await
}

/// Those of these users who are members stay it, whatever a removal of all members with this number
/// says.
pub(super) async fn stay(
    core: &Core,
    channel_id: i64,
    uids: &[Uid],
    number: i64,
) -> Result<(), Error> {
    for uids in uids.chunks(USERS_AT_ONCE) {
        core.store.ensure_cursors(uids).await?;
        core.store
            .waiting_transaction(|tx| async move {
                let locked = tx.lock_users(uids, Locks::Wait).await?;
                let pairs: Vec<(&Uid, i64)> = uids.iter().map(|uid| (uid, channel_id)).collect();
                let mut views = tx.find_views(&pairs).await?;
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
