//! `[graphql]`

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{MAX_VALUE, check_ranges};

/// `[graphql]`: graphQL documents and their log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GraphqlConfig {
    /// Lets clients query the schema.
    pub introspection: bool,
    /// Memory for automatic persisted queries; the least recently used are evicted. 0 disables
    /// them.
    pub apq_cache_bytes: u64,
    /// File of persisted operations (Apollo's manifest, or a JSON object of hashes and documents).
    /// When set, no other operation runs.
    pub persisted_operations_file: String,
    /// Operations that take longer are logged, without the values of their variables. 0 logs none.
    pub slow_operation_ms: u64,
}

impl Default for GraphqlConfig {
    fn default() -> Self {
        Self {
            introspection: true,
            apq_cache_bytes: 16 << 20,
            persisted_operations_file: String::new(),
            slow_operation_ms: 1000,
        }
    }
}

impl GraphqlConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges(
            "graphql",
            &[
                ("apq_cache_bytes", self.apq_cache_bytes, 0..=MAX_VALUE),
                ("slow_operation_ms", self.slow_operation_ms, 0..=MAX_VALUE),
            ],
        )
    }
}
