//! The shared state of all use cases.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::batching::Batcher;
use crate::channel::MemberCache;
use crate::clock::{Clock, IdGenerator};
use crate::config::{Limits, Settings, WukongimVersion};
use crate::conversation::{ReadHandler, UpdateHandler, VersionHandler};
use crate::error::Error;
use crate::live::NotificationBus;
use crate::member_lookup::MemberLookup;
use crate::message::{IngestHandler, RecentMessageCache, RenderMessage, SendHandler};
use crate::store::{Store, StoreError};

/// Maximum number of requests in one batch.
const MAX_BATCH_SIZE: usize = 128;
/// Maximum number of ingest requests in one batch: each contains many messages.
const MAX_INGEST_BATCH_SIZE: usize = 16;

/// The database, the clock, the batchers and the settings of the use cases.
#[derive(Debug)]
pub struct Services {
    /// The database.
    pub store: Store,
    /// The clock.
    pub clock: Clock,
    /// Generator of message ids, request ids and client numbers.
    pub ids: IdGenerator,
    /// Notifies subscriptions of changes.
    pub bus: Arc<NotificationBus>,
    /// Reads of conversations.
    pub(crate) reads: Batcher<ReadHandler>,
    /// Assignments of versions.
    pub(crate) version_assignments: Batcher<VersionHandler>,
    /// Updates of conversations.
    pub(crate) updates: Batcher<UpdateHandler>,
    /// Messages to store.
    pub(crate) sends: Batcher<SendHandler>,
    /// Messages to ingest that another system stored.
    pub(crate) ingests: Batcher<IngestHandler>,
    /// Cache of group members.
    pub(crate) members: MemberCache,
    /// Wakes the worker that writes bulk removals.
    pub(crate) removal_enqueued: Notify,
    /// Cache of the newest messages of channels.
    pub recent_messages: RecentMessageCache,
    /// Queue of groups whose members are unknown, if `ingest.datasource_url` is set.
    pub(crate) member_lookup: OnceLock<MemberLookup>,
    /// `conversation.on`
    pub conversations_on: bool,
    /// `ingest.wukongim`
    pub wukongim: WukongimVersion,
    /// `[limits]`
    pub limits: Limits,
}

impl Services {
    /// Creates the services of a server or an import. `render` makes the JSON of recent messages.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Clock,
        ids: IdGenerator,
        settings: &Settings,
        render: RenderMessage,
    ) -> Arc<Self> {
        let timeout = Duration::from_secs(settings.limits.request_timeout_seconds);
        let permits = &Arc::clone(store.lock_wait_permits());
        // Each batcher is part of the services that its handler uses.
        Arc::new_cyclic(|services: &Weak<Self>| Self {
            reads: Batcher::new(
                ReadHandler(Weak::clone(services)),
                MAX_BATCH_SIZE,
                timeout,
                permits,
            ),
            version_assignments: Batcher::new(
                VersionHandler(Weak::clone(services)),
                MAX_BATCH_SIZE,
                timeout,
                permits,
            ),
            updates: Batcher::new(
                UpdateHandler(Weak::clone(services)),
                MAX_BATCH_SIZE,
                timeout,
                permits,
            ),
            sends: Batcher::new(
                SendHandler(Weak::clone(services)),
                MAX_BATCH_SIZE,
                timeout,
                permits,
            ),
            ingests: Batcher::new(
                IngestHandler(Weak::clone(services)),
                MAX_INGEST_BATCH_SIZE,
                timeout,
                permits,
            ),
            store,
            clock,
            ids,
            bus: Arc::default(),
            members: MemberCache::new(),
            removal_enqueued: Notify::new(),
            recent_messages: RecentMessageCache::new(settings.cache.recent_messages_bytes, render),
            member_lookup: OnceLock::new(),
            conversations_on: settings.conversation.on,
            wukongim: settings.ingest.wukongim,
            limits: settings.limits.clone(),
        })
    }

    /// Returns the services for a handler of batches.
    ///
    /// # Errors
    /// The server is shutting down.
    pub(crate) fn upgrade(services: &Weak<Self>) -> Result<Arc<Self>, Error> {
        let stopped = || StoreError::Unavailable("the server is shutting down".into());
        Ok(services.upgrade().ok_or_else(stopped)?)
    }

    /// # Errors
    /// [`Error::ConversationsOff`] if conversations are disabled.
    pub fn check_conversations_on(&self) -> Result<(), Error> {
        if self.conversations_on {
            Ok(())
        } else {
            Err(Error::ConversationsOff)
        }
    }
}
