//! What every use case works with.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use crate::channel::KnownMembers;
use crate::clock::{Clock, Ids};
use crate::config::{Limits, Settings, WukongimVersion};
use crate::conversation::{Changing, Outcome, Plan, Reading, Stamping};
use crate::datasource::Datasource;
use crate::error::Error;
use crate::live::Bus;
use crate::message::{Draft, Incoming, NewestCache, Report, Sent};
use crate::store::{Changed, Store};
use crate::together::Together;

/// Requests of one kind that share a transaction at most.
const AT_ONCE: usize = 128;
/// The same for bodies of many messages.
const BODIES_AT_ONCE: usize = 16;

/// The database, the time, and the settings that the use cases heed.
#[derive(Debug)]
pub struct Core {
    /// The database.
    pub store: Store,
    /// What time it is.
    pub clock: Clock,
    /// Ids that we give.
    pub ids: Ids,
    /// Where writes say what moved.
    pub bus: Arc<Bus>,
    /// Syncs that wait for their conversations.
    pub(crate) reads: Together<Reading, Arc<Changed>>,
    /// Syncs that wait for versions.
    pub(crate) stampings: Together<Stamping, Plan>,
    /// Conversations that wait to be changed.
    pub(crate) changes: Together<Changing, Outcome>,
    /// Messages that wait to be stored.
    pub(crate) sends: Together<Draft, Sent>,
    /// Bodies of messages that another system stored and that wait to be stored here.
    pub(crate) bodies: Together<Incoming, Report>,
    /// Members of groups whose messages came lately.
    pub(crate) members: KnownMembers,
    /// Told when many members are to be removed.
    pub(crate) removals: Notify,
    /// The newest messages of channels that were read lately.
    pub newest: NewestCache,
    /// Who is asked for members of groups that we do not know, where somebody is.
    pub(crate) datasource: OnceLock<Datasource>,
    /// `conversation.on`
    pub conversations_on: bool,
    /// `ingest.wukongim`
    pub wukongim: WukongimVersion,
    /// `[limits]`
    pub limits: Limits,
}

impl Core {
    /// The core of a server or of an import.
    #[must_use]
    pub fn new(store: Store, clock: Clock, ids: Ids, settings: &Settings) -> Self {
        let patience = Duration::from_secs(settings.limits.request_seconds);
        let waiters = store.waiters();
        Self {
            reads: Together::new(AT_ONCE, patience, waiters),
            stampings: Together::new(AT_ONCE, patience, waiters),
            changes: Together::new(AT_ONCE, patience, waiters),
            sends: Together::new(AT_ONCE, patience, waiters),
            bodies: Together::new(BODIES_AT_ONCE, patience, waiters),
            store,
            clock,
            ids,
            bus: Arc::default(),
            members: KnownMembers::new(),
            removals: Notify::new(),
            newest: NewestCache::new(settings.cache.messages_bytes),
            datasource: OnceLock::new(),
            conversations_on: settings.conversation.on,
            wukongim: settings.ingest.wukongim,
            limits: settings.limits.clone(),
        }
    }

    /// # Errors
    /// [`Error::ConversationsOff`] when they are.
    pub fn check_conversations_on(&self) -> Result<(), Error> {
        if self.conversations_on {
            Ok(())
        } else {
            Err(Error::ConversationsOff)
        }
    }
}
