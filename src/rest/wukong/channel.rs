//! `/channel/…`

use crate::auth::{Action, Caller};
use crate::channel::{self as channels, CreateChannel, Flags};
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Uid};
use crate::rest::legacy::{JsonResponse, LegacyBody, OK, StatusOk};
use crate::services::Services;

const ERR_CHANNEL_ID_EMPTY: &str = "频道ID不能为空！";
const ERR_CHANNEL_TYPE: &str = "频道类型错误！";
const ERR_SUBSCRIBERS_EMPTY: &str = "订阅者不能为空！";
const ERR_PERSON_CHANNEL: &str = "暂不支持个人频道！";
const ERR_PERSON_CHANNEL_MEMBERS: &str = "个人频道不支持添加订阅者！";

fn parse_uids(fields: &LegacyBody) -> Result<Vec<Uid>, Error> {
    fields
        .strings("subscribers")?
        .into_iter()
        .map(|uid| Uid::parse("subscribers", uid))
        .collect()
}

/// Handles `POST /channel`.
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`], [`Error::Store`].
pub async fn create(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    let flags = Flags {
        large: fields.flag("large")?,
        ban: fields.flag("ban")?,
        disband: fields.flag("disband")?,
    };
    let reset = fields.flag("reset")?;
    let uids = parse_uids(fields)?;
    let channel = parse_channel(caller, fields)?;
    channels::create_channel(
        core,
        &CreateChannel {
            channel,
            flags: flags.into(),
            uids,
            reset,
        },
    )
    .await?;
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
    channels::add_members(core, &channel, &uids, fields.flag("reset")?).await?;
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
    channels::remove_members(core, &channel, &uids).await?;
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
    let flags = Flags {
        large: fields.flag("large")?,
        ban: fields.flag("ban")?,
        disband: fields.flag("disband")?,
    };
    channels::create_channel(
        core,
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
    channels::delete_channel(core, &parse_channel(caller, fields)?).await?;
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
    channels::remove_all_members(core, &parse_channel(caller, fields)?).await?;
    Ok(OK)
}

/// Reads the channel of a request.
fn parse_channel(caller: &Caller, fields: &LegacyBody) -> Result<ChannelRef, Error> {
    caller.check(Action::ManageChannels)?;
    let channel_id = fields.string("channel_id")?;
    let channel_type = fields.uint8("channel_type")?;
    if channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()));
    }
    if channel_type == 0 {
        return Err(Error::BadRequest(ERR_CHANNEL_TYPE.into()));
    }
    if channel_type == ChannelType::PERSON.number() {
        return Err(Error::BadRequest(ERR_PERSON_CHANNEL.into()));
    }
    ChannelRef::parse(channel_id, i64::from(channel_type))
}

/// Reads the channel and the users of a change of members; type 0 is a group.
fn parse_member_change(
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<(ChannelRef, Vec<Uid>), Error> {
    caller.check(Action::ManageChannels)?;
    let channel_id = fields.string("channel_id")?;
    let channel_type = match fields.uint8("channel_type")? {
        0 => ChannelType::GROUP.number(),
        given => given,
    };
    let uids = parse_uids(fields)?;
    if channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()));
    }
    if uids.is_empty() {
        return Err(Error::BadRequest(ERR_SUBSCRIBERS_EMPTY.into()));
    }
    if channel_type == ChannelType::PERSON.number() {
        return Err(Error::BadRequest(ERR_PERSON_CHANNEL_MEMBERS.into()));
    }
    Ok((
        ChannelRef::parse(channel_id, i64::from(channel_type))?,
        uids,
    ))
}
