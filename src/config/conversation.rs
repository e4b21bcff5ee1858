//! `[conversation]`

use serde::{Deserialize, Serialize};

/// `[conversation]`: the conversation list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConversationConfig {
    /// Serves recent conversations. When off (the built-in default, as in WuKongIM), messages are
    /// still stored.
    pub on: bool,
}
