//! `/channel/…`

use super::super::legacy::{Answer, DONE, Done, Fields};
use crate::auth::{Action, Caller};
use crate::channel::{self as channels, CreateChannel, Flags};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Uid};

const NO_ID: &str = "频道ID不能为空！";
const NO_TYPE: &str = "频道类型错误！";
const NO_SUBSCRIBERS: &str = "订阅者不能为空！";
const IS_PERSON: &str = "暂不支持个人频道！";
const PERSON_SUBSCRIBERS: &str = "个人频道不支持添加订阅者！";

fn uids(fields: &Fields) -> Result<Vec<Uid>, Error> {
    fields
        .strings("subscribers")?
        .into_iter()
        .map(|uid| Uid::parse("subscribers", uid))
        .collect()
}

/// `POST /channel`
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`], [`Error::Store`].
pub async fn create(core: &Core, caller: &Caller, fields: &Fields) -> Result<Answer<Done>, Error> {
    let flags = Flags {
        large: fields.flag("large")?,
        ban: fields.flag("ban")?,
        disband: fields.flag("disband")?,
    };
    let reset = fields.flag("reset")?;
    let uids = uids(fields)?;
    let channel = target(caller, fields)?;
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
    Ok(DONE)
}

/// `POST /channel/subscriber_add`
///
/// # Errors
/// As [`create`].
pub async fn subscriber_add(
    core: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Done>, Error> {
    let (channel, uids) = members(caller, fields)?;
    channels::add_members(core, &channel, &uids, fields.flag("reset")?).await?;
    Ok(DONE)
}

/// `POST /channel/subscriber_remove`
///
/// # Errors
/// As [`create`].
pub async fn subscriber_remove(
    core: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Done>, Error> {
    let (channel, uids) = members(caller, fields)?;
    channels::remove_members(core, &channel, &uids).await?;
    Ok(DONE)
}

/// `POST /channel/info`: what a channel is marked as.
///
/// # Errors
/// As [`create`].
pub async fn info(core: &Core, caller: &Caller, fields: &Fields) -> Result<Answer<Done>, Error> {
    let channel = target(caller, fields)?;
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
    Ok(DONE)
}

/// `POST /channel/delete`: its conversations go from everybody's list.
///
/// # Errors
/// As [`create`].
pub async fn delete(core: &Core, caller: &Caller, fields: &Fields) -> Result<Answer<Done>, Error> {
    channels::delete_channel(core, &target(caller, fields)?).await?;
    Ok(DONE)
}

/// `POST /channel/subscriber_remove_all`: the channel stays.
///
/// # Errors
/// As [`create`].
pub async fn subscriber_remove_all(
    core: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Done>, Error> {
    channels::remove_all_members(core, &target(caller, fields)?).await?;
    Ok(DONE)
}

/// The channel that a call is about.
fn target(caller: &Caller, fields: &Fields) -> Result<ChannelRef, Error> {
    caller.check(Action::ManageChannels)?;
    let channel_id = fields.string("channel_id")?;
    let channel_type = fields.uint8("channel_type")?;
    if channel_id.is_empty() {
        return Err(Error::BadRequest(NO_ID.into()));
    }
    if channel_type == 0 {
        return Err(Error::BadRequest(NO_TYPE.into()));
    }
    if channel_type == ChannelType::PERSON.number() {
        return Err(Error::BadRequest(IS_PERSON.into()));
    }
    ChannelRef::parse(channel_id, i64::from(channel_type))
}

/// The channel and the users of a change of members; type 0 is a group.
fn members(caller: &Caller, fields: &Fields) -> Result<(ChannelRef, Vec<Uid>), Error> {
    caller.check(Action::ManageChannels)?;
    let channel_id = fields.string("channel_id")?;
    let channel_type = match fields.uint8("channel_type")? {
        0 => ChannelType::GROUP.number(),
        given => given,
    };
    let uids = uids(fields)?;
    if channel_id.is_empty() {
        return Err(Error::BadRequest(NO_ID.into()));
    }
    if uids.is_empty() {
        return Err(Error::BadRequest(NO_SUBSCRIBERS.into()));
    }
    if channel_type == ChannelType::PERSON.number() {
        return Err(Error::BadRequest(PERSON_SUBSCRIBERS.into()));
    }
    Ok((
        ChannelRef::parse(channel_id, i64::from(channel_type))?,
        uids,
    ))
}
