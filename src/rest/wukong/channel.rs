//! `/channel/…`

use crate::auth::{Action, Caller};
use crate::channel::{self as channels, CreateChannel};
use crate::error::Error;
use crate::model::{ChannelRef, Uid};
use crate::rest::legacy::{JsonResponse, OK};
use crate::services::Services;
use crate::wukongim::dto::StatusOk;
use crate::wukongim::{
    ChannelSettings, LegacyBody, decode_channel, decode_flags, decode_member_change,
};

/// Handles `POST /channel`.
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`], [`Error::Store`].
pub async fn create(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    let settings = ChannelSettings::decode(fields)?;
    let channel = parse_channel(caller, fields)?;
    channels::create_channel(&core.channels, &settings.for_channel(channel)).await?;
    Ok(OK)
}

/// Handles `POST /channel/subscriber_add`.
///
/// # Errors
/// Like [`create`].
pub async fn subscriber_add(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    let (channel, uids) = parse_member_change(caller, fields)?;
    channels::add_members(&core.channels, &channel, &uids, fields.flag("reset")?).await?;
    Ok(OK)
}

/// Handles `POST /channel/subscriber_remove`.
///
/// # Errors
/// Like [`create`].
pub async fn subscriber_remove(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    let (channel, uids) = parse_member_change(caller, fields)?;
    channels::remove_members(&core.channels, &channel, &uids).await?;
    Ok(OK)
}

/// Handles `POST /channel/info`: sets the marks of a channel.
///
/// # Errors
/// Like [`create`].
pub async fn info(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    let channel = parse_channel(caller, fields)?;
    let flags = decode_flags(fields)?;
    channels::create_channel(
        &core.channels,
        &CreateChannel {
            channel,
            flags: flags.into(),
            uids: Vec::new(),
            reset: false,
        },
    )
    .await?;
    Ok(OK)
}

/// Handles `POST /channel/delete`: its conversations disappear from all lists.
///
/// # Errors
/// Like [`create`].
pub async fn delete(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    channels::delete_channel(&core.channels, &parse_channel(caller, fields)?).await?;
    Ok(OK)
}

/// Handles `POST /channel/subscriber_remove_all`: the channel stays.
///
/// # Errors
/// Like [`create`].
pub async fn subscriber_remove_all(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    channels::remove_all_members(&core.channels, &parse_channel(caller, fields)?).await?;
    Ok(OK)
}

/// Reads the channel of a request.
fn parse_channel(caller: &Caller, fields: &LegacyBody) -> Result<ChannelRef, Error> {
    caller.check(Action::ManageChannels)?;
    decode_channel(fields)
}

/// Reads the channel and the users of a change of members; type 0 is a group.
fn parse_member_change(
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<(ChannelRef, Vec<Uid>), Error> {
    caller.check(Action::ManageChannels)?;
    decode_member_change(fields)
}
