//! What can be changed. Every payload returns what changed, so that normalised caches follow.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use super::context::ContextExt;
use super::error::Result;
use super::scalars::{Base64, UInt53};
use super::types::{Channel, ChannelInput, Conversation, Message, MessageHeaderInput, RemovedConversation};
use crate::channel::{self as channels, CreateChannel, Flags};
use crate::conversation as conversations;
use crate::error::Error;
use crate::ids::{COMMAND_SUFFIX, Uid};
use crate::message::{self as messages, Content, SendRequest};

/// What `setUnread` takes.
#[derive(Clone, Debug, InputObject)]
pub struct SetUnreadInput {
    /// Whose conversation; a service must say.
    uid: Option<ID>,
    /// Which channel.
    channel: ChannelInput,
    /// How many are unread, at least 0.
    unread: i32,
}

/// What `setUnread` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct SetUnreadPayload {
    /// As it is now.
    conversation: Conversation,
}

/// What `clearUnread` takes.
#[derive(Clone, Debug, InputObject)]
pub struct ClearUnreadInput {
    /// Whose conversation; a service must say.
    uid: Option<ID>,
    /// Which channel.
    channel: ChannelInput,
}

/// What `clearUnread` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct ClearUnreadPayload {
    /// As it is now.
    conversation: Conversation,
}

/// What `deleteConversation` takes.
#[derive(Clone, Debug, InputObject)]
pub struct DeleteConversationInput {
    /// Whose conversation; a service must say.
    uid: Option<ID>,
    /// Which channel.
    channel: ChannelInput,
}

/// What `deleteConversation` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct DeleteConversationPayload {
    /// What does not show any more.
    removed: RemovedConversation,
}

/// What `sendMessage` takes.
#[derive(Clone, Debug, InputObject)]
pub struct SendMessageInput {
    /// Who sends it; a service that leaves it out sends as the system.
    from_uid: Option<ID>,
    /// Where to; for a person channel the recipient's uid.
    channel: ChannelInput,
    /// The bytes.
    payload: Base64,
    /// The sender's deduplication key: the same one again returns the first message.
    client_msg_no: Option<String>,
    /// How it is to be treated.
    #[graphql(default)]
    header: MessageHeaderInput,
    /// The messaging system's setting bits, 0 to 255.
    #[graphql(default)]
    setting: i32,
    /// A topic inside the channel.
    topic: Option<String>,
    /// Seconds until it expires, 0 for never.
    #[graphql(default)]
    expire: UInt53,
}

/// What `sendMessage` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct SendMessagePayload {
    /// The message as stored.
    message: Message,
}

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

fn parse_uids(uids: Vec<ID>) -> Result<Vec<Uid>> {
    uids.into_iter().map(|uid| Ok(Uid::parse("uids", uid.0)?)).collect()
}

/// What can be changed.
pub struct Mutation;

#[Object]
impl Mutation {
    /// Sets how many messages of a conversation are unread, for all devices of the user.
    async fn set_unread(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: SetUnreadInput,
    ) -> Result<SetUnreadPayload> {
        let uid = ctx.viewer(input.uid.as_ref().map(|uid| uid.as_str()))?;
        let channel = input.channel.parse()?;
        let conversation = conversations::set_unread(ctx.core(), &uid, &channel, i64::from(input.unread)).await?;
        Ok(SetUnreadPayload { conversation: conversation.into() })
    }

    /// Marks a conversation as read.
    async fn clear_unread(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: ClearUnreadInput,
    ) -> Result<ClearUnreadPayload> {
        let uid = ctx.viewer(input.uid.as_ref().map(|uid| uid.as_str()))?;
        let conversation = conversations::set_unread(ctx.core(), &uid, &input.channel.parse()?, 0).await?;
        Ok(ClearUnreadPayload { conversation: conversation.into() })
    }

    /// Deletes a conversation up to its last message; the next message brings it back. Deleting a deleted one changes nothing.
    async fn delete_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: DeleteConversationInput,
    ) -> Result<DeleteConversationPayload> {
        let uid = ctx.viewer(input.uid.as_ref().map(|uid| uid.as_str()))?;
        let removed = conversations::delete_conversation(ctx.core(), &uid, &input.channel.parse()?).await?;
        Ok(DeleteConversationPayload { removed: RemovedConversation(removed) })
    }

    /// Sends a message; returns when it is stored for good.
    async fn send_message(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: SendMessageInput,
    ) -> Result<SendMessagePayload> {
        let from = match input.from_uid {
            Some(uid) => Uid::parse("from_uid", uid.0)?,
            None => Uid::system(),
        };
        let channel = input.channel.parse()?;
        if input.payload.0.is_empty() {
            return Err(Error::bad_input("payload", "must not be empty").into());
        }
        let content = Content {
            setting: u8::try_from(input.setting).map_err(|_| Error::bad_input("setting", "must be between 0 and 255"))?,
            topic: input.topic.unwrap_or_default(),
            expire: u32::try_from(input.expire.0)
                .map_err(|_| Error::bad_input("expire", format!("must be between 0 and {}", u32::MAX)))?,
            payload: input.payload.0,
            ..Content::default()
        };
        let transient = input.header.no_persist || input.header.sync_once || channel.channel_id.ends_with(COMMAND_SUFFIX);
        let request =
            SendRequest { from, channel, client_msg_no: input.client_msg_no, red_dot: input.header.red_dot, transient, content };
        Ok(SendMessagePayload { message: Message(messages::send(ctx.core(), request).await?.message) })
    }

    /// Makes a channel, or changes one, and adds members.
    async fn create_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: CreateChannelInput,
    ) -> Result<CreateChannelPayload> {
        let request = CreateChannel {
            channel: input.channel.parse()?,
            flags: Flags { large: input.large, ban: input.ban, disband: input.disband },
            uids: parse_uids(input.uids)?,
            reset: input.reset,
        };
        channels::create_channel(ctx.core(), &request).await?;
        Ok(CreateChannelPayload { channel: Channel(request.channel) })
    }

    /// Adds members, who see what is sent from now on.
    async fn add_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: AddMembersInput,
    ) -> Result<AddMembersPayload> {
        let channel = input.channel.parse()?;
        channels::add_members(ctx.core(), &channel, &parse_uids(input.uids)?, input.reset).await?;
        Ok(AddMembersPayload { channel: Channel(channel) })
    }

    /// Removes members; their conversations go.
    async fn remove_members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: RemoveMembersInput,
    ) -> Result<RemoveMembersPayload> {
        let channel = input.channel.parse()?;
        channels::remove_members(ctx.core(), &channel, &parse_uids(input.uids)?).await?;
        Ok(RemoveMembersPayload { channel: Channel(channel) })
    }
}
