//! `/datasource`: the queries of a `WuKongIM` to its business server (`datasource.addr`), answered
//! from the members stored here.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::conversation::NamedChannel;
use crate::channel::list_members;
use crate::error::Error;
use crate::model::ChannelRef;
use crate::services::Services;

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
