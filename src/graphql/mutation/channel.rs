//! Mutations of channels and their members.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use crate::auth::Action;
use crate::channel::{CreateChannel, FlagChanges};
use crate::graphql::context::ContextExt;
use crate::graphql::error::{InArgument, Result, RootResult};
use crate::graphql::types::{Channel, ChannelTarget};
use crate::model::{InvalidValue, Uid};
use crate::proxy::{Answer, ChannelChange};

/// The input of `createChannel`.
#[derive(Clone, Debug, InputObject)]
pub struct CreateChannelInput {
    #[graphql(flatten)]
    target: ChannelTarget,
    /// The users to add. No member is removed.
    uids: Option<Vec<ID>>,
    /// True marks the channel as a group of very many members, false removes the mark. Null leaves
    /// it unchanged.
    large: Option<bool>,
    /// True marks the channel as banned, false removes the mark. Null leaves it unchanged.
    ban: Option<bool>,
    /// True marks the channel as disbanded, false removes the mark. Null leaves it unchanged.
    disband: Option<bool>,
}

/// The result of `createChannel`.
#[derive(Clone, Debug, SimpleObject)]
pub struct CreateChannelPayload {
    /// The channel.
    channel: Channel,
}

/// The input of `addMembers`.
#[derive(Clone, Debug, InputObject)]
pub struct AddMembersInput {
    #[graphql(flatten)]
    target: ChannelTarget,
    /// The users to add. No member is removed.
    uids: Vec<ID>,
}

/// The result of `addMembers`.
#[derive(Clone, Debug, SimpleObject)]
pub struct AddMembersPayload {
    /// The channel.
    channel: Channel,
}

/// The input of `replaceMembers`.
#[derive(Clone, Debug, InputObject)]
pub struct ReplaceMembersInput {
    #[graphql(flatten)]
    target: ChannelTarget,
    /// The new members. All other users are removed.
    uids: Vec<ID>,
}

/// The result of `replaceMembers`.
#[derive(Clone, Debug, SimpleObject)]
pub struct ReplaceMembersPayload {
    /// The channel.
    channel: Channel,
}

/// The input of `removeMembers`.
#[derive(Clone, Debug, InputObject)]
pub struct RemoveMembersInput {
    #[graphql(flatten)]
    target: ChannelTarget,
    /// The users to remove.
    uids: Vec<ID>,
}

/// The result of `removeMembers`.
#[derive(Clone, Debug, SimpleObject)]
pub struct RemoveMembersPayload {
    /// The channel.
    channel: Channel,
}

/// The input of `deleteChannel`.
#[derive(Clone, Debug, InputObject)]
pub struct DeleteChannelInput {
    #[graphql(flatten)]
    target: ChannelTarget,
}

/// The result of `deleteChannel`.
#[derive(Clone, Debug, SimpleObject)]
pub struct DeleteChannelPayload {
    /// The channel, which is empty now.
    channel: Channel,
}

fn parse_uids(uids: Vec<ID>) -> std::result::Result<Vec<Uid>, InvalidValue> {
    uids.into_iter()
        .map(|uid| Uid::parse("uids", uid.0))
        .collect()
}

/// Makes a change: at the `WuKongIM` behind this server first, if there is one.
async fn change(ctx: &Context<'_>, change: ChannelChange) -> Result<()> {
    let answer = ctx.core().change_channel(change, None).await;
    let answer = answer.in_argument("input")?;
    Ok(answer.as_ref().map_or(Ok(()), Answer::check)?)
}

/// Mutations of channels and their members, for services only.
#[derive(Debug, Default)]
pub struct ChannelMutation;

#[Object]
impl ChannelMutation {
    /// Creates a channel or changes an existing one, and adds members. Omitted fields stay
    /// unchanged. A person channel needs no creation and cannot be changed.
    async fn create_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel and its change.")] input: CreateChannelInput,
    ) -> RootResult<CreateChannelPayload> {
        let _timer = ctx.time_mutation();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.target.parse()?;
        let request = CreateChannel {
            channel: channel.clone(),
            flags: FlagChanges {
                large: input.large,
                ban: input.ban,
                disband: input.disband,
            },
            uids: parse_uids(input.uids.unwrap_or_default()).in_argument("input")?,
            reset: false,
        };
        change(ctx, ChannelChange::Create(request)).await?;
        Ok(Some(CreateChannelPayload {
            channel: channel.into(),
        }))
    }

    /// Adds members, who see messages sent from now on. An unknown channel is created.
    async fn add_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel and its change.")] input: AddMembersInput,
    ) -> RootResult<AddMembersPayload> {
        let _timer = ctx.time_mutation();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.target.parse()?;
        let members = ChannelChange::AddMembers {
            channel: channel.clone(),
            uids: parse_uids(input.uids).in_argument("input")?,
            reset: false,
        };
        change(ctx, members).await?;
        Ok(Some(AddMembersPayload {
            channel: channel.into(),
        }))
    }

    /// Sets the members: adds those that are missing, who see messages sent from now on, and
    /// removes all others. An unknown channel is created.
    async fn replace_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel and its change.")] input: ReplaceMembersInput,
    ) -> RootResult<ReplaceMembersPayload> {
        let _timer = ctx.time_mutation();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.target.parse()?;
        let members = ChannelChange::AddMembers {
            channel: channel.clone(),
            uids: parse_uids(input.uids).in_argument("input")?,
            reset: true,
        };
        change(ctx, members).await?;
        Ok(Some(ReplaceMembersPayload {
            channel: channel.into(),
        }))
    }

    /// Removes members and their conversations.
    async fn remove_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel and its change.")] input: RemoveMembersInput,
    ) -> RootResult<RemoveMembersPayload> {
        let _timer = ctx.time_mutation();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.target.parse()?;
        let members = ChannelChange::RemoveMembers {
            channel: channel.clone(),
            uids: parse_uids(input.uids).in_argument("input")?,
        };
        change(ctx, members).await?;
        Ok(Some(RemoveMembersPayload {
            channel: channel.into(),
        }))
    }

    /// Deletes a channel: its conversations disappear from all lists, and its messages never show
    /// again. If the channel is created again, it starts empty. Deleting a deleted or unknown
    /// channel changes nothing.
    async fn delete_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel.")] input: DeleteChannelInput,
    ) -> RootResult<DeleteChannelPayload> {
        let _timer = ctx.time_mutation();
        ctx.caller().check(Action::ManageChannels)?;
        let channel = input.target.parse()?;
        change(ctx, ChannelChange::Delete(channel.clone())).await?;
        Ok(Some(DeleteChannelPayload {
            channel: channel.into(),
        }))
    }
}
