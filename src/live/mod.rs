//! Live changes. The database is the truth, the bus is a hint: a write says after its commit which
//! channel moved or whose list changed, and who is concerned looks for itself, from the version it
//! has. A hint that is lost costs delay, never a change: everybody is looked after at a slow
//! interval too.
//!
//! `bus` hands hints to who waits for them in this process and, through `redis`, in others. `feeds`
//! turns them into events: one look for all devices of a user. `messages` does the same for an open
//! chat. `connections` counts who is there.

use std::time::Duration;

use crate::auth::Caller;

mod bus;
mod connections;
mod feeds;
mod messages;
mod redis;

pub use self::bus::Bus;
pub(crate) use self::connections::{Connection, Connections};
pub(crate) use self::feeds::Feeds;
pub(crate) use self::messages::MessagesRequest;
pub(crate) use self::redis::attend;

/// Waits until the caller's right to be connected ends; of a service it never does.
pub(crate) async fn expiry(caller: &Caller) {
    match caller.expires_at() {
        None => std::future::pending().await,
        Some(at) => {
            let left = at.saturating_sub(jsonwebtoken::get_current_timestamp());
            // Tokens for years are tokens for a month: timers go no further.
            tokio::time::sleep(Duration::from_secs(left.min(30 * 86_400))).await;
        }
    }
}
