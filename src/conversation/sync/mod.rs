//! Sync: returns what changed since the client's last sync.
//!
//! Versions are assigned when a client reads, under the user's lock. A message raises only its
//! channel's revision, so the cost of a send does not depend on the number of members, and every
//! new version is larger than all versions that were read before.

mod answer;
mod plan;
mod read;
mod request;
mod versions;

use std::sync::Arc;

pub use self::answer::{ConversationWithMessages, SyncAnswer};
pub(super) use self::answer::{SyncChanges, activity_order, build_answer, with_messages};
use self::plan::{SyncPlan, plan_sync};
pub(super) use self::read::ReadHandler;
use self::read::read_changed;
pub use self::request::{SyncDetail, SyncFilter, SyncRequest};
pub(super) use self::versions::VersionHandler;
use self::versions::{VersionAssignment, assign_versions};
use super::ConversationService;
use super::visibility::is_stale;
use crate::batching::{BatchReply, shard_of};
use crate::budget;
use crate::error::Error;
use crate::message::AnswerSizeLimit;
use crate::model::{Uid, Version};
use crate::store::LockPolicy;

/// Estimated memory of a conversation in an answer, without its messages.
const CONVERSATION_BYTES: usize = 500;
/// Syncs with more rows than this run in a transaction of their own instead of a batch.
const MAX_BATCHED_ROWS: usize = 200;

/// Returns the changes since `request.version`. All versions in the answer are committed.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn sync(
    service: &ConversationService,
    request: &SyncRequest,
) -> Result<SyncAnswer, Error> {
    sync_with_size_limit(
        service,
        request,
        &AnswerSizeLimit::new(service.base.limits.answer_bytes),
    )
    .await
}

/// Like [`sync`], for an answer that contains other data as well.
///
/// # Errors
/// Like [`sync`].
pub async fn sync_with_size_limit(
    service: &ConversationService,
    request: &SyncRequest,
    bytes: &AnswerSizeLimit,
) -> Result<SyncAnswer, Error> {
    service.base.check_conversations_on()?;
    // Unchanged rows are needed only to find messages that the client does not have.
    let needs_all = request.names_channels();
    let (plan, client_version, reset) = plan_changes(
        service,
        &request.uid,
        request.version.max(Version::ZERO),
        needs_all,
        request.first,
    )
    .await?;
    answer_from_plan(service, request, plan, client_version, reset, bytes).await
}

/// Returns all conversations of a user, each with a version.
pub(super) async fn plan_all(service: &ConversationService, uid: &Uid) -> Result<SyncPlan, Error> {
    Ok(plan_changes(service, uid, Version::ZERO, false, None)
        .await?
        .0)
}

/// Returns the rows of an answer with their versions, the version that it starts from, and whether
/// that differs from the requested version.
async fn plan_changes(
    service: &ConversationService,
    uid: &Uid,
    asked: Version,
    needs_all: bool,
    first: Option<usize>,
) -> Result<(SyncPlan, Version, bool), Error> {
    let mut read_after = if needs_all { Version::ZERO } else { asked };
    let mut found = read_changed(service, uid, read_after).await?;
    let reset = asked > found.cursor.unwrap_or_default();
    let client_version = if reset { Version::ZERO } else { asked };
    if reset && read_after > Version::ZERO {
        read_after = Version::ZERO;
        found = read_changed(service, uid, read_after).await?;
    }
    let assignment = VersionAssignment {
        uid: uid.clone(),
        client_version,
        read_after,
        first,
    };
    let plan = match found.cursor {
        Some(cursor) if !found.rows.iter().any(is_stale) => plan_sync(
            Arc::unwrap_or_clone(found).rows,
            client_version,
            cursor,
            service.base.clock.now_ms(),
            first,
        ),
        None if !service.base.store.has_conversations(uid).await? => SyncPlan::default(),
        cursor => {
            if cursor.is_none() {
                service
                    .base
                    .store
                    .insert_cursors(std::slice::from_ref(uid))
                    .await?;
            }
            if found.rows.len() <= MAX_BATCHED_ROWS {
                let shard = shard_of(uid, service.base.store.write_shards());
                service
                    .version_assignments
                    .submit(shard, assignment)
                    .await?
            } else {
                // In a batch, other requests would wait for it.
                let alone = [Arc::new(assignment)];
                let _permit = service.base.store.acquire_lock_wait_permit().await;
                match assign_versions(&service.base, &alone, LockPolicy::Wait)
                    .await?
                    .pop()
                {
                    Some(BatchReply::Ready(plan)) => plan?,
                    _ => SyncPlan::default(),
                }
            }
        }
    };
    budget::reserve_memory(
        (plan.rows.len() + plan.unchanged.len()).saturating_mul(CONVERSATION_BYTES),
    )?;
    Ok((plan, client_version, reset))
}

/// Like [`sync`], for a live feed at `request.version`. A feed nearly always has conversations to
/// stamp, so this takes the lock at once instead of reading without it first.
///
/// # Errors
/// Like [`sync`].
pub(crate) async fn sync_under_lock(
    service: &ConversationService,
    request: &SyncRequest,
) -> Result<SyncAnswer, Error> {
    let client_version = request.version;
    if client_version == Version::ZERO {
        return sync(service, request).await;
    }
    let assignment = VersionAssignment {
        uid: request.uid.clone(),
        client_version,
        read_after: client_version,
        first: request.first,
    };
    let shard = shard_of(&request.uid, service.base.store.write_shards());
    match service.version_assignments.submit(shard, assignment).await {
        Ok(plan) if plan.cursor >= client_version => {
            answer_from_plan(
                service,
                request,
                plan,
                client_version,
                false,
                &AnswerSizeLimit::new(service.base.limits.answer_bytes),
            )
            .await
        }
        Err(error) if error.is_transient() => Err(error),
        // After a restore of the database the version is unknown, or the user is.
        _ => sync(service, request).await,
    }
}

async fn answer_from_plan(
    service: &ConversationService,
    request: &SyncRequest,
    plan: SyncPlan,
    client_version: Version,
    reset: bool,
    bytes: &AnswerSizeLimit,
) -> Result<SyncAnswer, Error> {
    let SyncPlan {
        rows,
        version,
        has_more,
        unchanged,
        ..
    } = &plan;
    let changes = SyncChanges {
        rows: rows.iter().collect(),
        unchanged,
        version: *version,
        has_more: *has_more,
        client_version,
        reset,
    };
    build_answer(service, request, changes, bytes).await
}
