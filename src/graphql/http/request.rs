//! Checks and reads requests.

use axum::http::{HeaderMap, header};

use super::format::JSON;
use crate::error::Error;
use crate::graphql::operation::GraphqlRequest;

/// Accepts JSON in UTF-8 only: a form or a plain text could be sent from any web page without a
/// CORS preflight.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), &'static str> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().unwrap_or_default().eq_ignore_ascii_case(JSON) {
        return Err("Content-Type must be application/json");
    }
    let charset = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    match charset {
        Some((_, value))
            if !["utf-8", "utf8"]
                .contains(&value.trim().trim_matches('"').to_ascii_lowercase().as_str()) =>
        {
            Err("Content-Type must be application/json in UTF-8")
        }
        _ => Ok(()),
    }
}

pub(super) fn parse_query_string(query: &str) -> Result<GraphqlRequest, Error> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let mut request = GraphqlRequest::default();
    for (name, value) in pairs {
        match name.as_str() {
            "query" => request.query = Some(value),
            "operationName" => request.operation_name = Some(value),
            "variables" if !value.is_empty() => {
                request.variables = serde_json::from_str(&value)
                    .map_err(|_| Error::BadRequest("variables must be a JSON object".into()))?;
            }
            "extensions" if !value.is_empty() => {
                request.extensions = serde_json::from_str(&value)
                    .map_err(|_| Error::BadRequest("extensions must be a JSON object".into()))?;
            }
            _ => {}
        }
    }
    Ok(request)
}
