//! `[cache]`

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{MAX_VALUE, check_ranges};

/// `[cache]`: memory for caches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheConfig {
    /// Memory for the newest messages of channels, so that a sync reads only new messages; the
    /// least recently used are evicted. 0 disables the cache.
    pub recent_messages_bytes: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            recent_messages_bytes: 64 << 20,
        }
    }
}

impl CacheConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges(
            "cache",
            &[(
                "recent_messages_bytes",
                self.recent_messages_bytes,
                0..=MAX_VALUE,
            )],
        )
    }
}
