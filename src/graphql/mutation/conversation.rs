//! What a user changes in the own list.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use super::super::context::ContextExt;
use super::super::error::{At, Result};
use super::super::types::{ChannelInput, Conversation, RemovedConversation, UnreadSummary, parse_channel_types};
use crate::conversation as conversations;

/// What `setUnread` takes.
#[derive(Clone, Debug, InputObject)]
pub struct SetUnreadInput {
    /// Whose conversation; left out, the user's who asks. A service must say.
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
    /// Whose conversation; left out, the user's who asks. A service must say.
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
    /// Whose conversation; left out, the user's who asks. A service must say.
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

/// What `markAllRead` takes.
#[derive(Clone, Debug, InputObject)]
pub struct MarkAllReadInput {
    /// Whose conversations; left out, the user's who asks. A service must say.
    uid: Option<ID>,
    /// Only those of these channel types.
    channel_types: Option<Vec<i32>>,
}

/// What `markAllRead` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct MarkAllReadPayload {
    /// Those that had unread messages, as they are now; newest activity first.
    conversations: Vec<Conversation>,
    /// What is still unread: of other channel types, or said since.
    unread_summary: UnreadSummary,
}

/// What `pinConversation` takes.
#[derive(Clone, Debug, InputObject)]
pub struct PinConversationInput {
    /// Whose conversation; left out, the user's who asks. A service must say.
    uid: Option<ID>,
    /// Which channel.
    channel: ChannelInput,
    /// Whether it is pinned from now on.
    #[graphql(default = true)]
    pinned: bool,
}

/// What `pinConversation` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct PinConversationPayload {
    /// As it is now.
    conversation: Conversation,
}

/// What `muteConversation` takes.
#[derive(Clone, Debug, InputObject)]
pub struct MuteConversationInput {
    /// Whose conversation; left out, the user's who asks. A service must say.
    uid: Option<ID>,
    /// Which channel.
    channel: ChannelInput,
    /// Whether it is muted from now on.
    #[graphql(default = true)]
    muted: bool,
}

/// What `muteConversation` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct MuteConversationPayload {
    /// As it is now.
    conversation: Conversation,
}

/// What a user changes in the own list.
#[derive(Debug, Default)]
pub struct ConversationMutation;

#[Object]
impl ConversationMutation {
    /// Sets how many messages of a conversation are unread, for all devices of the user.
    async fn set_unread(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: SetUnreadInput,
    ) -> Result<SetUnreadPayload> {
        let _timed = ctx.timed();
        let uid = ctx.viewer(input.uid.as_ref()).at("input")?;
        let channel = input.channel.parse().at("input.channel")?;
        let conversation = conversations::set_unread(ctx.core(), &uid, &channel, i64::from(input.unread)).await.at("input")?;
        Ok(SetUnreadPayload { conversation: conversation.into() })
    }

    /// Marks a conversation as read.
    async fn clear_unread(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: ClearUnreadInput,
    ) -> Result<ClearUnreadPayload> {
        let _timed = ctx.timed();
        let uid = ctx.viewer(input.uid.as_ref()).at("input")?;
        let conversation = conversations::set_unread(ctx.core(), &uid, &input.channel.parse().at("input.channel")?, 0).await?;
        Ok(ClearUnreadPayload { conversation: conversation.into() })
    }

    /// Deletes a conversation up to its last message; the next message brings it back. Deleting a deleted one changes nothing.
    async fn delete_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: DeleteConversationInput,
    ) -> Result<DeleteConversationPayload> {
        let _timed = ctx.timed();
        let uid = ctx.viewer(input.uid.as_ref()).at("input")?;
        let removed = conversations::delete_conversation(ctx.core(), &uid, &input.channel.parse().at("input.channel")?).await?;
        Ok(DeleteConversationPayload { removed: RemovedConversation(removed) })
    }

    /// Marks all conversations as read, muted ones too, for all devices of the user.
    async fn mark_all_read(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: MarkAllReadInput,
    ) -> Result<MarkAllReadPayload> {
        let _timed = ctx.timed();
        let uid = ctx.viewer(input.uid.as_ref()).at("input")?;
        let only = input.channel_types.map(|types| parse_channel_types("channel_types", &types)).transpose().at("input")?;
        let changed = conversations::mark_all_read(ctx.core(), &uid, only.as_deref()).await?;
        Ok(MarkAllReadPayload {
            conversations: changed.into_iter().map(Conversation::from).collect(),
            unread_summary: UnreadSummary(conversations::summarize(ctx.core(), &uid).await?),
        })
    }

    /// Pins a conversation above the others, or unpins it, on all devices of the user.
    async fn pin_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: PinConversationInput,
    ) -> Result<PinConversationPayload> {
        let _timed = ctx.timed();
        let uid = ctx.viewer(input.uid.as_ref()).at("input")?;
        let channel = input.channel.parse().at("input.channel")?;
        let conversation = conversations::set_pinned(ctx.core(), &uid, &channel, input.pinned).await?;
        Ok(PinConversationPayload { conversation: conversation.into() })
    }

    /// Mutes a conversation, or unmutes it, on all devices of the user: what is unread in it is counted apart.
    async fn mute_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What, and whose.")] input: MuteConversationInput,
    ) -> Result<MuteConversationPayload> {
        let _timed = ctx.timed();
        let uid = ctx.viewer(input.uid.as_ref()).at("input")?;
        let channel = input.channel.parse().at("input.channel")?;
        let conversation = conversations::set_muted(ctx.core(), &uid, &channel, input.muted).await?;
        Ok(MuteConversationPayload { conversation: conversation.into() })
    }
}
