//! Requests to a running `WuKongIM`: of imports, and of the repair of missing messages.

mod client;
mod conversations;
mod history;
mod memory;
mod pace;

pub use self::client::{RequestError, WukongimClient};
pub(crate) use self::conversations::{UpstreamConversation, list_conversations};
pub(crate) use self::history::{ChannelHistory, HistoryPage};
pub(crate) use self::memory::AnswerMemory;
