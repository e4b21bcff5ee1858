//! Leaving a channel: an update of the user's list under the user's lock, stamped at once. A
//! removal is also stored for a user who is not known as a member yet, so that a delayed webhook
//! does not add the user.

use std::collections::HashSet;

use super::ChannelService;
use crate::error::Error;
use crate::model::{ChannelPk, ConversationRow, EpochMs, Membership, Uid};
use crate::store::{LockPolicy, MemberView, PendingRemoval};

/// Users who leave in one transaction; each of them is locked.
const MAX_USERS_PER_TRANSACTION: usize = 500;

/// Time and number of a removal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removal {
    /// When the users are removed.
    at: EpochMs,
    /// Members who joined after the removal with this number stay.
    number: i64,
}

impl Removal {
    /// A removal that is written before the response.
    pub(super) fn now(service: &ChannelService) -> Self {
        Self {
            at: service.base.clock.now_ms(),
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
    service: &ChannelService,
    channel_id: ChannelPk,
    uids: &[Uid],
    removal: Removal,
) -> Result<(), Error> {
    let mut uids = uids.to_vec();
    uids.sort_unstable();
    uids.dedup();
    for uids in uids.chunks(MAX_USERS_PER_TRANSACTION) {
        leave_some(service, channel_id, uids, removal).await?;
        for uid in uids {
            service.members.remove(channel_id, uid);
        }
    }
    Ok(())
}

async fn leave_some(
    service: &ChannelService,
    channel_id: ChannelPk,
    uids: &[Uid],
    removal: Removal,
) -> Result<(), Error> {
    let pairs: Vec<(&Uid, ChannelPk)> = uids.iter().map(|uid| (uid, channel_id)).collect();
    let mut views = service.base.store.find_member_views(&pairs).await?;
    let now_ms = service.base.clock.now_ms();
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
        service.base.store.insert_conversations(&absent).await?;
        // A user may have become a member just now; then the insert left the row unchanged.
        views = service.base.store.find_member_views(&pairs).await?;
    }
    let removed: HashSet<&Uid> = absent.iter().map(|(uid, _)| uid).collect();
    let stays = |row: &ConversationRow| row.is_member() && row.joined_removals >= removal.number;
    let is_open = |view: &MemberView| {
        !stays(&view.row) && (view.row.is_member() || !removed.contains(&view.uid))
    };
    let uids: Vec<Uid> = views
        .into_iter()
        .filter(is_open)
        .map(|view| view.uid)
        .collect();
    if uids.is_empty() {
        return Ok(());
    }
    service.base.store.ensure_cursors(&uids).await?;
    let uids = uids.as_slice();
    service
        .base
        .store
        .lock_waiting_transaction(|tx| async move {
            let locked = tx.lock_users(uids, LockPolicy::Wait).await?;
            let pairs: Vec<(&Uid, ChannelPk)> = uids.iter().map(|uid| (uid, channel_id)).collect();
            let mut views = tx.find_member_views(&pairs).await?;
            views.retain(|view| !stays(&view.row));
            for MemberView { uid, row, .. } in &mut views {
                if row.is_member() {
                    row.left_seq = row.last_seq;
                }
                if matches!(row.membership, Membership::Member | Membership::Removed) {
                    row.membership = Membership::Left;
                    let cursor = locked.get(uid.as_str()).copied().unwrap_or_default();
                    row.version = cursor.next(now_ms);
                    row.stamped_revision = row.revision;
                }
                // A repeated removal blocks the user for as long as the first one.
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
    service.base.bus.users_changed(uids);
    Ok(())
}
