//! What a mutation is about. A client that holds an object names it by its `id`; one that does not
//! names the channel.

use async_graphql::{Context, ID, InputObject};

use super::super::context::ContextExt;
use super::super::error::{At, Result, camel_case};
use super::ChannelInput;
use super::id::NodeId;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};

/// Which conversation of which user.
#[derive(Clone, Debug, InputObject)]
pub struct ConversationTarget {
    /// The user's ID. Defaults to the user of `id`, or else to the authenticated user; a service
    /// must give one of the two.
    uid: Option<ID>,
    /// The global ID of the conversation, or of its channel. Give this or `channel`.
    id: Option<ID>,
    /// The channel. Give this or `id`.
    channel: Option<ChannelInput>,
}

impl ConversationTarget {
    /// The user and the channel, where the caller may act for this user.
    pub(in crate::graphql) fn parse(self, ctx: &Context<'_>) -> Result<(Uid, ChannelRef)> {
        let (of_id, channel) = parse_channel(self.id, self.channel)?;
        let uid = parse_user("uid", self.uid.as_ref(), of_id)?;
        Ok((ctx.caller().viewer(uid).at("input")?, channel))
    }
}

/// Which channel.
#[derive(Clone, Debug, InputObject)]
pub struct ChannelTarget {
    /// The global ID of the channel, or of a conversation in it. Give this or `channel`.
    id: Option<ID>,
    /// The channel. Give this or `id`.
    channel: Option<ChannelInput>,
}

impl ChannelTarget {
    pub(in crate::graphql) fn parse(self) -> Result<ChannelRef> {
        Ok(parse_channel(self.id, self.channel)?.1)
    }
}

/// The channel, and the user whose conversation `id` names.
pub(in crate::graphql) fn parse_channel(
    id: Option<ID>,
    channel: Option<ChannelInput>,
) -> Result<(Option<Uid>, ChannelRef)> {
    let id = match (id, channel) {
        (None, Some(channel)) => return Ok((None, channel.parse().at("input.channel")?)),
        (Some(id), None) => id,
        (Some(_), Some(_)) => {
            return Err(Error::bad_input(
                "id",
                "must not be given beside input.channel",
            ))
            .at("input");
        }
        (None, None) => {
            return Err(Error::bad_input("channel", "must be given, or input.id")).at("input");
        }
    };
    match NodeId::decode(&id) {
        Some(NodeId::Conversation(uid, channel)) => Ok((Some(uid), channel)),
        Some(NodeId::Channel(channel)) => Ok((None, channel)),
        _ => Err(Error::bad_input(
            "id",
            "must be the id of a conversation or a channel",
        ))
        .at("input"),
    }
}

/// The user that the field `name` and the id of a conversation name.
pub(in crate::graphql) fn parse_user(
    name: &'static str,
    given: Option<&ID>,
    of_id: Option<Uid>,
) -> Result<Option<Uid>> {
    let given = given
        .map(|uid| Uid::parse(name, uid.as_str()))
        .transpose()
        .at("input")?;
    match (given, of_id) {
        (Some(given), Some(of_id)) if given != of_id => Err(Error::bad_input(
            "id",
            format!("must be of the user that input.{} names", camel_case(name)),
        ))
        .at("input"),
        (given, of_id) => Ok(given.or(of_id)),
    }
}
