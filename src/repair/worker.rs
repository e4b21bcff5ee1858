//! The repair as background work of a server. One of the servers on a database does it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::search::Search;
use super::{RepairError, RepairSummary, Repairer};
use crate::config::{ConfigError, IngestConfig};
use crate::model::{ChannelHead, ChannelPk, EpochMs};
use crate::outage::OutageLog;
use crate::services::Services;
use crate::store::{Feeder, MissingMessages};
use crate::upstream::WukongimClient;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often the missing messages are counted for the metrics.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);
/// How long a claim is valid. A server that does not renew its claim is considered dead.
const CLAIM_MS: i64 = 30_000;
/// Requests of the repair per second.
const REQUESTS_PER_SECOND: u32 = 50;
/// Channels of one look at the gaps.
const MAX_LISTED: u64 = 100;
/// How long to wait after a search before the next one, if nothing hints at a loss.
const SEARCH_INTERVAL_MS: i64 = 3_600_000;
const LONGEST_SEARCH_DELAY: Duration = Duration::from_secs(3600);
/// How long to wait until a channel that could not be repaired is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(300);
/// Maximum number of channels that wait for their next try; further ones are tried again at once.
const MAX_DELAYED: usize = 10_000;
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Counts missing messages, and fetches them if
/// `ingest.repair_url` is set.
pub(crate) struct RepairWorker {
    services: Arc<Services>,
    client: Option<Arc<WukongimClient>>,
    /// `ingest.repair_seconds`
    patience: Duration,
    outages: OutageLog,
    losses: OutageLog,
    delayed: HashMap<ChannelPk, Instant>,
    search: Option<Search>,
    counted: Instant,
    backoff: Duration,
    needs_search: bool,
    /// How long to wait from a request for a search to its beginning. It grows while searches find
    /// lost messages, so that servers whose clocks differ do not search all the time.
    search_delay: Duration,
    /// When this server noticed the request for the next search.
    requested: Option<Instant>,
    /// Until when this server has claimed the repair.
    claimed_until: EpochMs,
}

impl RepairWorker {
    /// Creates the worker of a server.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub(crate) fn new(
        services: Arc<Services>,
        settings: &IngestConfig,
    ) -> Result<Self, ConfigError> {
        let url = settings.repair_url.reveal();
        let client = if url.is_empty() {
            None
        } else {
            let token = settings.repair_token.reveal();
            let client = WukongimClient::new(url, token, REQUESTS_PER_SECOND)
                .map_err(|error| ConfigError(format!("ingest.repair_url: {error}")))?;
            Some(Arc::new(client))
        };
        let losses = if client.is_some() {
            "messages did not arrive by webhook: fetching them from ingest.repair_url"
        } else {
            "messages did not arrive by webhook: set ingest.repair_url, or run recents repair URL, to fetch them from the WuKongIM"
        };
        Ok(Self {
            services,
            client,
            patience: Duration::from_secs(settings.repair_seconds),
            outages: OutageLog::new(
                "ingest.repair_url does not answer: missing messages are fetched later",
                "ingest.repair_url answers again",
            ),
            losses: OutageLog::new(losses, "no messages are missing any more"),
            delayed: HashMap::new(),
            search: None,
            counted: Instant::now(),
            backoff: FIRST_BACKOFF,
            // Messages may have been lost while no server ran.
            needs_search: true,
            search_delay: Duration::ZERO,
            requested: None,
            claimed_until: EpochMs::ZERO,
        })
    }

    /// Runs as long as the server does.
    pub(crate) async fn run(mut self) {
        loop {
            let pause = match self.round().await {
                Ok(true) => Duration::ZERO,
                Ok(false) => POLL_INTERVAL,
                Err(RepairError::Unavailable(reason)) => {
                    self.outages.failed(&reason);
                    self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
                    self.backoff
                }
                // The database's outages are logged by the health check.
                Err(RepairError::Store(error)) => {
                    tracing::debug!(error = %error, "the repair waits for the database");
                    POLL_INTERVAL
                }
                Err(RepairError::Channel(reason)) => {
                    tracing::warn!(reason, "the repair of a channel failed");
                    POLL_INTERVAL
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Does some work. Returns whether there is more to do at once.
    async fn round(&mut self) -> Result<bool, RepairError> {
        let services = Arc::clone(&self.services);
        let (store, now) = (&services.base.store, services.base.clock.now_ms());
        if self.client.is_none() {
            self.count().await?;
            return Ok(false);
        }
        let Some(mut feeder) = store.find_feeder().await? else {
            return Ok(false);
        };
        self.count().await?;
        self.request_search().await?;
        let Some(client) = self.client.clone() else {
            return Ok(false);
        };
        let is_claimed_by_other =
            feeder.claimed_until != self.claimed_until && feeder.is_claimed(now, CLAIM_MS);
        if is_claimed_by_other || !store.claim_repair(&mut feeder, now.plus(CLAIM_MS)).await? {
            self.search = None;
            return Ok(false);
        }
        self.claimed_until = feeder.claimed_until;
        let repairer = Repairer {
            version: services.base.wukongim,
            began_at: feeder.began_at,
            overdue_before: self.overdue_before(now),
            services: Arc::clone(&services),
            client,
        };
        let result = self.repair(&repairer, &feeder, now).await;
        // Another server may continue.
        if self.search.is_none() {
            store.claim_repair(&mut feeder, EpochMs::ZERO).await?;
        }
        if result.is_ok() && self.outages.is_ongoing() && self.search.is_none() {
            self.outages.worked();
        }
        result
    }

    async fn repair(
        &mut self,
        repairer: &Repairer,
        feeder: &Feeder,
        now: EpochMs,
    ) -> Result<bool, RepairError> {
        let stored = self.fill_gaps(repairer, now).await?;
        if stored > 0 {
            tracing::info!(
                messages = stored,
                "fetched messages that no webhook brought"
            );
            // The newest messages of other channels may be lost as well.
            self.needs_search = true;
        }
        if self.search.is_none() && self.is_search_due(feeder, now) {
            self.search = Some(Search::new(now, feeder));
        }
        let Some(search) = &mut self.search else {
            return Ok(false);
        };
        let is_done = search.step(repairer).await?;
        self.backoff = FIRST_BACKOFF;
        if is_done {
            self.finish_search().await?;
        }
        Ok(!is_done)
    }

    fn is_search_due(&mut self, feeder: &Feeder, now: EpochMs) -> bool {
        if now.0 - feeder.searched_at.0 >= SEARCH_INTERVAL_MS {
            return true;
        }
        if feeder.search_requests == feeder.answered_requests {
            self.requested = None;
            return false;
        }
        let requested = *self.requested.get_or_insert_with(Instant::now);
        requested.elapsed() >= self.search_delay.max(self.patience)
    }

    async fn finish_search(&mut self) -> Result<(), RepairError> {
        let Some(search) = self.search.take() else {
            return Ok(());
        };
        let store = &self.services.base.store;
        store.record_search(search.began_at, search.answers).await?;
        self.requested = None;
        let RepairSummary {
            channels,
            stored,
            overdue,
            failed,
            ..
        } = search.summary;
        // Messages of channels that were searched before may have been lost since then.
        self.needs_search |= overdue > 0;
        self.search_delay = if overdue > 0 {
            (self.search_delay * 2).clamp(self.patience, LONGEST_SEARCH_DELAY)
        } else {
            Duration::ZERO
        };
        if stored > 0 {
            tracing::info!(
                channels,
                messages = stored,
                failed,
                "searched all channels, and fetched messages that no webhook brought"
            );
        } else {
            tracing::debug!(
                channels,
                failed,
                "searched all channels: no message is missing"
            );
        }
        Ok(())
    }

    /// Fetches the messages that have been missing for a while; returns their number.
    async fn fill_gaps(&mut self, repairer: &Repairer, now: EpochMs) -> Result<u64, RepairError> {
        let until = self.overdue_before(now);
        let store = &self.services.base.store;
        self.delayed.retain(|_, at| *at > Instant::now());
        // Delayed channels, which are the oldest ones, must not keep the others off the list.
        let limit = MAX_LISTED + self.delayed.len() as u64;
        let heads = store.list_incomplete_channels(until, limit).await?;
        let mut stored = 0;
        for head in heads {
            if self.delayed.contains_key(&head.id) {
                continue;
            }
            stored += self.fill_gaps_of(repairer, &head).await?;
        }
        Ok(stored)
    }

    async fn fill_gaps_of(
        &mut self,
        repairer: &Repairer,
        head: &ChannelHead,
    ) -> Result<u64, RepairError> {
        let result = repairer.fill_gaps(head).await;
        let summary = repairer.accept(head, result)?;
        self.backoff = FIRST_BACKOFF;
        if summary.failed > 0 && self.delayed.len() < MAX_DELAYED {
            self.delayed.insert(head.id, Instant::now() + RETRY_DELAY);
        }
        if summary.absent > 0 {
            tracing::warn!(
                channel = ?head.key,
                messages = summary.absent,
                "the WuKongIM does not have missing messages either, or they cannot be stored"
            );
        }
        Ok(summary.stored)
    }

    /// Messages that were sent, or missing, before this time should have arrived.
    fn overdue_before(&self, now: EpochMs) -> EpochMs {
        let patience_ms = i64::try_from(self.patience.as_millis()).unwrap_or(i64::MAX);
        now.plus(-patience_ms)
    }

    async fn count(&mut self) -> Result<(), RepairError> {
        if self.counted.elapsed() < COUNT_INTERVAL {
            return Ok(());
        }
        let MissingMessages { channels, messages } =
            self.services.base.store.count_missing().await?;
        self.counted = Instant::now();
        #[expect(
            clippy::cast_precision_loss,
            reason = "an approximate number is enough"
        )]
        {
            metrics::gauge!(crate::metrics::INCOMPLETE_CHANNELS).set(channels as f64);
            metrics::gauge!(crate::metrics::MISSING_MESSAGES).set(messages as f64);
        }
        let until = self.overdue_before(self.services.base.clock.now_ms());
        if messages == 0 {
            self.losses.worked();
        } else if self.services.base.store.has_missing_since(until).await? {
            self.losses
                .failed(&format!("{messages} messages of {channels} channels"));
        }
        Ok(())
    }

    /// Requests a search, which any server may do.
    async fn request_search(&mut self) -> Result<(), RepairError> {
        if self.services.webhooks.take_failure() || self.outages.is_ongoing() {
            self.needs_search = true;
        }
        if self.needs_search {
            self.services.base.store.request_search().await?;
            self.needs_search = false;
        }
        Ok(())
    }
}
