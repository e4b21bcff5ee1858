//! Channels and who is in them.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use super::super::context::ContextExt;
use super::super::error::{At, Root};
use super::super::types::{Channel, ChannelTarget};
use crate::auth::Action;
use crate::channel::{self as channels, CreateChannel, FlagChanges};
use crate::error::Error;
use crate::ids::Uid;

/// What `createChannel` takes.
#[derive(Clone, Debug, InputObject)]
pub struct CreateChannelInput {
    #[graphql(flatten)]
    target: ChannelTarget,
    /// The users to add. Nobody is removed.
    uids: Option<Vec<ID>>,
    /// Whether to mark it as a group of very many members. Null: as it is.
    large: Option<bool>,
    /// Whether to mark it as banned. Null: as it is.
    ban: Option<bool>,
    /// Whether to mark it as disbanded. Null: as it is.
    disband: Option<bool>,
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
    #[graphql(flatten)]
    target: ChannelTarget,
    /// The users to add. Nobody is removed.
    uids: Vec<ID>,
}

/// What `addMembers` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct AddMembersPayload {
    /// The channel.
    channel: Channel,
}

/// What `replaceMembers` takes.
#[derive(Clone, Debug, InputObject)]
pub struct ReplaceMembersInput {
    #[graphql(flatten)]
    target: ChannelTarget,
    /// The users who are members from now on. Everybody else is removed.
    uids: Vec<ID>,
}

/// What `replaceMembers` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct ReplaceMembersPayload {
    /// The channel.
    channel: Channel,
}

/// What `removeMembers` takes.
#[derive(Clone, Debug, InputObject)]
pub struct RemoveMembersInput {
    #[graphql(flatten)]
    target: ChannelTarget,
    /// The users to remove.
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
    #[graphql(flatten)]
    target: ChannelTarget,
}

/// What `deleteChannel` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct DeleteChannelPayload {
    /// The channel that is empty now.
    channel: Channel,
}

fn parse_uids(uids: Vec<ID>) -> std::result::Result<Vec<Uid>, Error> {
    uids.into_iter()
        .map(|uid| Uid::parse("uids", uid.0))
        .collect()
}

/// Channels and who is in them: for services only.
#[derive(Debug, Default)]
pub struct ChannelMutation;

#[Object]
impl ChannelMutation {
    /// Creates a channel, or changes an existing one, and adds members. What is left out stays as
    /// it is. A person channel needs no creation, and cannot be changed.
    async fn create_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel, and its change.")] input: CreateChannelInput,
    ) -> Root<CreateChannelPayload> {
        let _timed = ctx.changing();
        ctx.caller().check(Action::ManageChannels)?;
        let request = CreateChannel {
            channel: input.target.parse()?,
            flags: FlagChanges {
                large: input.large,
                ban: input.ban,
                disband: input.disband,
            },
            uids: parse_uids(input.uids.unwrap_or_default()).at("input")?,
            reset: false,
        };
        channels::create_channel(ctx.core(), &request)
            .await
            .at("input")?;
        Ok(Some(CreateChannelPayload {
            channel: request.channel.into(),
        }))
    }

    /// Adds members, who see what is sent from now on. An unknown channel is created.
    async fn add_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel, and its change.")] input: AddMembersInput,
    ) -> Root<AddMembersPayload> {
        let _timed = ctx.changing();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.target.parse()?;
        channels::add_members(
            ctx.core(),
            &channel,
            &parse_uids(input.uids).at("input")?,
            false,
        )
        .await
        .at("input")?;
        Ok(Some(AddMembersPayload {
            channel: channel.into(),
        }))
    }

    /// Sets the members: adds those that are missing, who see what is sent from now on, and removes
    /// everybody else. An unknown channel is created.
    async fn replace_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel, and its change.")] input: ReplaceMembersInput,
    ) -> Root<ReplaceMembersPayload> {
        let _timed = ctx.changing();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.target.parse()?;
        channels::add_members(
            ctx.core(),
            &channel,
            &parse_uids(input.uids).at("input")?,
            true,
        )
        .await
        .at("input")?;
        Ok(Some(ReplaceMembersPayload {
            channel: channel.into(),
        }))
    }

    /// Removes members; their conversations go.
    async fn remove_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel, and its change.")] input: RemoveMembersInput,
    ) -> Root<RemoveMembersPayload> {
        let _timed = ctx.changing();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.target.parse()?;
        channels::remove_members(ctx.core(), &channel, &parse_uids(input.uids).at("input")?)
            .await
            .at("input")?;
        Ok(Some(RemoveMembersPayload {
            channel: channel.into(),
        }))
    }

    /// Deletes a channel: its conversations go from everybody's list, and what was said never shows
    /// again. Who makes it again begins with an empty one. Deleting a deleted or unknown one
    /// changes nothing.
    async fn delete_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel.")] input: DeleteChannelInput,
    ) -> Root<DeleteChannelPayload> {
        let _timed = ctx.changing();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.target.parse()?;
        channels::delete_channel(ctx.core(), &channel)
            .await
            .at("input")?;
        Ok(Some(DeleteChannelPayload {
            channel: channel.into(),
        }))
    }
}
