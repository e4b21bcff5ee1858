//! Live changes. The database is the source of truth, and the bus only wakes subscribers: after its
//! commit a write publishes which channels and which users' lists changed, and subscribers read the
//! changes since their own version from the database. A lost invalidation only delays changes,
//! because the server also polls for missed changes at a slow interval.
//!
//! [`crate::bus`] delivers invalidations in this process; `redis` relays them to other servers.
//! `feeds` reads the changes and sends them as events, with one sync for all devices of a user;
//! `message_feeds` does the same for open chats. `connections` counts the open connections.

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
