//! A client of a `WuKongIM`.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::redirect::Policy;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::{Interval, MissedTickBehavior};

use crate::auth::TOKEN_HEADER;
use crate::config::{Secret, Url};
use crate::outbound::{ReadBodyError, read_response_body};

/// Delays before a failed request is retried, in seconds.
const RETRY_DELAYS: [u64; 4] = [1, 2, 5, 10];
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of an answer. A page of messages with the longest payloads that a `WuKongIM`
/// accepts (32 KiB) takes a third of it.
const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// Maximum number of characters shown of an error answer.
const MAX_SHOWN_CHARS: usize = 1000;

/// A client of a `WuKongIM`.
#[derive(Debug)]
pub struct WukongimClient {
    url: String,
    token: Secret,
    http: reqwest::Client,
    rate_limit: Interval,
}

impl WukongimClient {
    /// Creates a client. `url` is the address of the HTTP interface, `token` the manager token (or
    /// empty), and `rate` the maximum number of requests per second.
    ///
    /// # Errors
    /// Returns an error if the URL is invalid.
    pub fn new(url: &str, token: &str, rate: u32) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        reqwest::Url::parse(&url)
            .with_context(|| format!("{} is not a URL", Url::from(url.as_str()).redacted()))?;
        // A redirect could send the token to another server.
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .build()?;
        let mut rate_limit = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        rate_limit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            url,
            token: Secret::from(token),
            http,
            rate_limit,
        })
    }

    /// Returns the address without its password.
    fn display_url(&self) -> String {
        Url::from(self.url.as_str()).redacted()
    }

    /// Posts a request, and retries it after temporary failures.
    ///
    /// # Errors
    /// Returns the refusal of the server, or the last failure.
    pub(in crate::import) async fn post(
        &mut self,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let mut delays = RETRY_DELAYS.iter();
        loop {
            self.rate_limit.tick().await;
            let failure = match self.post_once(path, body).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(refusal)) => bail!("{}{path}: {refusal}", self.display_url()),
                Err(failure) => failure,
            };
            let Some(delay) = delays.next() else {
                bail!(
                    "{}{path}: {failure}; run the import again to continue",
                    self.display_url()
                )
            };
            tracing::warn!(failure, path, "retrying in {delay} s");
            tokio::time::sleep(Duration::from_secs(*delay)).await;
        }
    }

    /// Returns the answer, a permanent refusal (the inner error), or a temporary failure (the outer
    /// error).
    async fn post_once(&self, path: &str, body: &Value) -> Result<Result<Value, String>, String> {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        if !self.token.reveal().is_empty() {
            request = request.header(TOKEN_HEADER, self.token.reveal());
        }
        let response = request
            .send()
            .await
            .map_err(|error| error.without_url().to_string())?;
        let status = response.status();
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(format!("status {status}"));
        }
        if status.is_redirection() {
            let text = format!(
                "status {status}: redirects are not followed, because the token must not reach another server"
            );
            return Ok(Err(text));
        }
        if status.as_u16() == 404 {
            return Ok(Err(
                "status 404: is it a WuKongIM v1 or v2? (v3 has no such route)".to_owned(),
            ));
        }
        let body = match read_response_body(response, MAX_RESPONSE_BYTES).await {
            Ok(body) => body,
            Err(error @ ReadBodyError::TooLong(_)) => return Ok(Err(error.to_string())),
            Err(error @ ReadBodyError::ConnectionLost(_)) => return Err(error.to_string()),
        };
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body)
                .chars()
                .take(MAX_SHOWN_CHARS)
                .collect();
            return Ok(Err(format!("status {status} {text}")));
        }
        Ok(serde_json::from_slice(&body)
            .map_err(|error| format!("the answer is not JSON: {error}")))
    }

    /// Returns the key that the progress of an item is kept under.
    pub(super) fn progress_key(&self, of: &[&str]) -> String {
        let mut hash = Sha256::new();
        for part in [self.url.as_str()].iter().chain(of) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }
}
