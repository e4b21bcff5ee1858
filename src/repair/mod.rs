//! Finds messages that no webhook brought, and fetches them from the `WuKongIM`.
//!
//! A `WuKongIM` tries a webhook five times and drops it then, so messages are lost when this
//! server, its database, or the network is away for longer than some seconds. The seqs of a channel
//! are dense, so a later message shows the loss (`channel::fill_gaps`). The newest messages of a
//! channel may be lost as well; a search asks for the newest seq of every channel (`search`). It
//! runs after every start, after a webhook failed, after lost messages were found, and once an hour.
//!
//! Fetched messages are stored like late webhooks: read positions are not moved.

mod channel;
mod report;
mod search;
mod worker;

use std::sync::Arc;

pub use self::report::{GapReport, list_gaps};
pub use self::search::repair_all;
pub(crate) use self::worker::RepairWorker;
use crate::config::WukongimVersion;
use crate::error::Error;
use crate::model::EpochMs;
use crate::services::Services;
use crate::store::StoreError;
use crate::upstream::{RequestError, WukongimClient};

/// The `WuKongIM` to fetch messages from, and where to store them.
#[derive(Clone, Debug)]
pub struct Repairer {
    services: Arc<Services>,
    client: Arc<WukongimClient>,
    version: WukongimVersion,
    /// Messages that were sent earlier are not fetched: they are older than the first webhook.
    began_at: EpochMs,
    /// The webhooks of messages that were sent later may still be on their way.
    overdue_before: EpochMs,
}

impl Repairer {
    /// Creates a repairer for the messages since the first webhook.
    ///
    /// # Errors
    /// [`Error::Store`]
    pub async fn new(services: Arc<Services>, client: Arc<WukongimClient>) -> Result<Self, Error> {
        let feeder = services.base.store.find_feeder().await?;
        let now = services.base.clock.now_ms();
        Ok(Self {
            overdue_before: now,
            version: services.base.wukongim,
            began_at: feeder.map_or(now, |feeder| feeder.began_at),
            services,
            client,
        })
    }
}

/// The number of messages that a repair has dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairSummary {
    /// Number of channels that were looked at.
    pub channels: u64,
    /// Messages that were fetched and stored.
    pub stored: u64,
    /// Those of them that should have arrived by webhook.
    pub overdue: u64,
    /// Messages that the `WuKongIM` does not have, or that cannot be stored.
    pub absent: u64,
    /// Channels that could not be repaired.
    pub failed: u64,
}

impl RepairSummary {
    fn add(&mut self, other: Self) {
        self.channels += other.channels;
        self.stored += other.stored;
        self.overdue += other.overdue;
        self.absent += other.absent;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for RepairSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} channels looked at: {} messages stored, {} not there either, {} channels failed",
            self.channels, self.stored, self.absent, self.failed
        )
    }
}

/// The reason why a repair stopped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RepairError {
    /// The `WuKongIM` does not answer: no channel can be repaired now.
    #[error("{0}")]
    Unavailable(String),
    /// This channel cannot be repaired.
    #[error("{0}")]
    Channel(String),
    /// The database failed.
    #[error("{0}")]
    Store(Error),
}

impl From<RequestError> for RepairError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Unavailable(reason) => Self::Unavailable(reason),
            refusal => Self::Channel(refusal.to_string()),
        }
    }
}

impl From<Error> for RepairError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<StoreError> for RepairError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}
