//! A client of a `WuKongIM`.

use std::time::Duration;

use anyhow::Context;
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::memory::{Answer, AnswerMemory};
use super::pace::Pace;
use crate::auth::TOKEN_HEADER;
use crate::config::{Secret, Url};
use crate::outbound::{ReadBodyError, read_response_body};
use crate::telemetry::text_with_sources;
use crate::wukongim::parse_value;

/// Delays before a failed request is retried, in seconds.
const RETRY_DELAYS: [u64; 4] = [1, 2, 5, 10];
const TIMEOUT: Duration = Duration::from_secs(30);
/// Answers up to this size are read by any number of tasks at the same time.
const USUAL_RESPONSE_BYTES: usize = 4 << 20;
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
    /// The server refused the manager token.
    #[error("status 401: the WuKongIM does not accept the manager token")]
    Unauthorized,
    /// The answer is too long.
    #[error("{0}")]
    TooLong(String),
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
    pace: Pace,
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
        Ok(Self {
            url,
            token: Secret::from(token),
            http,
            pace: Pace::per_second(rate),
        })
    }

    /// Returns the address, which may contain a password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Posts a request, and retries it after temporary failures. The answer is parsed when there is
    /// memory for it.
    ///
    /// # Errors
    /// The last reason why there is no JSON answer.
    pub(crate) async fn fetch(
        &self,
        path: &str,
        body: &Value,
        memory: &AnswerMemory,
    ) -> Result<Answer, RequestError> {
        let mut delays = RETRY_DELAYS.iter();
        loop {
            let failure = match self.fetch_once(path, body, memory).await {
                Err(RequestError::Unavailable(failure)) => failure,
                answer => return answer,
            };
            let Some(delay) = delays.next() else {
                return Err(RequestError::Unavailable(failure));
            };
            tracing::warn!(failure, path, "retrying in {delay} s");
            tokio::time::sleep(Duration::from_secs(*delay)).await;
        }
    }

    async fn fetch_once(
        &self,
        path: &str,
        body: &Value,
        memory: &AnswerMemory,
    ) -> Result<Answer, RequestError> {
        let request = || self.request(Method::POST, path).json(body);
        match self.read(request(), USUAL_RESPONSE_BYTES).await {
            Err(RequestError::TooLong(_)) => {
                let _alone = memory.reserve_long_text().await;
                let text = self.read(request(), MAX_RESPONSE_BYTES).await?;
                memory.parse(&text).await
            }
            text => memory.parse(&text?).await,
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
        parse(&self.read(request, MAX_RESPONSE_BYTES).await?)
    }

    /// Sends a request, and reads its answer of at most `limit` bytes.
    async fn read(&self, request: RequestBuilder, limit: usize) -> Result<Vec<u8>, RequestError> {
        self.pace.wait().await;
        let response = request
            .send()
            .await
            .map_err(|error| RequestError::Unavailable(text_with_sources(&error.without_url())))?;
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
        if status.as_u16() == 401 {
            return Err(RequestError::Unauthorized);
        }
        let body = read_response_body(response, limit)
            .await
            .map_err(|error| match error {
                ReadBodyError::TooLong(_) => RequestError::TooLong(error.to_string()),
                ReadBodyError::ConnectionLost(_) => RequestError::Unavailable(error.to_string()),
            })?;
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body)
                .chars()
                .take(MAX_SHOWN_CHARS)
                .collect();
            return Err(RequestError::Refused(format!("status {status} {text}")));
        }
        Ok(body)
    }

    /// Returns the address without its password.
    pub(crate) fn display_url(&self) -> String {
        Url::from(self.url.as_str()).redacted()
    }
}

/// Parses an answer.
pub(super) fn parse(text: &[u8]) -> Result<Value, RequestError> {
    parse_value(text)
        .map_err(|error| RequestError::Refused(format!("the answer is not JSON: {error}")))
}
