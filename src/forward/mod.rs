//! Forwards the requests of a running `WuKongIM` to the business server. A `WuKongIM` has one
//! webhook address and one datasource address; where both are this server's, the business server
//! still gets every request through this server.
//!
//! - **Webhooks** (`webhooks.rs`) go to every target, unchanged, while this server stores them.
//!   `WuKongIM` gets a success only when all of them have succeeded, so that its own retries cover
//!   all of them. What has succeeded already is remembered (`attempts.rs`) and not done again.
//! - **Datasource requests** (`datasource.rs`) are answered by the business server.
//!
//! A target (`target.rs`) is reached over HTTP (`http.rs`) or gRPC (`grpc.rs`). Requests that wait
//! for targets are bounded in number and size (`places.rs`), and none waits longer than
//! [`TIME_LIMIT`].

mod attempts;
mod datasource;
mod grpc;
mod http;
mod places;
mod request;
mod target;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::datasource::{DatasourceForwarder, ForwardedAnswer};
use self::places::Places;
pub(crate) use self::request::{FORWARDED, ForwardedRequest};
use self::target::Target;
pub(crate) use self::webhooks::WebhookForwarder;
use crate::config::{ConfigError, Settings};

/// How long a request waits for the targets, and a webhook also for being stored. `WuKongIM` waits
/// 5 s for the head of an answer (v1, and v3 by default), 10 s (v2) or 10 s over gRPC.
const TIME_LIMIT: Duration = Duration::from_secs(4);

/// The configured targets.
#[derive(Debug)]
pub(crate) struct Forwarding {
    pub(crate) webhooks: Option<WebhookForwarder>,
    pub(crate) datasource: Option<DatasourceForwarder>,
}

impl Forwarding {
    /// # Errors
    /// An HTTP client that cannot be built.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let (ingest, limits) = (&settings.ingest, &settings.limits);
        let time_limit = TIME_LIMIT.min(Duration::from_secs(limits.request_timeout_seconds));
        let places = Arc::new(Places::new(limits));
        let mut targets = Vec::new();
        if !ingest.forward_url.reveal().is_empty() {
            targets.push(Target::http(
                "ingest.forward_url",
                &ingest.forward_url,
                "ingest.forward_url does not take webhooks",
                "ingest.forward_url takes webhooks again",
            )?);
        }
        if !ingest.forward_grpc.is_empty() {
            targets.push(Target::grpc(
                "ingest.forward_grpc",
                &ingest.forward_grpc,
                "ingest.forward_grpc does not take webhooks",
                "ingest.forward_grpc takes webhooks again",
            )?);
        }
        let webhooks = (!targets.is_empty())
            .then(|| WebhookForwarder::new(targets, Arc::clone(&places), time_limit));
        let mut datasource = None;
        if !ingest.datasource_forward_url.reveal().is_empty() {
            let target = Target::http(
                "ingest.datasource_forward_url",
                &ingest.datasource_forward_url,
                "ingest.datasource_forward_url does not answer",
                "ingest.datasource_forward_url answers again",
            )?;
            // The answer may be as long as a request that names members.
            datasource = Some(DatasourceForwarder::new(
                target,
                places,
                time_limit,
                limits.body_bytes,
            ));
        }
        Ok(Self {
            webhooks,
            datasource,
        })
    }

    /// Returns one line for each target that fails at present.
    pub(crate) fn outages(&self) -> Vec<String> {
        let webhooks = self.webhooks.iter().flat_map(WebhookForwarder::targets);
        let datasource = self.datasource.iter().map(DatasourceForwarder::target);
        webhooks
            .chain(datasource)
            .filter_map(|target| {
                let seconds = target.failing_for()?.as_secs();
                Some(format!(
                    "forwarding to {} fails since {seconds} s",
                    target.name
                ))
            })
            .collect()
    }
}
