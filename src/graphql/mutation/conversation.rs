//! What a user changes in the own list.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use super::super::context::ContextExt;
use super::super::error::{At, Root};
use super::super::scalars::UInt53;
use super::super::types::{
    Conversation, ConversationTarget, RemovedConversation, SummaryOf, parse_channel_types,
};
use crate::conversation::{self as conversations, Deleted};

/// What `setUnread` takes.
#[derive(Clone, Debug, InputObject)]
pub struct SetUnreadInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// How many are unread, at least 0.
    unread: i32,
    /// Count only up to the message with this number: messages that came later are unread on top.
    /// Defaults to the last message.
    up_to: Option<UInt53>,
}

/// What `setUnread` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct SetUnreadPayload {
    /// As it is now.
    conversation: Conversation,
    /// Unread in all of the user's conversations, after this change. Null beside an error, if it
    /// cannot be read.
    unread_summary: Option<SummaryOf>,
}

/// What `clearUnread` takes.
#[derive(Clone, Debug, InputObject)]
pub struct ClearUnreadInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// Only up to the message with this number: what came later stays unread. A number above the
    /// last message is kept, and the messages up to it are read when they come. Defaults to the
    /// last message.
    up_to: Option<UInt53>,
}

/// What `clearUnread` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct ClearUnreadPayload {
    /// As it is now.
    conversation: Conversation,
    /// Unread in all of the user's conversations, after this change. Null beside an error, if it
    /// cannot be read.
    unread_summary: Option<SummaryOf>,
}

/// What `deleteConversation` takes.
#[derive(Clone, Debug, InputObject)]
pub struct DeleteConversationInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// Only up to the message with this number: later messages still show. A number above the last
    /// message is kept, and the messages up to it are deleted when they come. Defaults to the last
    /// message.
    up_to: Option<UInt53>,
}

/// What `deleteConversation` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct DeleteConversationPayload {
    /// The conversation that does not show any more. Null where messages above `upTo` still show.
    removed: Option<RemovedConversation>,
    /// The conversation, where messages above `upTo` still show.
    conversation: Option<Conversation>,
    /// Unread in all of the user's conversations, after this change. Null beside an error, if it
    /// cannot be read.
    unread_summary: Option<SummaryOf>,
}

/// What `markAllRead` takes.
#[derive(Clone, Debug, InputObject)]
pub struct MarkAllReadInput {
    /// The user's ID. Defaults to the authenticated user; required for service tokens.
    uid: Option<ID>,
    /// Only those of these channel types.
    channel_types: Option<Vec<i32>>,
    /// Leave alone conversations that changed after this version, which the user has not seen as
    /// they are: the `version` of the list on the screen.
    up_to_version: Option<UInt53>,
}

/// What `markAllRead` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct MarkAllReadPayload {
    /// Those that had unread messages, as they are now; newest activity first.
    conversations: Vec<Conversation>,
    /// What is still unread: of other channel types, or said since. Null beside an error, if it
    /// cannot be read.
    unread_summary: Option<SummaryOf>,
}

/// What `pinConversation` takes.
#[derive(Clone, Debug, InputObject)]
pub struct PinConversationInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// Whether it is pinned from now on.
    #[graphql(default_with = "Some(true)")]
    pinned: Option<bool>,
}

/// What `pinConversation` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct PinConversationPayload {
    /// As it is now.
    conversation: Conversation,
    /// Unread in all of the user's conversations, after this change. Null beside an error, if it
    /// cannot be read.
    unread_summary: Option<SummaryOf>,
}

/// What `muteConversation` takes.
#[derive(Clone, Debug, InputObject)]
pub struct MuteConversationInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// Whether it is muted from now on.
    #[graphql(default_with = "Some(true)")]
    muted: Option<bool>,
}

/// What `muteConversation` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct MuteConversationPayload {
    /// As it is now.
    conversation: Conversation,
    /// Unread in all of the user's conversations, after this change. Null beside an error, if it
    /// cannot be read.
    unread_summary: Option<SummaryOf>,
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
        #[graphql(desc = "The conversation, and its change.")] input: SetUnreadInput,
    ) -> Root<SetUnreadPayload> {
        let _timed = ctx.changing();
        let (uid, channel) = input.target.parse(ctx)?;
        let conversation = conversations::set_unread(
            ctx.core(),
            &uid,
            &channel,
            i64::from(input.unread),
            input.up_to.map(UInt53::signed),
        )
        .await
        .at("input")?;
        Ok(Some(SetUnreadPayload {
            conversation: conversation.into(),
            unread_summary: Some(SummaryOf(uid)),
        }))
    }

    /// Marks a conversation as read, up to its last message or up to `upTo`. A number below the
    /// read position changes nothing.
    async fn clear_unread(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversation, and its change.")] input: ClearUnreadInput,
    ) -> Root<ClearUnreadPayload> {
        let _timed = ctx.changing();
        let (uid, channel) = input.target.parse(ctx)?;
        let conversation = conversations::set_unread(
            ctx.core(),
            &uid,
            &channel,
            0,
            input.up_to.map(UInt53::signed),
        )
        .await?;
        Ok(Some(ClearUnreadPayload {
            conversation: conversation.into(),
            unread_summary: Some(SummaryOf(uid)),
        }))
    }

    /// Deletes a conversation up to its last message, or up to `upTo`; the next message brings it
    /// back. Deleting a deleted one changes nothing.
    async fn delete_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversation, and its change.")] input: DeleteConversationInput,
    ) -> Root<DeleteConversationPayload> {
        let _timed = ctx.changing();
        let (uid, channel) = input.target.parse(ctx)?;
        let up_to = input.up_to.map(UInt53::signed);
        let deleted = conversations::delete_conversation(ctx.core(), &uid, &channel, up_to).await?;
        let (removed, conversation) = match deleted {
            Deleted::Removed(removed) => (Some(RemovedConversation(removed)), None),
            Deleted::StillShows(conversation) => (None, Some(conversation.into())),
        };
        Ok(Some(DeleteConversationPayload {
            removed,
            conversation,
            unread_summary: Some(SummaryOf(uid)),
        }))
    }

    /// Marks all conversations as read, muted ones too, for all devices of the user.
    async fn mark_all_read(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which conversations.")] input: MarkAllReadInput,
    ) -> Root<MarkAllReadPayload> {
        let _timed = ctx.changing();
        let uid = ctx.viewer(input.uid.as_ref()).at("input")?;
        let only = input
            .channel_types
            .map(|types| parse_channel_types("channel_types", &types))
            .transpose()
            .at("input")?;
        let changed = conversations::mark_all_read(
            ctx.core(),
            &uid,
            only.as_deref(),
            input.up_to_version.map(UInt53::signed),
        )
        .await?;
        Ok(Some(MarkAllReadPayload {
            conversations: changed.into_iter().map(Conversation::from).collect(),
            unread_summary: Some(SummaryOf(uid)),
        }))
    }

    /// Pins a conversation above the others, or unpins it, on all devices of the user.
    async fn pin_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversation, and its change.")] input: PinConversationInput,
    ) -> Root<PinConversationPayload> {
        let _timed = ctx.changing();
        let (uid, channel) = input.target.parse(ctx)?;
        let conversation =
            conversations::set_pinned(ctx.core(), &uid, &channel, input.pinned.unwrap_or(true))
                .await?;
        Ok(Some(PinConversationPayload {
            conversation: conversation.into(),
            unread_summary: Some(SummaryOf(uid)),
        }))
    }

    /// Mutes a conversation, or unmutes it, on all devices of the user: what is unread in it is
    /// counted apart.
    async fn mute_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversation, and its change.")] input: MuteConversationInput,
    ) -> Root<MuteConversationPayload> {
        let _timed = ctx.changing();
        let (uid, channel) = input.target.parse(ctx)?;
        let conversation =
            conversations::set_muted(ctx.core(), &uid, &channel, input.muted.unwrap_or(true))
                .await?;
        Ok(Some(MuteConversationPayload {
            conversation: conversation.into(),
            unread_summary: Some(SummaryOf(uid)),
        }))
    }
}
