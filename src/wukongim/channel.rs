//! Requests about channels and their members.

use serde::Deserialize;
use utoipa::ToSchema;

use super::Flag;
use crate::channel::{CreateChannel, Flags};
use crate::error::Error;
use crate::model::{ChannelRef, ChannelType, InvalidValue, Uid};

const ERR_CHANNEL_ID_EMPTY: &str = "频道ID不能为空！";
const ERR_CHANNEL_TYPE: &str = "频道类型错误！";
const ERR_SUBSCRIBERS_EMPTY: &str = "订阅者不能为空！";
const ERR_PERSON_CHANNEL: &str = "暂不支持个人频道！";
const ERR_PERSON_CHANNEL_MEMBERS: &str = "个人频道不支持添加订阅者！";

/// The body of `POST /channel`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ChannelBody {
    /// 1 for a very large group.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub large: Flag,
    /// 1 for a banned channel.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub ban: Flag,
    /// 1 for a disbanded channel.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub disband: Flag,
    /// 1 to remove the members that are not in `subscribers`.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub reset: Flag,
    /// The uids of the new members.
    #[serde(default)]
    #[schema(examples("u02"))]
    pub subscribers: Vec<String>,
    /// The channel's ID.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 2 group, …; not 0, and not 1 (person).
    #[serde(default)]
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
}

impl ChannelBody {
    /// Returns the request to create this channel.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field, or [`Error::BadRequest`] with `WuKongIM`'s text.
    pub(crate) fn into_request(self) -> Result<CreateChannel, Error> {
        let flags = Flags {
            large: self.large.0,
            ban: self.ban.0,
            disband: self.disband.0,
        };
        Ok(CreateChannel {
            uids: parse_uids(self.subscribers)?,
            channel: parse_channel(self.channel_id, self.channel_type)?,
            flags: flags.into(),
            reset: self.reset.0,
        })
    }
}

/// The body of `POST /channel/info`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ChannelInfoBody {
    /// The channel's ID.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 2 group, …; not 0, and not 1 (person).
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// 1 for a very large group.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub large: Flag,
    /// 1 for a banned channel.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub ban: Flag,
    /// 1 for a disbanded channel.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub disband: Flag,
}

impl ChannelInfoBody {
    /// Returns the request to create this channel, or to change its flags.
    ///
    /// # Errors
    /// As [`ChannelBody::into_request`].
    pub(crate) fn into_request(self) -> Result<CreateChannel, Error> {
        let flags = Flags {
            large: self.large.0,
            ban: self.ban.0,
            disband: self.disband.0,
        };
        Ok(CreateChannel {
            channel: parse_channel(self.channel_id, self.channel_type)?,
            flags: flags.into(),
            uids: Vec::new(),
            reset: false,
        })
    }
}

/// The body of requests about a whole channel.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ChannelNameBody {
    /// The channel's ID.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 2 group, …; not 0, and not 1 (person).
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
}

impl ChannelNameBody {
    /// Returns the channel.
    ///
    /// # Errors
    /// As [`ChannelBody::into_request`].
    pub(crate) fn into_channel(self) -> Result<ChannelRef, Error> {
        parse_channel(self.channel_id, self.channel_type)
    }
}

/// The body of `POST /channel/subscriber_add`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct AddMembersBody {
    /// The channel's ID.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 0 or missing: a group.
    #[serde(default)]
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// The uids of the new members.
    #[schema(examples("u02"))]
    pub subscribers: Vec<String>,
    /// 1 to remove the members that are not in `subscribers`.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub reset: Flag,
}

impl AddMembersBody {
    /// Returns the channel and the users.
    ///
    /// # Errors
    /// As [`ChannelBody::into_request`].
    pub(crate) fn into_members(self) -> Result<(ChannelRef, Vec<Uid>), Error> {
        parse_members(self.channel_id, self.channel_type, self.subscribers)
    }
}

/// The body of `POST /channel/subscriber_remove`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct RemoveMembersBody {
    /// The channel's ID.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 0 or missing: a group.
    #[serde(default)]
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// The uids of the members to remove.
    #[schema(examples("u02"))]
    pub subscribers: Vec<String>,
}

impl RemoveMembersBody {
    /// Returns the channel and the users.
    ///
    /// # Errors
    /// As [`ChannelBody::into_request`].
    pub(crate) fn into_members(self) -> Result<(ChannelRef, Vec<Uid>), Error> {
        parse_members(self.channel_id, self.channel_type, self.subscribers)
    }
}

fn parse_uids(subscribers: Vec<String>) -> Result<Vec<Uid>, InvalidValue> {
    subscribers
        .into_iter()
        .map(|uid| Uid::parse("subscribers", uid))
        .collect()
}

/// Parses the name of a channel that is not a person channel.
fn parse_channel(channel_id: String, channel_type: u8) -> Result<ChannelRef, Error> {
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

/// Parses the channel and the users of a change of members; type 0 is a group.
fn parse_members(
    channel_id: String,
    channel_type: u8,
    subscribers: Vec<String>,
) -> Result<(ChannelRef, Vec<Uid>), Error> {
    let channel_type = match channel_type {
        0 => ChannelType::GROUP.number(),
        given => given,
    };
    let uids = parse_uids(subscribers)?;
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
