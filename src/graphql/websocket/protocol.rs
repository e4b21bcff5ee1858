//! The messages of the protocol, from the client and to it.

use async_graphql::ServerError;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::auth::{TOKEN_HEADER, strip_bearer};
use crate::graphql::operation::{ExecutionResult, GraphqlRequest};

/// Maximum length of an operation's id.
const MAX_ID_BYTES: usize = 128;

/// A message as received; the payload is parsed once the type is known.
#[derive(Deserialize)]
struct RawMessage {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    payload: Option<Value>,
}

/// A message of the client.
pub(super) enum ClientMessage {
    ConnectionInit { payload: Option<Map<String, Value>> },
    Ping,
    Pong,
    Subscribe { id: String, request: GraphqlRequest },
    Complete { id: String },
}

impl ClientMessage {
    /// Parses a message; returns `None` if it does not belong to the protocol.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let RawMessage { kind, id, payload } = serde_json::from_str(text).ok()?;
        let id = || id.filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        Some(match kind.as_str() {
            "connection_init" => {
                let payload = payload.map(serde_json::from_value).transpose().ok()?;
                Self::ConnectionInit {
                    payload: payload.flatten(),
                }
            }
            "ping" => Self::Ping,
            "pong" => Self::Pong,
            "subscribe" => Self::Subscribe {
                id: id()?,
                request: serde_json::from_value(payload?).ok()?,
            },
            "complete" => Self::Complete { id: id()? },
            _ => return None,
        })
    }
}

/// Returns the token from the payload of `connection_init`: `Authorization` or `token`, like the
/// headers.
pub(super) fn credential(payload: &Map<String, Value>) -> Option<String> {
    let find = |field: &str| {
        payload
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(field))
            .and_then(|(_, value)| value.as_str())
    };
    let bearer = || {
        find("authorization").map(|value| {
            strip_bearer(value.as_bytes())
                .map_or("", |token| std::str::from_utf8(token).unwrap_or_default())
        })
    };
    find(TOKEN_HEADER).or_else(bearer).map(str::to_owned)
}

pub(super) fn next_message(id: &str, result: &ExecutionResult) -> String {
    let body = String::from_utf8(result.body()).unwrap_or_default();
    format!(
        r#"{{"id":{},"type":"next","payload":{body}}}"#,
        Value::from(id)
    )
}

pub(super) fn error_message(id: &str, errors: &[ServerError]) -> String {
    let errors = serde_json::to_string(errors).unwrap_or_default();
    format!(
        r#"{{"id":{},"type":"error","payload":{errors}}}"#,
        Value::from(id)
    )
}
