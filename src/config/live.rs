//! `[live]`

use serde::{Deserialize, Serialize};

use super::check::{DAY_SECONDS, check_ranges};
use super::{ConfigError, Url};

/// `[live]`: subscriptions over WebSocket and server-sent events (SSE).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveConfig {
    /// URL of a Redis that notifies the subscribers of other servers on the same database:
    /// `redis://USER:PASSWORD@HOST:PORT`, or `rediss://` with TLS. Without it, subscribers of other
    /// servers notice changes by polling.
    pub redis_url: Url,
    /// File that contains the URL instead.
    pub redis_url_file: String,
    /// Pub/sub channel in Redis. All servers of one database use the same.
    pub redis_channel: String,
    /// Interval at which subscriptions poll the database: the maximum delay of a change without a
    /// notification.
    pub poll_interval_seconds: u64,
    /// How long a change waits for others, so that they are sent as one event.
    pub debounce_ms: u64,
    /// How long a WebSocket client may take to send `connection_init`.
    pub connection_init_timeout_seconds: u64,
    /// Interval of pings (WebSocket) and comments (SSE) that keep connections alive. A client that
    /// misses two pings is disconnected.
    pub ping_interval_seconds: u64,
    /// How long a client may take to read an event. A slower client is disconnected.
    pub write_timeout_seconds: u64,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            redis_url: Url::default(),
            redis_url_file: String::new(),
            redis_channel: "recents".to_owned(),
            poll_interval_seconds: 5,
            debounce_ms: 10,
            connection_init_timeout_seconds: 5,
            ping_interval_seconds: 15,
            write_timeout_seconds: 10,
        }
    }
}

impl LiveConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges(
            "live",
            &[
                (
                    "poll_interval_seconds",
                    self.poll_interval_seconds,
                    1..=DAY_SECONDS,
                ),
                ("debounce_ms", self.debounce_ms, 0..=60_000),
                (
                    "connection_init_timeout_seconds",
                    self.connection_init_timeout_seconds,
                    1..=DAY_SECONDS,
                ),
                (
                    "ping_interval_seconds",
                    self.ping_interval_seconds,
                    1..=DAY_SECONDS,
                ),
                (
                    "write_timeout_seconds",
                    self.write_timeout_seconds,
                    1..=DAY_SECONDS,
                ),
            ],
        )?;
        let redis = self.redis_url.reveal();
        if !redis.is_empty() && redis::IntoConnectionInfo::into_connection_info(redis).is_err() {
            return Err(ConfigError(
                "live.redis_url must be like redis://… or rediss://…".to_owned(),
            ));
        }
        if self.redis_channel.is_empty() {
            return Err(ConfigError(
                "live.redis_channel must not be empty".to_owned(),
            ));
        }
        Ok(())
    }
}
