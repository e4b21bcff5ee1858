//! `/datasource`: what a `WuKongIM` asks the business server (`datasource.addr`), answered from
//! what we know: who is in a channel.

use serde_json::{Value, json};

use super::super::legacy::Fields;
use crate::channel::list_members;
use crate::core::Core;
use crate::error::Error;
use crate::ids::ChannelRef;

/// `POST /datasource` with `{"cmd","data"}`. Lists that we do not keep are empty.
///
/// # Errors
/// [`Error::BadInput`] naming the field, or for a command that there is not; [`Error::Store`].
pub async fn answer(core: &Core, fields: &Fields) -> Result<Value, Error> {
    let command = fields.string("cmd")?;
    let data = fields.object("data")?;
    let channel = || {
        let (id, kind) = (data.string("channel_id")?, data.uint8("channel_type")?);
        ChannelRef::parse(id, i64::from(kind))
    };
    match command.as_str() {
        "getSubscribers" => Ok(json!(list_members(core, &channel()?).await?)),
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
