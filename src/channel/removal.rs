//! Removals of many members: accepted in one short transaction of the channel, written to the
//! members' rows in the background.
//!
//! A removal of all members is at once what everybody reads: the channel has the removal's number,
//! each row the number of removals when its user joined, and a row with a smaller number is no
//! membership whatever else it says. A removal of many named users is true of each of them when the
//! row is written, within seconds. Both wait in `pending_removal` until all rows say it. Any server
//! goes on with what another one left: nothing depends on who does it, or how often it is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::leave::{Removal, leave};
use super::{ChannelKey, join};
use crate::core::Core;
use crate::error::Error;
use crate::ids::Uid;
use crate::store::PendingRemoval;

/// So many members are removed before the answer; more, in the background.
pub(super) const AT_ONCE: usize = 2000;
/// Rows that are written in one transaction.
const ROWS: usize = 500;
/// Named users of one part of a removal.
const NAMED: usize = 1000;
/// A server that worked on a removal and has not been heard of for so long is gone.
const CLAIM_MS: i64 = 10_000;
/// How long after a removal that another server works on, or that failed, it is looked at again.
const SOON: Duration = Duration::from_secs(2);
/// How long at most until a server sees what others left that are gone.
const LATER: Duration = Duration::from_secs(60);

/// Removes all members but some, who are members now.
pub(super) async fn accept_all(
    core: &Core,
    channel_id: i64,
    key: &ChannelKey,
    stay: &[Uid],
) -> Result<(), Error> {
    let now_ms = core.clock.now_ms();
    let number = core
        .store
        .waiting_transaction(|tx| async move {
            if tx.lock_channel(channel_id).await?.is_none() {
                return Ok(None);
            }
            let number = tx.number_removal(channel_id).await?;
            tx.commit(Some(number)).await
        })
        .await?;
    let Some(number) = number else { return Ok(()) };
    // First those who stay: a server that ends here has removed nobody.
    join::stay(core, channel_id, stay, number).await?;
    core.store
        .waiting_transaction(|tx| async move {
            let Some(mut head) = tx.lock_channel(channel_id).await? else {
                return Ok(());
            };
            head.revision += 1;
            tx.write_heads(&[&head]).await?;
            tx.clear_members(&head, number).await?;
            tx.insert_pending_removal(channel_id, number, now_ms, &[])
                .await?;
            tx.commit(()).await
        })
        .await?;
    tracing::info!(
        channel = key.key,
        number,
        "all members of a channel are being removed"
    );
    core.bus.channels_moved([(channel_id, key)]);
    core.removals.notify_one();
    Ok(())
}

/// Removes many users by name.
pub(super) async fn accept_named(
    core: &Core,
    channel_id: i64,
    key: &ChannelKey,
    uids: &[Uid],
) -> Result<(), Error> {
    let now_ms = core.clock.now_ms();
    let parts: Vec<Vec<&str>> = uids
        .chunks(NAMED)
        .map(|uids| uids.iter().map(Uid::as_str).collect())
        .collect();
    let parts = parts.as_slice();
    core.store
        .waiting_transaction(|tx| async move {
            if tx.lock_channel(channel_id).await?.is_none() {
                return Ok(());
            }
            let number = tx.number_removal(channel_id).await?;
            tx.insert_pending_removal(channel_id, number, now_ms, parts)
                .await?;
            tx.commit(()).await
        })
        .await?;
    tracing::info!(
        channel = key.key,
        users = uids.len(),
        "many members of a channel are being removed"
    );
    core.removals.notify_one();
    Ok(())
}

/// Writes what pending removals say of users who are about to join: a removal that was asked for
/// before must not come after.
pub(super) async fn hasten(core: &Core, channel_id: i64, uids: &[Uid]) -> Result<(), Error> {
    for (removal, named) in core.store.list_named_removals(channel_id).await? {
        let named: std::collections::HashSet<&str> = named.iter().map(String::as_str).collect();
        let joining: Vec<Uid> = uids
            .iter()
            .filter(|uid| named.contains(uid.as_str()))
            .cloned()
            .collect();
        leave(core, channel_id, &joining, Removal::from(&removal)).await?;
    }
    Ok(())
}

/// Writes pending removals to their rows, for as long as the server runs.
pub(crate) async fn write_removals(core: &Arc<Core>) {
    loop {
        let pause = match write_pending(core).await {
            Ok(true) => SOON,
            Ok(false) => LATER,
            Err(error) => {
                tracing::warn!(%error, "pending removals cannot be written now");
                SOON
            }
        };
        let _ = tokio::time::timeout(pause, core.removals.notified()).await;
    }
}

/// All removals that no other server works on; returns whether there are such.
async fn write_pending(core: &Core) -> Result<bool, Error> {
    loop {
        let pending = core.store.list_pending_removals().await?;
        #[expect(clippy::cast_precision_loss, reason = "a thousand at most")]
        metrics::gauge!("recents_pending_removals").set(pending.len() as f64);
        let now_ms = core.clock.now_ms();
        let is_others = |removal: &PendingRemoval| {
            (now_ms..=now_ms + CLAIM_MS).contains(&removal.claimed_until)
        };
        let are_others = !pending.is_empty();
        let Some(mut removal) = pending.into_iter().find(|removal| !is_others(removal)) else {
            return Ok(are_others);
        };
        if core
            .store
            .claim_removal(&mut removal, now_ms + CLAIM_MS)
            .await?
        {
            write_one(core, removal).await?;
        }
    }
}

async fn write_one(core: &Core, mut removal: PendingRemoval) -> Result<(), Error> {
    let begun = Instant::now();
    let uids = core.store.list_removed_uids(&removal).await?;
    let mut written = 0;
    if uids.is_empty() {
        let mut after = String::new();
        loop {
            let uids = core
                .store
                .list_removed(removal.channel_id, removal.number, &after, ROWS)
                .await?;
            let Some(last) = uids.last() else { break };
            last.as_str().clone_into(&mut after);
            if !write_some(core, &mut removal, &uids).await? {
                return Ok(());
            }
            written += uids.len();
        }
    } else {
        for uids in uids.chunks(ROWS) {
            let uids = uids
                .iter()
                .map(|uid| Uid::parse("uid", uid.as_str()))
                .collect::<Result<Vec<Uid>, Error>>()?;
            if !write_some(core, &mut removal, &uids).await? {
                return Ok(());
            }
            written += uids.len();
        }
    }
    core.store.finish_removal(&removal).await?;
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(
        channel_id = removal.channel_id,
        number = removal.number,
        rows = written,
        seconds,
        "members are removed"
    );
    Ok(())
}

/// False when another server goes on with it.
async fn write_some(
    core: &Core,
    removal: &mut PendingRemoval,
    uids: &[Uid],
) -> Result<bool, Error> {
    let begun = Instant::now();
    if !core
        .store
        .claim_removal(removal, core.clock.now_ms() + CLAIM_MS)
        .await?
    {
        return Ok(false);
    }
    leave(core, removal.channel_id, uids, Removal::from(&*removal)).await?;
    // Half of the time, and of the database, is for those who wait.
    tokio::time::sleep(
        begun
            .elapsed()
            .clamp(Duration::from_millis(5), Duration::from_secs(1)),
    )
    .await;
    Ok(true)
}
