//! Work beside requests.

use std::sync::Arc;
use std::time::Duration;

use crate::channel::run_bulk_removals;
use crate::live;
use crate::member_lookup::MemberLookupWorker;
use crate::rate_limit::RateLimiter;
use crate::repair::RepairWorker;
use crate::state::AppState;

/// How often the rate limiter drops callers that it need not remember any more.
const EVICTION_INTERVAL: Duration = Duration::from_secs(60);

/// The background work of a server: notifications between servers, polling for subscribers, member
/// look-ups, the repair of missing messages, removals of many members, fetching of keys, and eviction of rate limits.
pub struct BackgroundTasks {
    state: AppState,
    member_lookup_worker: Option<MemberLookupWorker>,
    repair_worker: RepairWorker,
}

impl BackgroundTasks {
    pub(super) fn new(
        state: AppState,
        member_lookup_worker: Option<MemberLookupWorker>,
        repair_worker: RepairWorker,
    ) -> Self {
        Self {
            state,
            member_lookup_worker,
            repair_worker,
        }
    }

    /// Runs for as long as the server does.
    pub async fn run(self) {
        let Self {
            state,
            member_lookup_worker,
            repair_worker,
        } = self;
        let settings = &state.settings.live;
        let notifications = live::run_redis_relay(
            Arc::clone(&state.core.base.bus),
            settings.clone(),
            state.core.base.ids.request_id(),
        );
        let member_lookups = async {
            if let Some(worker) = member_lookup_worker {
                worker.run(Arc::clone(&state.core.messages)).await;
            }
        };
        tokio::join!(
            state
                .feeds
                .poll(Duration::from_secs(settings.poll_interval_seconds)),
            notifications,
            evict_idle_callers(&state.rate_limiter),
            member_lookups,
            repair_worker.run(),
            state.authenticator.fetch_keys(),
            run_bulk_removals(&state.core.channels)
        );
    }
}

async fn evict_idle_callers(rate_limiter: &RateLimiter) {
    loop {
        tokio::time::sleep(EVICTION_INTERVAL).await;
        rate_limiter.evict_idle();
    }
}
