//! The media type of a response.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::graphql::operation::{ExecutionResult, code};

pub(super) const JSON: &str = "application/json";
const GRAPHQL_JSON: &str = "application/graphql-response+json";

/// The media type of a response, negotiated by `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFormat {
    /// `application/graphql-response+json`: the HTTP status tells whether the request succeeded.
    GraphqlResponse,
    /// `application/json`: a well-formed request gets status 200, as clients of this media type
    /// expect.
    Json,
}

impl ResponseFormat {
    /// Returns the format that the client prefers, or `None` if it accepts neither. A request
    /// without `Accept` gets `application/json`, as the specification requires for now.
    pub(super) fn negotiate(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::ACCEPT).iter().peekable();
        if lines.peek().is_none() {
            return Some(Self::Json);
        }
        let ranges = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        let mut best: Option<(Self, f32)> = None;
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_str()
            {
                GRAPHQL_JSON => Self::GraphqlResponse,
                JSON | "application/*" | "*/*" => Self::Json,
                _ => continue,
            };
            let mut parameters = parts.filter_map(|parameter| parameter.split_once('='));
            let quality = parameters.find_map(|(name, value)| {
                name.trim()
                    .eq_ignore_ascii_case("q")
                    .then(|| value.trim().parse())
            });
            let quality = match quality {
                Some(Ok(quality)) => quality,
                Some(Err(_)) => 0.0,
                None => 1.0,
            };
            // Of equal qualities the first wins.
            if quality > 0.0 && best.is_none_or(|(_, known)| quality > known) {
                best = Some((format, quality));
            }
        }
        best.map(|(format, _)| format)
    }

    /// Returns a format also for clients that accept neither: some responses have to be sent.
    pub(super) fn negotiate_or_json(headers: &HeaderMap) -> Self {
        Self::negotiate(headers).unwrap_or(Self::Json)
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
        })
    }

    pub(super) fn status(self, result: &ExecutionResult) -> StatusCode {
        // For clients that accept `application/json`, an error in the document or its variables is
        // not a failure of the transport.
        let about_the_document = result.response.errors.iter().any(|error| {
            let named = code(error).is_some_and(|code| {
                code.starts_with("GRAPHQL_") || code.starts_with("PERSISTED_QUERY_")
            });
            named || !error.locations.is_empty()
        });
        match self {
            Self::Json if result.status == StatusCode::BAD_REQUEST && about_the_document => {
                StatusCode::OK
            }
            _ => result.status,
        }
    }
}
