//! `/datasource`: the queries of a `WuKongIM` to its business server (`datasource.addr`), answered
//! from the members stored here.

use serde_json::{Value, json};

use crate::channel::list_members;
use crate::error::Error;
use crate::model::ChannelRef;
use crate::services::Services;
use crate::wukongim::LegacyBody;

/// Answers `POST /datasource` with `{"cmd","data"}`. Lists that are not stored here are empty.
///
/// # Errors
/// [`Error::BadInput`] naming the field, or for an unknown command; [`Error::Store`].
pub async fn answer_query(core: &Services, fields: &LegacyBody) -> Result<Value, Error> {
    let command = fields.string("cmd")?;
    let data = fields.object("data")?;
    let channel = || {
        let (id, kind) = (data.string("channel_id")?, data.uint8("channel_type")?);
        Ok::<_, Error>(ChannelRef::parse(id, i64::from(kind))?)
    };
    match command.as_str() {
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
