//! A server to which requests are forwarded.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::grpc::GrpcClient;
use super::http::{HttpAnswer, HttpClient};
use super::request::ForwardedRequest;
use crate::config::{ConfigError, Url};
use crate::error::Error;
use crate::outage::OutageLog;

/// Maximum number of concurrent requests to one target. Further requests wait for their turn.
const MAX_CONCURRENT_REQUESTS: usize = 64;

/// The reasons why a target has not taken a request. The texts have no URL, and nothing that the
/// target said.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("answered with status {0}")]
    Status(reqwest::StatusCode),
    #[error("answered with gRPC status {0:?}")]
    GrpcStatus(tonic::Code),
    #[error("answered with the status Error")]
    EventError,
    /// Contains the error for the log.
    #[error("cannot be reached")]
    Unreachable(String),
    /// Contains the error for the log.
    #[error("gave an answer that cannot be read")]
    Unreadable(String),
    #[error("did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("was not asked, because limits.memory_bytes leaves no memory for it")]
    NoMemory,
}

#[derive(Debug)]
enum Client {
    Http(HttpClient),
    Grpc(GrpcClient),
}

/// A server to which requests are forwarded.
#[derive(Debug)]
pub(crate) struct Target {
    /// The key of its address in the configuration.
    pub(super) name: &'static str,
    client: Client,
    turns: Semaphore,
    outages: OutageLog,
}

impl Target {
    pub(super) fn http(
        key: &'static str,
        url: &Url,
        failed: &'static str,
        recovered: &'static str,
    ) -> Result<Self, ConfigError> {
        let client = Client::Http(HttpClient::new(key, url)?);
        Ok(Self::new(key, client, OutageLog::new(failed, recovered)))
    }

    pub(super) fn grpc(
        key: &'static str,
        address: &str,
        failed: &'static str,
        recovered: &'static str,
    ) -> Result<Self, ConfigError> {
        let client = Client::Grpc(GrpcClient::new(key, address)?);
        Ok(Self::new(key, client, OutageLog::new(failed, recovered)))
    }

    fn new(name: &'static str, client: Client, outages: OutageLog) -> Self {
        Self {
            name,
            client,
            turns: Semaphore::new(MAX_CONCURRENT_REQUESTS),
            outages,
        }
    }

    /// Returns for how long the target has been failing.
    pub(super) fn failing_for(&self) -> Option<Duration> {
        self.outages.ongoing_for()
    }

    /// Sends a webhook.
    ///
    /// # Errors
    /// [`Error::ForwardFailed`]. After a timeout the target may have taken it nevertheless.
    pub(super) async fn send(
        &self,
        request: &ForwardedRequest,
        time_limit: Duration,
        deadline: Instant,
    ) -> Result<(), Error> {
        let send = async {
            match &self.client {
                Client::Http(client) => client.send(request).await,
                Client::Grpc(client) => client.send(request).await,
            }
        };
        self.record(send, time_limit, deadline).await
    }

    /// Sends a datasource request, and reads the answer up to `max_bytes`.
    ///
    /// # Errors
    /// [`Error::ForwardFailed`].
    pub(super) async fn ask(
        &self,
        request: &ForwardedRequest,
        max_bytes: usize,
        time_limit: Duration,
    ) -> Result<HttpAnswer, Error> {
        let ask = async {
            match &self.client {
                Client::Http(client) => client.ask(request, max_bytes).await,
                Client::Grpc(_) => Err(SendError::EventError),
            }
        };
        self.record(ask, time_limit, Instant::now() + time_limit)
            .await
    }

    /// Does `work` when it is its turn, and records its outcome in the log and the metrics.
    async fn record<T>(
        &self,
        work: impl Future<Output = Result<T, SendError>>,
        time_limit: Duration,
        deadline: Instant,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let in_turn = async {
            let _turn = self.turns.acquire().await;
            work.await
        };
        let result = timeout_at(deadline, in_turn)
            .await
            .unwrap_or(Err(SendError::TimedOut(time_limit)));
        metrics::histogram!(crate::metrics::FORWARD_DURATION_SECONDS, "target" => self.name)
            .record(started.elapsed().as_secs_f64());
        self.count(if result.is_ok() { "taken" } else { "failed" });
        match &result {
            Ok(_) => self.outages.worked(),
            // The target is not to blame.
            Err(SendError::NoMemory) => {}
            Err(error @ (SendError::Unreachable(cause) | SendError::Unreadable(cause))) => {
                self.outages.failed(&format!("{error}: {cause}"));
            }
            Err(error) => self.outages.failed(error),
        }
        result.map_err(|error| Error::ForwardFailed(format!("{} {error}", self.name).into()))
    }

    /// Counts a request in the metrics.
    pub(super) fn count(&self, result: &'static str) {
        metrics::counter!(crate::metrics::FORWARDED_TOTAL, "target" => self.name, "result" => result)
            .increment(1);
    }
}
