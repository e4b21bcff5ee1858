//! Live changes. The database is the source of truth, and the bus only wakes subscribers: a write
//! announces after its commit which channel or whose list changed, and subscribers read the
//! database from their own version. A lost invalidation delays a change but never loses it, because
//! subscribers are also polled at a slow interval.
//!
//! [`crate::bus`] delivers invalidations in this process; `redis` relays them to other servers. `feeds`
//! turns them into events, with one sync for all devices of a user; `message_feeds` does the same
//! for an open chat. `connections` counts the open connections.

use std::time::Duration;

use crate::auth::Caller;

mod connections;
mod feeds;
mod message_feeds;
mod redis;
mod retry;

pub(crate) use self::connections::{Connection, Connections};
pub(crate) use self::feeds::Feeds;
pub(crate) use self::message_feeds::MessageFeedRequest;
pub(crate) use self::redis::run_redis_relay;

/// Waits until the caller's token expires; for a service it never returns.
pub(crate) async fn wait_for_expiry(caller: &Caller) {
    match caller.expires_at() {
        None => std::future::pending().await,
        Some(at) => {
            let left = at.saturating_sub(jsonwebtoken::get_current_timestamp());
            // Longer times are capped at 30 days, because timers have a maximum.
            tokio::time::sleep(Duration::from_secs(left.min(30 * 86_400))).await;
        }
    }
}
