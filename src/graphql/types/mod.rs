//! One type a file.

mod channel;
mod conversation;
mod history;
mod id;
mod list;
mod message;
mod messages;
mod node;
mod summary;
mod sync;

pub use self::channel::{Channel, ChannelInput};
pub use self::conversation::Conversation;
pub use self::history::{MessageConnection, Page, SeqCursor};
pub use self::list::{ConversationConnection, ConversationFilter};
pub use self::message::{Message, MessageHeaderInput};
pub use self::messages::Messages;
pub use self::node::Node;
pub use self::summary::UnreadSummary;
pub use self::sync::{ConversationSync, RemovedConversation};

pub(super) use self::conversation::RECENTS;
pub(super) use self::history::PAGE;

use chrono::{DateTime, Utc};

use crate::error::Error;
use crate::ids::ChannelType;

/// Epoch milliseconds as a `DateTime`.
fn date_time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

/// A count as `Int`, which ends at 2^31 − 1.
fn int(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Channel types that a client names.
pub(super) fn parse_channel_types(field: &'static str, numbers: &[i32]) -> Result<Vec<ChannelType>, Error> {
    numbers.iter().map(|number| ChannelType::parse(field, i64::from(*number))).collect()
}
