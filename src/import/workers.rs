//! Several tasks that share a list of users.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use tokio::task::JoinSet;

use crate::model::Uid;

/// Calls `act` for each user, for at most `parallel` at the same time. The first error ends all of
/// them.
pub(super) async fn for_each_user<Act, Done>(
    uids: &Arc<[Uid]>,
    parallel: usize,
    act: Act,
) -> anyhow::Result<()>
where
    Act: Fn(Uid) -> Done + Clone + Send + 'static,
    Done: Future<Output = anyhow::Result<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..parallel.min(uids.len()) {
        let (uids, next, act) = (Arc::clone(uids), Arc::clone(&next), act.clone());
        tasks.spawn(async move {
            while let Some(uid) = uids.get(next.fetch_add(1, Ordering::Relaxed)) {
                act(uid.clone())
                    .await
                    .with_context(|| format!("user {uid}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task has failed")??;
    }
    Ok(())
}
