//! Assigns versions to stale conversations, under the locks of their users.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::plan::{SyncPlan, plan_sync};
use crate::base::Base;
use crate::batching::{BatchHandler, BatchReply, BatchResult, row_hash};
use crate::model::{Uid, Version};
use crate::store::{LockPolicy, StoreError};

/// A request for new versions of a user's stale conversations.
#[derive(Debug)]
pub(crate) struct VersionAssignment {
    pub(super) uid: Uid,
    pub(super) client_version: Version,
    pub(super) read_after: Version,
    pub(super) first: Option<usize>,
}

/// Assigns versions to the conversations of several users in one transaction.
pub(in crate::conversation) struct VersionHandler(pub(in crate::conversation) Arc<Base>);

impl BatchHandler for VersionHandler {
    type Request = VersionAssignment;
    type Reply = SyncPlan;

    async fn run(
        &self,
        batch: Vec<Arc<VersionAssignment>>,
        lock_policy: LockPolicy,
    ) -> BatchResult<SyncPlan> {
        assign_versions(&self.0, &batch, lock_policy).await
    }
}

/// Assigns versions to changed conversations. Locks the users first and reads afterwards, so that
/// the read sees everything that was committed before.
pub(super) async fn assign_versions(
    base: &Base,
    all: &[Arc<VersionAssignment>],
    lock_policy: LockPolicy,
) -> BatchResult<SyncPlan> {
    let mut plans: Vec<Option<BatchReply<SyncPlan>>> = all.iter().map(|_| None).collect();
    // Several requests of one user run one after the other: the second one sees the versions of the
    // first.
    loop {
        let mut users: BTreeMap<&Uid, usize> = BTreeMap::new();
        for (at, assignment) in all
            .iter()
            .enumerate()
            .filter(|(at, _)| plans[*at].is_none())
        {
            users.entry(&assignment.uid).or_insert(at);
        }
        if users.is_empty() {
            return Ok(plans
                .into_iter()
                .map(|plan| plan.unwrap_or_else(|| BatchReply::Ready(Ok(SyncPlan::default()))))
                .collect());
        }
        let some: &Vec<&VersionAssignment> = &users.values().map(|at| &*all[*at]).collect();
        let given = base
            .store
            .transaction(|tx| async move {
                let cursors = tx
                    .lock_users(
                        &some
                            .iter()
                            .map(|assignment| assignment.uid.clone())
                            .collect::<Vec<_>>(),
                        lock_policy,
                    )
                    .await?;
                let locked = some
                    .iter()
                    .filter(|assignment| cursors.contains_key(assignment.uid.as_str()));
                let wanted: Vec<(&Uid, Version)> = locked
                    .map(|assignment| (&assignment.uid, assignment.read_after))
                    .collect();
                let mut rows = tx.list_changed(&wanted).await?;
                let mut plans = Vec::with_capacity(some.len());
                for VersionAssignment {
                    uid,
                    client_version,
                    first,
                    ..
                } in some
                {
                    let Some(cursor) = cursors.get(uid.as_str()).copied() else {
                        if lock_policy == LockPolicy::Wait {
                            return Err(StoreError::Internal(
                                "cannot lock a user without a cursor".into(),
                            ));
                        }
                        plans.push(None);
                        continue;
                    };
                    let rows = rows.remove(uid).unwrap_or_default();
                    plans.push(Some(plan_sync(
                        rows,
                        *client_version,
                        cursor,
                        base.clock.now_ms(),
                        *first,
                    )));
                }
                let stamps = some.iter().zip(
                    plans
                        .iter()
                        .map(|plan| plan.iter().flat_map(SyncPlan::stamped_rows)),
                );
                let stamps =
                    stamps.flat_map(|(assignment, rows)| rows.map(|row| (&assignment.uid, row)));
                tx.stamp(stamps.collect()).await?;
                tx.commit(plans).await
            })
            .await?;
        let given: Vec<(Uid, usize, Option<SyncPlan>)> = users
            .into_iter()
            .zip(given)
            .map(|((uid, at), plan)| (uid.clone(), at, plan))
            .collect();
        for (uid, at, plan) in given {
            match plan {
                Some(plan) => plans[at] = Some(BatchReply::Ready(Ok(plan))),
                // All requests of this user wait for the lock.
                None => {
                    for (assignment, plan) in all
                        .iter()
                        .zip(&mut plans)
                        .filter(|(assignment, _)| assignment.uid == uid)
                    {
                        plan.get_or_insert(BatchReply::RowLocked(row_hash(&assignment.uid)));
                    }
                }
            }
        }
    }
}
