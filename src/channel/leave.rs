//! Leaving a channel: a change of the user's list like any other, under the user's lock and stamped
//! at once. A removal is stored also for a user who is not known as a member yet: a delayed webhook
//! must not bring the user in.

use std::collections::HashSet;

use crate::core::Core;
use crate::error::Error;
use crate::ids::Uid;
use crate::store::{ConversationRow, Locks, Membership, PendingRemoval, View};

/// Users that leave in one transaction: each of them is locked.
const LEAVING_AT_ONCE: usize = 500;

/// The removal that users leave by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removal {
    /// When, epoch ms.
    at: i64,
    /// Members who joined after the removal with this number stay.
    number: i64,
}

impl Removal {
    /// One that is done before its answer.
    pub(super) fn now(core: &Core) -> Self {
        Self {
            at: core.clock.now_ms(),
            number: i64::MAX,
        }
    }
}

impl From<&PendingRemoval> for Removal {
    fn from(pending: &PendingRemoval) -> Self {
        Self {
            at: pending.removed_at,
            number: pending.number,
        }
    }
}

/// Removes users from a channel.
pub(super) async fn leave(
    core: &Core,
    channel_id: i64,
    uids: &[Uid],
    removal: Removal,
) -> Result<(), Error> {
    let mut uids = uids.to_vec();
    uids.sort_unstable();
    uids.dedup();
    for uids in uids.chunks(LEAVING_AT_ONCE) {
        leave_some(core, channel_id, uids, removal).await?;
        for uid in uids {
            core.members.remove(channel_id, uid);
        }
    }
    Ok(())
}

async fn leave_some(
    core: &Core,
    channel_id: i64,
    uids: &[Uid],
    removal: Removal,
) -> Result<(), Error> {
    let pairs: Vec<(&Uid, i64)> = uids.iter().map(|uid| (uid, channel_id)).collect();
    let mut views = core.store.find_views(&pairs).await?;
    let now_ms = core.clock.now_ms();
    let absent: Vec<(Uid, ConversationRow)> = views
        .iter()
        .filter(|view| view.row.membership == Membership::Absent)
        .map(|view| {
            let row = ConversationRow {
                membership: Membership::Left,
                left_seq: view.row.last_seq,
                left_at: removal.at,
                ..view.row.clone()
            };
            (view.uid.clone(), row)
        })
        .collect();
    if !absent.is_empty() {
        core.store.insert_conversations(&absent).await?;
        // One of them may have become a member just now: then the row stayed as it was.
        views = core.store.find_views(&pairs).await?;
    }
    let removed: HashSet<&Uid> = absent.iter().map(|(uid, _)| uid).collect();
    let stays = |row: &ConversationRow| row.is_member() && row.joined_removals >= removal.number;
    let is_open =
        |view: &View| !stays(&view.row) && (view.row.is_member() || !removed.contains(&view.uid));
    let uids: Vec<Uid> = views
        .into_iter()
        .filter(is_open)
        .map(|view| view.uid)
        .collect();
    if uids.is_empty() {
        return Ok(());
    }
    core.store.ensure_cursors(&uids).await?;
    let uids = uids.as_slice();
    core.store
        .waiting_transaction(|tx| async move {
            let locked = tx.lock_users(uids, Locks::Wait).await?;
            let pairs: Vec<(&Uid, i64)> = uids.iter().map(|uid| (uid, channel_id)).collect();
            let mut views = tx.find_views(&pairs).await?;
            views.retain(|view| !stays(&view.row));
            for View { uid, row, .. } in &mut views {
                if row.is_member() {
                    row.left_seq = row.last_seq;
                }
                if matches!(row.membership, Membership::Member | Membership::Removed) {
                    row.membership = Membership::Left;
                    row.version = (locked.get(uid.as_str()).copied().unwrap_or(0) + 1).max(now_ms);
                    row.stamped_revision = row.revision;
                }
                // A user who is removed again stays away for as long as after the first time.
                row.left_at = row.left_at.max(removal.at);
            }
            views.retain(|view| view.row.membership == Membership::Left);
            tx.write_conversations(
                views.iter().map(|view| (&view.uid, &view.row)).collect(),
                &locked,
            )
            .await?;
            tx.commit(()).await
        })
        .await?;
    core.bus.users_changed(uids);
    Ok(())
}
