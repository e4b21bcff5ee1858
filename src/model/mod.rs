//! Values that the store, the use cases and the interfaces share, with the rules that need nothing
//! else. Uses no other module, and does no I/O.

mod channel_gaps;
mod channel_head;
mod channel_key;
mod conversation_row;
mod ids;
mod invalid_value;
mod message;
mod numbers;
mod stream;
pub mod unread;

pub use self::channel_gaps::ChannelGaps;
pub use self::channel_head::{ChannelHead, ChannelSnapshotId};
pub use self::channel_key::ChannelKey;
pub use self::conversation_row::{ConversationRow, Counts, Membership, SenderMark};
pub use self::ids::{
    COMMAND_SUFFIX, ChannelRef, ChannelType, ID_BYTES, SYSTEM_UID, Uid, check_key,
};
pub use self::invalid_value::InvalidValue;
pub use self::message::{Content, Message};
pub use self::numbers::{ChannelPk, EpochMs, MessageId, Revision, Seq, Version};
pub use self::stream::{Stream, StreamState};
