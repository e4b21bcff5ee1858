//! Messages: sent here, or forwarded by a `WuKongIM`; stored once and never changed, except that a
//! repeat may complete the stream that a message begins.

mod answer_size;
mod find;
mod history;
mod ingest;
mod lookup;
mod recent_message_cache;
mod send;

pub use self::answer_size::AnswerSizeLimit;
pub(crate) use self::answer_size::{MESSAGE_BYTES, SizedInAnswer, fit_newest_first};
pub use self::find::find_messages;
pub(crate) use self::history::list_after;
pub use self::history::{BatchedPage, HistoryPage, HistoryRequest, list_histories, list_history};
pub use self::ingest::{IncomingMessage, IngestReport, MessageBatch, Recipients, ingest};
pub use self::lookup::{
    ChannelView, MessageNames, NamedMessages, find_last_message, find_max_seq, find_named_messages,
};
pub use self::recent_message_cache::{
    CachedMessages, MessageSlice, RecentMessageCache, RenderMessage,
};
pub use self::send::{SendReceipt, SendRequest, send};

use std::sync::Arc;

use self::ingest::IngestHandler;
use self::send::SendHandler;
use crate::base::Base;
use crate::batching::{Batcher, MAX_BATCH_SIZE};
use crate::channel::ChannelService;

/// Maximum number of ingest requests in one batch: each contains many messages.
const MAX_INGEST_BATCH_SIZE: usize = 16;

/// The use cases for messages.
#[derive(Debug)]
pub struct MessageService {
    pub(crate) base: Arc<Base>,
    /// Cache of the newest messages of channels.
    pub(crate) recent_messages: Arc<RecentMessageCache>,
    /// Messages to store.
    sends: Batcher<SendHandler>,
    /// Messages to ingest that another system stored.
    ingests: Batcher<IngestHandler>,
}

impl MessageService {
    /// Creates the service with a cache of `cache_bytes`. `render` makes the JSON of recent
    /// messages.
    pub(crate) fn new(
        channels: Arc<ChannelService>,
        cache_bytes: u64,
        render: RenderMessage,
    ) -> Self {
        let base = Arc::clone(&channels.base);
        let recent_messages = Arc::new(RecentMessageCache::new(cache_bytes, render));
        let send_handler = SendHandler {
            channels: Arc::clone(&channels),
            recent_messages: Arc::clone(&recent_messages),
        };
        Self {
            sends: base.batcher(send_handler, MAX_BATCH_SIZE),
            ingests: base.batcher(IngestHandler(channels), MAX_INGEST_BATCH_SIZE),
            recent_messages,
            base,
        }
    }
}
