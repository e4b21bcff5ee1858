//! Requests about channels and their members.

use super::LegacyBody;
use crate::channel::{CreateChannel, Flags};
use crate::error::Error;
use crate::model::{ChannelRef, ChannelType, Uid};

const ERR_CHANNEL_ID_EMPTY: &str = "频道ID不能为空！";
const ERR_CHANNEL_TYPE: &str = "频道类型错误！";
const ERR_SUBSCRIBERS_EMPTY: &str = "订阅者不能为空！";
const ERR_PERSON_CHANNEL: &str = "暂不支持个人频道！";
const ERR_PERSON_CHANNEL_MEMBERS: &str = "个人频道不支持添加订阅者！";

/// The fields of `POST /channel` besides the name of the channel.
#[derive(Clone, Debug)]
pub(crate) struct ChannelSettings {
    flags: Flags,
    uids: Vec<Uid>,
    reset: bool,
}

impl ChannelSettings {
    /// Decodes the settings of a channel.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub(crate) fn decode(fields: &LegacyBody) -> Result<Self, Error> {
        Ok(Self {
            flags: decode_flags(fields)?,
            reset: fields.flag("reset")?,
            uids: decode_uids(fields)?,
        })
    }

    /// Returns the request to create this channel.
    pub(crate) fn for_channel(self, channel: ChannelRef) -> CreateChannel {
        CreateChannel {
            channel,
            flags: self.flags.into(),
            uids: self.uids,
            reset: self.reset,
        }
    }
}

/// Decodes the flags of a channel; a missing flag is off.
///
/// # Errors
/// [`Error::BadInput`] naming the field.
pub(crate) fn decode_flags(fields: &LegacyBody) -> Result<Flags, Error> {
    Ok(Flags {
        large: fields.flag("large")?,
        ban: fields.flag("ban")?,
        disband: fields.flag("disband")?,
    })
}

fn decode_uids(fields: &LegacyBody) -> Result<Vec<Uid>, Error> {
    let uids = fields.strings("subscribers")?.into_iter();
    Ok(uids
        .map(|uid| Uid::parse("subscribers", uid))
        .collect::<Result<_, _>>()?)
}

/// Decodes the name of a channel that is not a person channel.
///
/// # Errors
/// [`Error::BadInput`] naming the field, or [`Error::BadRequest`] with `WuKongIM`'s text.
pub(crate) fn decode_channel(fields: &LegacyBody) -> Result<ChannelRef, Error> {
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
    Ok(ChannelRef::parse(channel_id, i64::from(channel_type))?)
}

/// Decodes the channel and the users of a change of members; type 0 is a group.
///
/// # Errors
/// As [`decode_channel`].
pub(crate) fn decode_member_change(fields: &LegacyBody) -> Result<(ChannelRef, Vec<Uid>), Error> {
    let channel_id = fields.string("channel_id")?;
    let channel_type = match fields.uint8("channel_type")? {
        0 => ChannelType::GROUP.number(),
        given => given,
    };
    let uids = decode_uids(fields)?;
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
