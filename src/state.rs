//! The server's state, shared by request handlers and background tasks.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::{Authenticator, Caller, ServiceAddresses};
use crate::budget::Budgets;
use crate::clock::{Clock, IdGenerator};
use crate::config::{ConfigError, Settings};
use crate::error::Error;
use crate::forward::Forwarding;
use crate::live::{Connections, Feeds};
use crate::member_lookup::{self, MemberLookupWorker};
use crate::message::RenderMessage;
use crate::outage::OutageLog;
use crate::proxy::WukongimProxy;
use crate::rate_limit::RateLimiter;
use crate::services::Services;
use crate::store::Store;

/// The state that every handler receives. Cheap to clone: all clones share one allocation.
#[derive(Clone)]
pub struct AppState(Arc<AppStateInner>);

impl Deref for AppState {
    type Target = AppStateInner;

    fn deref(&self) -> &AppStateInner {
        &self.0
    }
}

/// The fields behind an [`AppState`].
pub struct AppStateInner {
    /// The use cases.
    pub core: Arc<Services>,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Cancelled when a shutdown is requested: from then on the server is not ready, but it takes
    /// requests for another `server.drain_seconds`.
    pub draining: CancellationToken,
    /// Cancelled when a shutdown begins: the server takes no more connections.
    pub shutdown: CancellationToken,
    /// The log of health checks that failed because of the database.
    pub(crate) readiness: OutageLog,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) rate_limiter: Arc<RateLimiter>,
    pub(crate) connections: Connections,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) budgets: Budgets,
    pub(crate) service_addresses: ServiceAddresses,
    pub(crate) forwarding: Forwarding,
}

impl AppState {
    /// Builds the state, and the worker that looks members up where `ingest.datasource_url` is set.
    /// `render` makes the JSON of recent messages.
    ///
    /// # Errors
    /// A key file that cannot be read; certificates of the system that cannot be read.
    pub(crate) fn new(
        settings: Settings,
        store: Store,
        clock: Clock,
        ids: IdGenerator,
        render: RenderMessage,
    ) -> Result<(Self, Option<MemberLookupWorker>), ConfigError> {
        let mut core = Services::new(store, clock, ids, &settings, render);
        let datasource_url = settings.ingest.datasource_url.reveal();
        let mut member_lookup_worker = None;
        if !datasource_url.is_empty() {
            let (member_lookup, worker) = member_lookup::create(datasource_url)?;
            core.member_lookup = Some(member_lookup);
            member_lookup_worker = Some(worker);
        }
        core.proxy = WukongimProxy::new(&settings.proxy)?.map(Arc::new);
        let core = Arc::new(core);
        // The other half of the database connections is left to requests.
        let concurrent_syncs = settings.database.max_connections as usize / 2;
        let feeds = Arc::new(Feeds::new(
            Arc::clone(&core),
            Duration::from_millis(settings.live.debounce_ms),
            concurrent_syncs,
        ));
        let state = Self(Arc::new(AppStateInner {
            core,
            draining: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            readiness: OutageLog::new("not ready", "ready again"),
            authenticator: Arc::new(Authenticator::new(&settings)?),
            rate_limiter: Arc::new(RateLimiter::new(&settings)),
            connections: Connections::new(&settings.limits),
            feeds,
            budgets: Budgets::new(&settings.limits),
            service_addresses: ServiceAddresses::default(),
            forwarding: Forwarding::new(&settings)?,
            settings: Arc::new(settings),
        }));
        Ok((state, member_lookup_worker))
    }

    /// Returns the caller that a credential belongs to, and counts the request against the rate
    /// limits of the address and the user.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::KeysUnavailable`], [`Error::RateLimited`].
    pub(crate) async fn authenticate_and_rate_limit(
        &self,
        credential: Option<&[u8]>,
        address: Option<IpAddr>,
    ) -> Result<Caller, Error> {
        if self.authenticator.is_service(credential) {
            self.record_service_address(address);
            return Ok(Caller::Service);
        }
        // Before the token is verified, because verification costs more than a refusal.
        self.rate_limiter.check_address(address)?;
        let caller = self.authenticator.authenticate(credential).await?;
        if let Some(uid) = caller.user() {
            self.rate_limiter.check_user(uid)?;
        }
        Ok(caller)
    }

    /// Records the address of a request that carried a service's token or secret. On an open
    /// server, where every caller counts as a service, this does nothing.
    pub(crate) fn record_service_address(&self, address: Option<IpAddr>) {
        if let Some(address) = address.filter(|_| !self.settings.auth.is_open()) {
            self.service_addresses.add(address);
        }
    }

    /// Waits until all connections are closed, and what was begun for their callers is finished. They
    /// close after [`AppStateInner::shutdown`].
    pub(crate) async fn connections_closed(&self) {
        self.connections.closed().await;
        if let Some(proxy) = &self.core.proxy {
            proxy.changes_finished().await;
        }
    }
}
