//! One type a file.

mod channel;
mod conversation;
mod history;
mod id;
mod message;
mod summary;
mod sync;

pub use self::channel::{Channel, ChannelInput};
pub use self::conversation::Conversation;
pub use self::history::{Messages, Page};
pub use self::message::{Message, MessageHeaderInput};
pub use self::summary::UnreadSummary;
pub use self::sync::{ConversationSync, RemovedConversation};

use chrono::{DateTime, Utc};

/// Epoch milliseconds as a `DateTime`.
fn date_time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

/// A count as `Int`, which ends at 2^31 − 1.
fn int(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
