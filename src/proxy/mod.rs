//! Passes calls on to a `WuKongIM`: recents stands at its address (`proxy.wukongim_url`), so that a
//! business server changes one address and nothing else.
//!
//! - Calls about conversations and history are answered by recents alone.
//! - Changes of channels and members are done there first, then here ([`change_channel`]).
//! - Every other call is passed on as it is, in both directions, without being buffered.
//!
//! The client is hyper-util's, which is in the tree anyway. The alternatives were examined in
//! December 2026: axum-reverse-proxy 2.4 depends on axum's default features, and with them on
//! `raw_value` of `serde_json` (see Cargo.toml), and brings a second tungstenite; reqwest rewrites
//! paths and queries (`Url`), which are passed on unchanged here; hyper-reverse-proxy is for hyper 0.14.

mod bodies;
mod channel_change;
mod client;
mod headers;
mod progress;
mod turns;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use self::bodies::AnswerBody;
pub(crate) use self::bodies::CallerBody;
pub(crate) use self::channel_change::{Answer, ChannelChange, change_channel};
use self::client::{HttpClient, Target};
use self::progress::Progress;
use self::turns::Turns;
use crate::budget;
use crate::config::{ConfigError, ProxyConfig, Secret, address_range};
use crate::error::Error;
use crate::outage::OutageLog;

/// Memory of a call that is passed on: what is read ahead of each side.
const CALL_BYTES: usize = 128 * 1024;

/// The `WuKongIM` behind this server.
#[derive(Debug)]
pub(crate) struct WukongimProxy {
    http: HttpClient,
    target: Target,
    /// The token for calls that have none; may be empty.
    token: Secret,
    trusted_peers: Vec<IpNet>,
    timeout: Duration,
    connections: Arc<Semaphore>,
    max_connections: usize,
    outages: OutageLog,
    /// Changes of one channel happen one after the other.
    turns: Turns,
    /// Changes that are finished even if their callers hang up.
    changes: TaskTracker,
}

impl WukongimProxy {
    /// Creates the proxy; `None` if `proxy.wukongim_url` is empty.
    ///
    /// # Errors
    /// The certificates of the system cannot be read, for an `https://` address.
    pub(crate) fn new(settings: &ProxyConfig) -> Result<Option<Self>, ConfigError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let timeout = Duration::from_secs(settings.timeout_seconds);
        let ranges = settings.trusted_peers.iter();
        Ok(Some(Self {
            http: client::build(timeout)?,
            target: Target::parse(settings.wukongim_url.reveal())?,
            token: settings.wukongim_token.clone(),
            // The configuration was checked: every entry parses.
            trusted_peers: ranges.filter_map(|range| address_range(range)).collect(),
            timeout,
            connections: Arc::new(Semaphore::new(settings.max_connections)),
            max_connections: settings.max_connections,
            outages: OutageLog::new(
                "the WuKongIM at proxy.wukongim_url does not answer: calls that it answers fail",
                "the WuKongIM at proxy.wukongim_url answers again",
            ),
            turns: Turns::default(),
            changes: TaskTracker::new(),
        }))
    }

    /// Returns whether calls from this address need no token.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_peers
            .iter()
            .any(|range| range.contains(&address))
    }

    /// Returns whether the last calls failed because the `WuKongIM` did not answer.
    pub(crate) fn is_away(&self) -> bool {
        self.outages.is_ongoing()
    }

    /// Returns the number of calls that are being passed on.
    pub(crate) fn running(&self) -> usize {
        self.max_connections - self.connections.available_permits()
    }

    /// Waits until all changes that have begun are finished.
    pub(crate) async fn changes_finished(&self) {
        self.changes.close();
        self.changes.wait().await;
    }

    /// Passes a call on, and returns the answer, whose body arrives later.
    ///
    /// # Errors
    /// [`Error::WukongimUnavailable`], [`Error::WukongimTimeout`], [`Error::WukongimLoop`],
    /// [`Error::NotProxied`], [`Error::Overloaded`], [`Error::TooManyAtOnce`]; [`Error::BodyTooSlow`]
    /// and [`Error::BadRequest`] because of the caller's body.
    pub(crate) async fn forward(
        &self,
        request: Request<CallerBody>,
    ) -> Result<Response<Body>, Error> {
        check_method(&request)?;
        let (answer, permit) = {
            let permit = Arc::clone(&self.connections).try_acquire_owned();
            let permit = permit.map_err(|_| {
                metrics::counter!(
                    crate::metrics::REQUESTS_REJECTED_TOTAL,
                    "reason" => "proxy",
                    "by" => "server"
                )
                .increment(1);
                Error::Overloaded
            })?;
            budget::reserve_memory(CALL_BYTES)?;
            (self.send(request).await?, permit)
        };
        let (mut parts, body) = answer.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            tracing::debug!("the WuKongIM changed the protocol without being asked");
            return Err(Error::WukongimUnavailable);
        }
        headers::clean_answer(&mut parts.headers);
        let body = AnswerBody::new(body, self.timeout, permit, budget::current());
        let mut response = Response::new(Body::new(body));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        Ok(response)
    }

    /// Sends the call, and waits for the head of the answer. Counts the result.
    async fn send(
        &self,
        request: Request<CallerBody>,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        let mut record = CallRecord::begin();
        let result = self.send_once(request).await;
        record.result = match &result {
            Ok(_) => "answered",
            Err(Error::WukongimUnavailable) => "unavailable",
            Err(Error::WukongimTimeout) => "timeout",
            Err(_) => "refused",
        };
        if result.is_ok() {
            self.outages.worked();
        }
        result
    }

    async fn send_once(
        &self,
        request: Request<CallerBody>,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        let request = headers::prepare(request, &self.target, &self.token)?;
        let progress = Progress::default();
        let request = request.map(|body| Body::new(body.observed_by(progress.clone())));
        let answer = self.http.request(request);
        tokio::pin!(answer);
        loop {
            let deadline = progress.last_at() + self.timeout;
            tokio::select! {
                answer = &mut answer => return answer.map_err(|error| {
                    if progress.caller_failed() {
                        return Error::BadRequest("the body ended early".into());
                    }
                    self.outages.failed(&crate::telemetry::text_with_sources(&error));
                    Error::WukongimUnavailable
                }),
                () = tokio::time::sleep_until(deadline) => {
                    if progress.last_at() + self.timeout > tokio::time::Instant::now() {
                        continue;
                    }
                    if progress.waits_for_caller() {
                        return Err(Error::BodyTooSlow);
                    }
                    self.outages.failed(&"no answer within proxy.timeout_seconds");
                    return Err(Error::WukongimTimeout);
                }
            }
        }
    }

    /// Sends a call whose body is here, and returns the whole answer.
    ///
    /// # Errors
    /// Like [`WukongimProxy::forward`].
    async fn ask(
        &self,
        request: Request<Bytes>,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, Error> {
        let answer = self.forward(request.map(CallerBody::from)).await?;
        let (parts, body) = answer.into_parts();
        // It is short, so it may not arrive slowly either: others wait for their turn.
        let read = tokio::time::timeout(self.timeout, bodies::read_answer(body, max_bytes)).await;
        match read {
            Ok(Ok(body)) => Ok(Response::from_parts(parts, body)),
            Ok(Err(error)) => {
                self.outages.failed(&error);
                Err(Error::WukongimUnavailable)
            }
            Err(_) => {
                self.outages
                    .failed(&"the answer takes longer than proxy.timeout_seconds");
                Err(Error::WukongimTimeout)
            }
        }
    }
}

/// Refuses methods and upgrades that make no sense here.
fn check_method<B>(request: &Request<B>) -> Result<(), Error> {
    if [Method::CONNECT, Method::TRACE].contains(request.method()) {
        return Err(Error::NotProxied(
            "the methods CONNECT and TRACE are not passed on".into(),
        ));
    }
    // Other upgrades (h2c) are offers, which may be ignored.
    if headers::is_websocket(request.headers()) {
        return Err(Error::NotProxied(
            "WebSockets are not passed on: connect to the WuKongIM itself".into(),
        ));
    }
    Ok(())
}

/// Counts a call when it ends, also when its caller hangs up before.
struct CallRecord {
    began: Instant,
    result: &'static str,
}

impl CallRecord {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            result: "abandoned",
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        metrics::counter!(crate::metrics::PROXY_REQUESTS_TOTAL, "result" => self.result)
            .increment(1);
        metrics::histogram!(crate::metrics::PROXY_REQUEST_DURATION_SECONDS)
            .record(self.began.elapsed().as_secs_f64());
    }
}
