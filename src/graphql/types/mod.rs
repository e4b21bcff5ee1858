//! The types of the schema, one in each file.

mod channel;
mod conversation;
mod conversation_connection;
mod message;
mod message_connection;
mod message_list;
mod node;
mod node_id;
mod pagination;
mod summary;
mod sync;
mod target;

pub use self::channel::{Channel, ChannelInput};
pub use self::conversation::Conversation;
pub use self::conversation_connection::{ConversationConnection, ConversationFilter};
pub use self::message::{Message, MessageHeaderInput};
pub use self::message_connection::{MessageConnection, SeqCursor};
pub use self::message_list::MessageList;
pub use self::node::Node;
pub use self::pagination::PageArguments;
pub use self::summary::{LazyUnreadSummary, UnreadSummary};
pub use self::sync::{ConversationSync, RemovedConversation};
pub use self::target::{ChannelTarget, ConversationTarget};

pub(super) use self::conversation::DEFAULT_RECENT_MESSAGES;
pub(super) use self::pagination::DEFAULT_PAGE_SIZE;
pub(super) use self::target::{parse_channel, parse_user};

use std::collections::BTreeSet;

use crate::model::{ChannelType, InvalidValue};

/// Converts a count to `Int`, saturating at 2^31 − 1.
fn int(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Parses channel types given by a client.
pub(super) fn parse_channel_types(
    field: &'static str,
    numbers: &[i32],
) -> Result<Vec<ChannelType>, InvalidValue> {
    // Duplicates are removed because the types are compared with every conversation.
    let numbers: BTreeSet<i32> = numbers.iter().copied().collect();
    numbers
        .into_iter()
        .map(|number| ChannelType::parse(field, i64::from(number)))
        .collect()
}
