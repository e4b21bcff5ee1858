//! `/datasource`: the queries of a `WuKongIM` to its business server (`datasource.addr`), answered
//! by it where `ingest.datasource_forward_url` is set, and from the members stored here otherwise.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::conversation::NamedChannel;
use crate::channel::list_members;
use crate::error::Error;
use crate::forward::{DatasourceForwarder, ForwardedAnswer, ForwardedRequest};
use crate::model::{ChannelKey, ChannelRef, ChannelType};
use crate::rest::legacy::JSON;
use crate::services::Services;
use crate::wukongim::JsonObject;

/// The body of `POST /datasource`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct DatasourceBody {
    /// `getSubscribers`, `getChannelInfo`, `getBlacklist`, `getWhitelist` or `getSystemUIDs`.
    #[schema(examples("getSubscribers"))]
    pub cmd: String,
    /// The channel that the query is about.
    #[serde(default)]
    pub data: NamedChannel,
}

/// Answers a query. Lists that are not stored here are empty.
///
/// # Errors
/// [`Error::BadInput`] naming the field, or for an unknown command; [`Error::Store`].
pub(super) async fn answer_query(core: &Services, query: DatasourceBody) -> Result<Value, Error> {
    let data = query.data;
    let channel = || ChannelRef::parse(data.channel_id, i64::from(data.channel_type));
    match query.cmd.as_str() {
        "getSubscribers" => Ok(json!(list_members(&core.channels, &channel()?).await?)),
        "getChannelInfo" => {
            channel()?;
            Ok(json!({"large": 0, "ban": 0, "disband": 0}))
        }
        "getBlacklist" | "getWhitelist" => {
            channel()?;
            Ok(json!([]))
        }
        "getSystemUIDs" => Ok(json!([])),
        _ => Err(Error::bad_input(
            "cmd",
            "must be getSubscribers, getChannelInfo, getBlacklist, getWhitelist or getSystemUIDs",
        )),
    }
}

/// Lets the business server answer a query. The members that it names become known.
///
/// # Errors
/// [`Error::ForwardFailed`], [`Error::Overloaded`], [`Error::TooManyAtOnce`].
pub(super) async fn forward_query(
    core: &Services,
    forwarder: &DatasourceForwarder,
    request: &ForwardedRequest,
) -> Result<Response, Error> {
    let ForwardedAnswer { content_type, body } = forwarder.ask(request).await?;
    if let Some(key) = queried_group(&request.body) {
        core.member_learner.learn(key, &body);
    }
    let headers = [(header::CONTENT_TYPE, content_type.unwrap_or(JSON))];
    Ok((headers, body).into_response())
}

/// Returns the group whose members a query asks for.
fn queried_group(body: &[u8]) -> Option<ChannelKey> {
    let query: DatasourceBody = JsonObject::parse(body).ok()?.decode().ok()?;
    if query.cmd != "getSubscribers" {
        return None;
    }
    let channel_type = i64::from(query.data.channel_type);
    let channel = ChannelRef::parse(query.data.channel_id, channel_type).ok()?;
    // A person channel always has its two users as members.
    (channel.channel_type != ChannelType::PERSON).then_some(ChannelKey {
        channel_type: channel.channel_type,
        key: channel.channel_id,
    })
}
