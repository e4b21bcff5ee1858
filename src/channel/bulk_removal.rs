//! Removal of many members: accepted in one short transaction of the channel, then written to the
//! members' rows in the background.
//!
//! A removal of all members is effective for all readers at once: the channel stores the removal's
//! number, each row stores the number of removals at the time of joining, and a row with a smaller
//! number is not a membership whatever else it contains. A removal of many named users is effective
//! for each of them when the row is written, within seconds. Both are listed in `pending_removal`
//! until all rows are written. Any server continues the work of another one: the result does not
//! depend on which server does it, or how often.

use std::time::{Duration, Instant};

use super::leave::{Removal, leave};
use super::{ChannelService, join};
use crate::error::Error;
use crate::model::{ChannelKey, ChannelPk, InvalidValue, Uid};
use crate::outage::OutageLog;
use crate::store::PendingRemoval;

/// Removals of up to this many members are written before the response, larger ones in the
/// background.
pub(super) const MAX_IMMEDIATE_REMOVALS: usize = 2000;
/// Rows that are written in one transaction.
const ROWS_PER_TRANSACTION: usize = 500;
/// Number of named users in one part of a removal.
const USERS_PER_PART: usize = 1000;
/// How long a claim is valid. A server that does not renew its claim is considered crashed.
const CLAIM_MS: i64 = 10_000;
/// How soon a removal is tried again if another server has claimed it, or it failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How often a server checks for removals that other servers have abandoned.
const POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Removes all members except `stay`, who must already be members.
pub(super) async fn enqueue_removal_of_all(
    service: &ChannelService,
    channel_id: ChannelPk,
    key: &ChannelKey,
    stay: &[Uid],
) -> Result<(), Error> {
    let now_ms = service.base.clock.now_ms();
    let number = service
        .base
        .store
        .lock_waiting_transaction(|tx| async move {
            if tx.lock_channel(channel_id).await?.is_none() {
                return Ok(None);
            }
            let number = tx.number_removal(channel_id).await?;
            tx.commit(Some(number)).await
        })
        .await?;
    let Some(number) = number else { return Ok(()) };
    // First the users who stay: a server that stops here has removed nobody.
    join::keep_members(service, channel_id, stay, number).await?;
    service
        .base
        .store
        .lock_waiting_transaction(|tx| async move {
            let Some(mut head) = tx.lock_channel(channel_id).await? else {
                return Ok(());
            };
            head.revision = head.revision.next();
            tx.write_heads(&[&head]).await?;
            tx.clear_members(&head, number).await?;
            tx.insert_pending_removal(channel_id, number, now_ms, &[])
                .await?;
            tx.commit(()).await
        })
        .await?;
    tracing::info!(channel = key.key, number, "removal of all members accepted");
    service.base.bus.channels_changed([(channel_id, key)]);
    service.removal_enqueued.notify_one();
    Ok(())
}

/// Removes many users by name.
pub(super) async fn enqueue_removal_of_users(
    service: &ChannelService,
    channel_id: ChannelPk,
    key: &ChannelKey,
    uids: &[Uid],
) -> Result<(), Error> {
    let now_ms = service.base.clock.now_ms();
    let parts: Vec<Vec<&str>> = uids
        .chunks(USERS_PER_PART)
        .map(|uids| uids.iter().map(Uid::as_str).collect())
        .collect();
    let parts = parts.as_slice();
    service
        .base
        .store
        .lock_waiting_transaction(|tx| async move {
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
        "removal of many members accepted"
    );
    service.removal_enqueued.notify_one();
    Ok(())
}

/// Applies pending removals to users who are about to join: an earlier removal must not take effect
/// after the join.
pub(super) async fn apply_pending_removals(
    service: &ChannelService,
    channel_id: ChannelPk,
    uids: &[Uid],
) -> Result<(), Error> {
    for (removal, named) in service.base.store.list_named_removals(channel_id).await? {
        let named: std::collections::HashSet<&str> = named.iter().map(String::as_str).collect();
        let joining: Vec<Uid> = uids
            .iter()
            .filter(|uid| named.contains(uid.as_str()))
            .cloned()
            .collect();
        leave(service, channel_id, &joining, Removal::from(&removal)).await?;
    }
    Ok(())
}

/// Writes pending removals to their rows, as long as the server runs.
pub(crate) async fn run_bulk_removals(service: &ChannelService) {
    let outages = OutageLog::new(
        "pending removals cannot be read or written: retrying",
        "pending removals are written again",
    );
    loop {
        let result = process_pending_removals(service).await;
        match &result {
            Ok(_) => outages.worked(),
            Err(error) => outages.failed(error),
        }
        let pause = match result {
            Ok(false) => POLL_INTERVAL,
            Ok(true) | Err(_) => RETRY_INTERVAL,
        };
        let _ = tokio::time::timeout(pause, service.removal_enqueued.notified()).await;
    }
}

/// Processes all removals that no other server has claimed. Returns whether there are claimed ones.
async fn process_pending_removals(service: &ChannelService) -> Result<bool, Error> {
    loop {
        let pending = service.base.store.list_pending_removals().await?;
        #[expect(clippy::cast_precision_loss, reason = "a thousand at most")]
        metrics::gauge!(crate::metrics::PENDING_REMOVALS).set(pending.len() as f64);
        let now_ms = service.base.clock.now_ms();
        let is_claimed = |removal: &PendingRemoval| {
            (now_ms..=now_ms.plus(CLAIM_MS)).contains(&removal.claimed_until)
        };
        let has_pending = !pending.is_empty();
        let Some(mut removal) = pending.into_iter().find(|removal| !is_claimed(removal)) else {
            return Ok(has_pending);
        };
        if service
            .base
            .store
            .claim_removal(&mut removal, now_ms.plus(CLAIM_MS))
            .await?
        {
            process_removal(service, removal).await?;
        }
    }
}

async fn process_removal(
    service: &ChannelService,
    mut removal: PendingRemoval,
) -> Result<(), Error> {
    let begun = Instant::now();
    let uids = service.base.store.list_removed_uids(&removal).await?;
    let mut written = 0;
    if uids.is_empty() {
        let mut after = String::new();
        loop {
            let uids = service
                .base
                .store
                .list_removed(
                    removal.channel_id,
                    removal.number,
                    &after,
                    ROWS_PER_TRANSACTION,
                )
                .await?;
            let Some(last) = uids.last() else { break };
            last.as_str().clone_into(&mut after);
            if !remove_chunk(service, &mut removal, &uids).await? {
                return Ok(());
            }
            written += uids.len();
        }
    } else {
        for uids in uids.chunks(ROWS_PER_TRANSACTION) {
            let uids = uids
                .iter()
                .map(|uid| Uid::parse("uid", uid.as_str()))
                .collect::<Result<Vec<Uid>, InvalidValue>>()?;
            if !remove_chunk(service, &mut removal, &uids).await? {
                return Ok(());
            }
            written += uids.len();
        }
    }
    service.base.store.finish_removal(&removal).await?;
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(
        channel_id = removal.channel_id.0,
        number = removal.number,
        rows = written,
        seconds,
        "bulk removal finished"
    );
    Ok(())
}

/// Returns false if another server has taken over the removal.
async fn remove_chunk(
    service: &ChannelService,
    removal: &mut PendingRemoval,
    uids: &[Uid],
) -> Result<bool, Error> {
    let begun = Instant::now();
    if !service
        .base
        .store
        .claim_removal(removal, service.base.clock.now_ms().plus(CLAIM_MS))
        .await?
    {
        return Ok(false);
    }
    leave(service, removal.channel_id, uids, Removal::from(&*removal)).await?;
    // Pauses for as long as the work took, to leave half of the database's time to requests.
    tokio::time::sleep(
        begun
            .elapsed()
            .clamp(Duration::from_millis(5), Duration::from_secs(1)),
    )
    .await;
    Ok(true)
}
