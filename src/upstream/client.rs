//! A client of a `WuKongIM`.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior};

use crate::auth::TOKEN_HEADER;
use crate::config::{Secret, Url};
use crate::outbound::{ReadBodyError, read_response_body};
use crate::wukongim::parse_value;

/// Delays before a failed request is retried, in seconds.
const RETRY_DELAYS: [u64; 4] = [1, 2, 5, 10];
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of an answer. A page of messages with the longest payloads that a `WuKongIM`
/// accepts (32 KiB) takes a third of it.
const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// Maximum number of characters shown of an error answer.
const MAX_SHOWN_CHARS: usize = 1000;

/// The reason why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The server does not have this route.
    #[error("status 404: this WuKongIM has no such route")]
    NoSuchRoute,
    /// The server refused the request; a repetition would be refused, too.
    #[error("{0}")]
    Refused(String),
    /// The server did not answer, or failed; a repetition may succeed.
    #[error("{0}")]
    Unavailable(String),
}

/// A client of a `WuKongIM`. Several tasks may use it at the same time.
#[derive(Debug)]
pub struct WukongimClient {
    url: String,
    token: Secret,
    http: reqwest::Client,
    rate_limit: Mutex<Interval>,
}

impl WukongimClient {
    /// Creates a client. `url` is the address of the HTTP interface, `token` the manager token (or
    /// empty), and `rate` the maximum number of requests per second.
    ///
    /// # Errors
    /// Returns an error if the URL is invalid.
    pub fn new(url: &str, token: &str, rate: u32) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        reqwest::Url::parse(&url).context("the address of the WuKongIM is not a URL")?;
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
            rate_limit: Mutex::new(rate_limit),
        })
    }

    /// Returns the address, which may contain a password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Posts a request, and retries it after temporary failures.
    ///
    /// # Errors
    /// Returns the refusal of the server, or the last failure.
    pub(crate) async fn post_with_retries(
        &self,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let mut delays = RETRY_DELAYS.iter();
        loop {
            let failure = match self.post(path, body).await {
                Ok(response) => return Ok(response),
                Err(RequestError::Unavailable(failure)) => failure,
                Err(refusal) => bail!("{}{path}: {refusal}", self.display_url()),
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

    /// Posts a request once.
    ///
    /// # Errors
    /// The reason why there is no JSON answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, RequestError> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Gets a resource once.
    ///
    /// # Errors
    /// The reason why there is no JSON answer.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Value, RequestError> {
        self.send(self.request(Method::GET, path).query(query))
            .await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let token = self.token.reveal();
        if token.is_empty() {
            return request;
        }
        request.header(TOKEN_HEADER, token)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Value, RequestError> {
        self.rate_limit.lock().await.tick().await;
        let response = request
            .send()
            .await
            .map_err(|error| RequestError::Unavailable(error.without_url().to_string()))?;
        let status = response.status();
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(RequestError::Unavailable(format!("status {status}")));
        }
        if status.is_redirection() {
            return Err(RequestError::Refused(format!(
                "status {status}: redirects are not followed, because the token must not reach another server"
            )));
        }
        if status.as_u16() == 404 {
            return Err(RequestError::NoSuchRoute);
        }
        let body = read_response_body(response, MAX_RESPONSE_BYTES)
            .await
            .map_err(|error| match error {
                ReadBodyError::TooLong(_) => RequestError::Refused(error.to_string()),
                ReadBodyError::ConnectionLost(_) => RequestError::Unavailable(error.to_string()),
            })?;
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body)
                .chars()
                .take(MAX_SHOWN_CHARS)
                .collect();
            return Err(RequestError::Refused(format!("status {status} {text}")));
        }
        parse_value(&body)
            .map_err(|error| RequestError::Refused(format!("the answer is not JSON: {error}")))
    }

    /// Returns the address without its password.
    fn display_url(&self) -> String {
        Url::from(self.url.as_str()).redacted()
    }
}
