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
mod target;

pub use self::channel::{Channel, ChannelInput};
pub use self::conversation::Conversation;
pub use self::history::{MessageConnection, Page, SeqCursor};
pub use self::list::{ConversationConnection, ConversationFilter};
pub use self::message::{Message, MessageHeaderInput};
pub use self::messages::Messages;
pub use self::node::Node;
pub use self::summary::{SummaryOf, UnreadSummary};
pub use self::sync::{ConversationSync, RemovedConversation};
pub use self::target::{ChannelTarget, ConversationTarget};

pub(super) use self::conversation::RECENTS;
pub(super) use self::history::PAGE;
pub(super) use self::target::{parse_channel, parse_user};

use std::collections::BTreeSet;

use crate::error::Error;
use crate::ids::ChannelType;

/// A count as `Int`, which ends at 2^31 − 1.
fn int(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Channel types that a client names.
pub(super) fn parse_channel_types(
    field: &'static str,
    numbers: &[i32],
) -> Result<Vec<ChannelType>, Error> {
    // Each once: they are looked through for every conversation.
    let numbers: BTreeSet<i32> = numbers.iter().copied().collect();
    numbers
        .into_iter()
        .map(|number| ChannelType::parse(field, i64::from(number)))
        .collect()
}
