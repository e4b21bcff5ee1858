//! A request of a `WuKongIM`, with what is forwarded of it.

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

/// The header, and over gRPC the metadata, of every forwarded request. A server that forwards
/// refuses a request that has it, because it would go round in a circle.
pub(crate) const FORWARDED: &str = "x-recents-forwarded";
/// The beginning of the headers with which later versions of `WuKongIM` sign webhooks.
const WUKONGIM_HEADERS: &str = "x-wukongim-";

/// A webhook or a datasource request.
#[derive(Clone, Debug)]
pub(crate) struct ForwardedRequest {
    /// Event of a webhook.
    pub(crate) event: String,
    pub(crate) body: Bytes,
    /// The query of the URL, as it arrived.
    pub(super) query: String,
    /// Type and encoding of the body, and the headers of `WuKongIM`. Tokens are for this server alone.
    pub(super) headers: HeaderMap,
}

impl ForwardedRequest {
    /// Creates a request that came over HTTP.
    pub(crate) fn from_http(
        event: String,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Self {
        let is_forwarded = |name: &HeaderName| {
            [CONTENT_TYPE, CONTENT_ENCODING].contains(name)
                || name.as_str().starts_with(WUKONGIM_HEADERS)
        };
        let mut forwarded: HeaderMap = headers
            .iter()
            .filter(|(name, _)| is_forwarded(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        forwarded.insert(FORWARDED, HeaderValue::from_static("1"));
        Self {
            event,
            body,
            query: query.unwrap_or_default().to_owned(),
            headers: forwarded,
        }
    }

    /// Creates a webhook that came over gRPC, as it would have come over HTTP.
    pub(crate) fn from_grpc(event: String, body: Bytes) -> Self {
        let json = HeaderValue::from_static("application/json");
        let query = serde_urlencoded::to_string([("event", &event)]).unwrap_or_default();
        let headers = [(CONTENT_TYPE, json)].into_iter().collect();
        Self::from_http(event, Some(&query), &headers, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_headers_for_the_business_server_are_forwarded() {
        let received: HeaderMap = [
            ("content-type", "text/json"),
            ("token", "hush"),
            ("authorization", "Bearer hush"),
            ("cookie", "hush"),
            ("host", "recents"),
            ("x-wukongim-signature", "sha256=1"),
        ]
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .into_iter()
        .collect();
        let request =
            ForwardedRequest::from_http("e".to_owned(), Some("event=e"), &received, Bytes::new());
        let mut names: Vec<&str> = request.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", FORWARDED, "x-wukongim-signature"]);
    }

    #[test]
    fn event_of_a_webhook_over_grpc_becomes_a_query() {
        let request = ForwardedRequest::from_grpc("a&b=ü".to_owned(), Bytes::new());
        assert_eq!(request.query, "event=a%26b%3D%C3%BC");
        assert_eq!(request.headers[CONTENT_TYPE], "application/json");
    }
}
