//! The targets of mutations. Clients that hold an object give its `id`; others give the channel.

use async_graphql::{Context, ID, InputObject};

use super::ChannelInput;
use super::node_id::NodeId;
use crate::error::Error;
use crate::graphql::context::ContextExt;
use crate::graphql::error::{InArgument, Result, camel_case};
use crate::model::{ChannelRef, Uid};

/// A conversation of a user.
#[derive(Clone, Debug, InputObject)]
pub struct ConversationTarget {
    /// The user's ID. Defaults to the user of `id`, or else to the authenticated user; service
    /// tokens must give one of the two.
    uid: Option<ID>,
    /// The global ID of the conversation, or of its channel. Give this or `channel`.
    id: Option<ID>,
    /// The channel. Give this or `id`.
    channel: Option<ChannelInput>,
}

impl ConversationTarget {
    /// Returns the user and the channel, if the caller may act for the user.
    pub(in crate::graphql) fn parse(self, ctx: &Context<'_>) -> Result<(Uid, ChannelRef)> {
        let (of_id, channel) = parse_channel(self.id, self.channel)?;
        let uid = parse_user("uid", self.uid.as_ref(), of_id)?;
        Ok((ctx.caller().viewer(uid).in_argument("input")?, channel))
    }
}

/// A channel.
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

/// Returns the channel, and the user of the conversation that `id` names.
pub(in crate::graphql) fn parse_channel(
    id: Option<ID>,
    channel: Option<ChannelInput>,
) -> Result<(Option<Uid>, ChannelRef)> {
    let id = match (id, channel) {
        (None, Some(channel)) => return Ok((None, channel.parse().in_argument("input.channel")?)),
        (Some(id), None) => id,
        (Some(_), Some(_)) => {
            return Err(Error::bad_input(
                "id",
                "must not be given beside input.channel",
            ))
            .in_argument("input");
        }
        (None, None) => {
            return Err(Error::bad_input(
                "channel",
                "must be given, or input.id must be",
            ))
            .in_argument("input");
        }
    };
    match NodeId::decode(&id) {
        Some(NodeId::Conversation(uid, channel)) => Ok((Some(uid), channel)),
        Some(NodeId::Channel(channel)) => Ok((None, channel)),
        _ => Err(Error::bad_input(
            "id",
            "must be the id of a conversation or a channel",
        ))
        .in_argument("input"),
    }
}

/// Returns the user given by the field `name` or by the ID of a conversation.
pub(in crate::graphql) fn parse_user(
    name: &'static str,
    given: Option<&ID>,
    of_id: Option<Uid>,
) -> Result<Option<Uid>> {
    let given = given
        .map(|uid| Uid::parse(name, uid.as_str()))
        .transpose()
        .in_argument("input")?;
    match (given, of_id) {
        (Some(given), Some(of_id)) if given != of_id => Err(Error::bad_input(
            "id",
            format!("must be of the same user as input.{}", camel_case(name)),
        ))
        .in_argument("input"),
        (given, of_id) => Ok(given.or(of_id)),
    }
}
