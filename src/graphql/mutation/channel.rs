//! Channels and who is in them.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use super::super::context::ContextExt;
use super::super::error::{At, Result};
use super::super::types::{Channel, ChannelInput};
use crate::auth::Action;
use crate::channel::{self as channels, CreateChannel, Flags};
use crate::error::Error;
use crate::ids::Uid;

/// What `createChannel` takes.
#[derive(Clone, Debug, InputObject)]
pub struct CreateChannelInput {
    /// Which channel; not a person channel, which is there by itself.
    channel: ChannelInput,
    /// Who is in it.
    #[graphql(default)]
    uids: Vec<ID>,
    /// A group of very many.
    #[graphql(default)]
    large: bool,
    /// Mark it as banned.
    #[graphql(default)]
    ban: bool,
    /// Mark it as disbanded.
    #[graphql(default)]
    disband: bool,
    /// Whether everybody else leaves.
    #[graphql(default)]
    reset: bool,
}

/// What `createChannel` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct CreateChannelPayload {
    /// The channel.
    channel: Channel,
}

/// What `addMembers` takes.
#[derive(Clone, Debug, InputObject)]
pub struct AddMembersInput {
    /// Which channel; an unknown one is made.
    channel: ChannelInput,
    /// Who comes.
    uids: Vec<ID>,
    /// Whether everybody else leaves.
    #[graphql(default)]
    reset: bool,
}

/// What `addMembers` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct AddMembersPayload {
    /// The channel.
    channel: Channel,
}

/// What `removeMembers` takes.
#[derive(Clone, Debug, InputObject)]
pub struct RemoveMembersInput {
    /// Which channel.
    channel: ChannelInput,
    /// Who goes.
    uids: Vec<ID>,
}

/// What `removeMembers` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct RemoveMembersPayload {
    /// The channel.
    channel: Channel,
}

/// What `deleteChannel` takes.
#[derive(Clone, Debug, InputObject)]
pub struct DeleteChannelInput {
    /// Which channel; not a person channel.
    channel: ChannelInput,
}

/// What `deleteChannel` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct DeleteChannelPayload {
    /// The channel that is empty now.
    channel: Channel,
}

fn parse_uids(uids: Vec<ID>) -> std::result::Result<Vec<Uid>, Error> {
    uids.into_iter().map(|uid| Uid::parse("uids", uid.0)).collect()
}

/// Channels and who is in them: for services only.
#[derive(Debug, Default)]
pub struct ChannelMutation;

#[Object]
impl ChannelMutation {
    /// Makes a channel, or changes one, and adds members.
    async fn create_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: CreateChannelInput,
    ) -> Result<CreateChannelPayload> {
        let _timed = ctx.timed();
        ctx.caller().check(Action::ManageChannels)?;
        let request = CreateChannel {
            channel: input.channel.parse().at("input.channel")?,
            flags: Flags { large: input.large, ban: input.ban, disband: input.disband },
            uids: parse_uids(input.uids).at("input")?,
            reset: input.reset,
        };
        channels::create_channel(ctx.core(), &request).await.at("input")?;
        Ok(CreateChannelPayload { channel: Channel(request.channel) })
    }

    /// Adds members, who see what is sent from now on.
    async fn add_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: AddMembersInput,
    ) -> Result<AddMembersPayload> {
        let _timed = ctx.timed();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.channel.parse().at("input.channel")?;
        channels::add_members(ctx.core(), &channel, &parse_uids(input.uids).at("input")?, input.reset).await.at("input")?;
        Ok(AddMembersPayload { channel: Channel(channel) })
    }

    /// Removes members; their conversations go.
    async fn remove_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: RemoveMembersInput,
    ) -> Result<RemoveMembersPayload> {
        let _timed = ctx.timed();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.channel.parse().at("input.channel")?;
        channels::remove_members(ctx.core(), &channel, &parse_uids(input.uids).at("input")?).await.at("input")?;
        Ok(RemoveMembersPayload { channel: Channel(channel) })
    }

    /// Deletes a channel: its conversations go from everybody's list, and what was said never shows again. Who makes it again begins
    /// with an empty one. Deleting a deleted or unknown one changes nothing.
    async fn delete_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What.")] input: DeleteChannelInput,
    ) -> Result<DeleteChannelPayload> {
        let _timed = ctx.timed();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.channel.parse().at("input.channel")?;
        channels::delete_channel(ctx.core(), &channel).await.at("input.channel")?;
        Ok(DeleteChannelPayload { channel: Channel(channel) })
    }
}
