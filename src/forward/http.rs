//! Requests to a target over HTTP.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Response, StatusCode, Url};

use super::request::ForwardedRequest;
use super::target::SendError;
use crate::config::{self, ConfigError};
use crate::outbound::read_response_body;
use crate::telemetry::text_with_sources;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Answers to webhooks are read up to this size and for this long, so that the connection can be
/// used again. Their contents do not matter.
const MAX_DRAINED_BYTES: usize = 16 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// The address of a target, and the client that reaches it.
#[derive(Debug)]
pub(super) struct HttpClient {
    url: Url,
    client: reqwest::Client,
}

/// The answer of a target to a datasource request.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) content_type: Option<HeaderValue>,
    pub(super) body: Vec<u8>,
}

impl HttpClient {
    pub(super) fn new(key: &str, url: &config::Url) -> Result<Self, ConfigError> {
        let url =
            Url::parse(url.reveal()).map_err(|_| ConfigError(format!("{key} must be a URL")))?;
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| {
                ConfigError(format!("cannot create an HTTP client for {key}: {error}"))
            })?;
        Ok(Self { url, client })
    }

    /// Returns the target's URL with the queries of both: its own, and that of the request.
    fn url_of(&self, request: &ForwardedRequest) -> Url {
        let mut url = self.url.clone();
        let queries = [self.url.query().unwrap_or_default(), &request.query];
        let queries: Vec<&str> = queries
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        url.set_query((!queries.is_empty()).then(|| queries.join("&")).as_deref());
        url
    }

    /// Sends a request. Only status 200 is a success, as for `WuKongIM`.
    async fn post(&self, request: &ForwardedRequest) -> Result<Response, SendError> {
        let response = self
            .client
            .post(self.url_of(request))
            .headers(request.headers.clone())
            .body(request.body.clone())
            .send()
            .await
            // The URL may contain a secret.
            .map_err(|error| SendError::Unreachable(text_with_sources(&error.without_url())))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => {
                drain(response).await;
                Err(SendError::Status(status))
            }
        }
    }

    /// Sends a webhook.
    pub(super) async fn send(&self, request: &ForwardedRequest) -> Result<(), SendError> {
        drain(self.post(request).await?).await;
        Ok(())
    }

    /// Sends a datasource request, and reads the answer up to `max_bytes`.
    pub(super) async fn ask(
        &self,
        request: &ForwardedRequest,
        max_bytes: usize,
    ) -> Result<HttpAnswer, SendError> {
        let response = self.post(request).await?;
        let content_type = response.headers().get(CONTENT_TYPE).cloned();
        let body = read_response_body(response, max_bytes)
            .await
            .map_err(|error| SendError::Unreadable(error.to_string()))?;
        Ok(HttpAnswer { content_type, body })
    }
}

async fn drain(response: Response) {
    let body = read_response_body(response, MAX_DRAINED_BYTES);
    // A longer or slower answer only costs its connection.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, body).await;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::header::HeaderMap;

    use super::*;

    #[test]
    fn queries_of_both_are_kept() {
        let url = |configured: &str, query: Option<&str>| {
            let client = HttpClient::new("key", &configured.into()).unwrap();
            let request =
                ForwardedRequest::from_http(String::new(), query, &HeaderMap::new(), Bytes::new());
            client.url_of(&request).to_string()
        };
        for (configured, query, expected) in [
            (
                "http://b/hook",
                Some("event=a.b"),
                "http://b/hook?event=a.b",
            ),
            (
                "http://b",
                Some("event=a&x=1&x=%20"),
                "http://b/?event=a&x=1&x=%20",
            ),
            (
                "http://b/?key=k",
                Some("event=a"),
                "http://b/?key=k&event=a",
            ),
            ("http://b/?key=k", None, "http://b/?key=k"),
            ("http://b/?", Some(""), "http://b/"),
        ] {
            assert_eq!(url(configured, query), expected);
        }
    }
}
