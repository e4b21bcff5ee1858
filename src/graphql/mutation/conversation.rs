//! Mutations of a user's conversations.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use crate::conversation::{self as conversations, DeleteOutcome};
use crate::graphql::context::ContextExt;
use crate::graphql::error::{InArgument, RootResult};
use crate::graphql::scalars::UInt53;
use crate::graphql::types::{
    Conversation, ConversationTarget, LazyUnreadSummary, RemovedConversation, parse_channel_types,
};
use crate::model::Version;

/// The input of `setUnread`.
#[derive(Clone, Debug, InputObject)]
pub struct SetUnreadInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// The number of unread messages, at least 0.
    unread: i32,
    /// The number of the last message that `unread` covers: later messages are added to it.
    /// Defaults to the last message.
    up_to: Option<UInt53>,
}

/// The result of `setUnread`.
#[derive(Clone, Debug, SimpleObject)]
pub struct SetUnreadPayload {
    /// The conversation after the change.
    conversation: Conversation,
    /// The unread totals of all of the user's conversations after the change. Null beside an error
    /// if they cannot be read.
    unread_summary: Option<LazyUnreadSummary>,
}

/// The input of `clearUnread`.
#[derive(Clone, Debug, InputObject)]
pub struct ClearUnreadInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// The number of the last message to mark as read: later messages stay unread. If it is above
    /// the last message, it is kept, and messages up to it are read when they arrive. Defaults to
    /// the last message.
    up_to: Option<UInt53>,
}

/// The result of `clearUnread`.
#[derive(Clone, Debug, SimpleObject)]
pub struct ClearUnreadPayload {
    /// The conversation after the change.
    conversation: Conversation,
    /// The unread totals of all of the user's conversations after the change. Null beside an error
    /// if they cannot be read.
    unread_summary: Option<LazyUnreadSummary>,
}

/// The input of `deleteConversation`.
#[derive(Clone, Debug, InputObject)]
pub struct DeleteConversationInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// The number of the last message to delete: later messages still show. If it is above the last
    /// message, it is kept, and messages up to it are deleted when they arrive. Defaults to the
    /// last message.
    up_to: Option<UInt53>,
}

/// The result of `deleteConversation`.
#[derive(Clone, Debug, SimpleObject)]
pub struct DeleteConversationPayload {
    /// The conversation that is not listed any more. Null if messages above `upTo` still show.
    removed: Option<RemovedConversation>,
    /// The conversation, if messages above `upTo` still show.
    conversation: Option<Conversation>,
    /// The unread totals of all of the user's conversations after the change. Null beside an error
    /// if they cannot be read.
    unread_summary: Option<LazyUnreadSummary>,
}

/// The input of `markAllRead`.
#[derive(Clone, Debug, InputObject)]
pub struct MarkAllReadInput {
    /// The user's ID. Defaults to the authenticated user; required for service tokens.
    uid: Option<ID>,
    /// Only conversations of these channel types.
    channel_types: Option<Vec<i32>>,
    /// The `version` of the list that the user sees. Conversations that changed after it are left
    /// unread.
    up_to_version: Option<UInt53>,
}

/// The result of `markAllRead`.
#[derive(Clone, Debug, SimpleObject)]
pub struct MarkAllReadPayload {
    /// The conversations that had unread messages, after the change; newest activity first.
    conversations: Vec<Conversation>,
    /// The unread totals after the change: of other channel types, or of messages sent since. Null
    /// beside an error if they cannot be read.
    unread_summary: Option<LazyUnreadSummary>,
}

/// The input of `pinConversation`.
#[derive(Clone, Debug, InputObject)]
pub struct PinConversationInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// True pins the conversation, false unpins it.
    #[graphql(default_with = "Some(true)")]
    pinned: Option<bool>,
}

/// The result of `pinConversation`.
#[derive(Clone, Debug, SimpleObject)]
pub struct PinConversationPayload {
    /// The conversation after the change.
    conversation: Conversation,
    /// The unread totals of all of the user's conversations after the change. Null beside an error
    /// if they cannot be read.
    unread_summary: Option<LazyUnreadSummary>,
}

/// The input of `muteConversation`.
#[derive(Clone, Debug, InputObject)]
pub struct MuteConversationInput {
    #[graphql(flatten)]
    target: ConversationTarget,
    /// True mutes the conversation, false unmutes it.
    #[graphql(default_with = "Some(true)")]
    muted: Option<bool>,
}

/// The result of `muteConversation`.
#[derive(Clone, Debug, SimpleObject)]
pub struct MuteConversationPayload {
    /// The conversation after the change.
    conversation: Conversation,
    /// The unread totals of all of the user's conversations after the change. Null beside an error
    /// if they cannot be read.
    unread_summary: Option<LazyUnreadSummary>,
}

/// Mutations of a user's conversations.
#[derive(Debug, Default)]
pub struct ConversationMutation;

#[Object]
impl ConversationMutation {
    /// Sets the number of unread messages of a conversation, for all devices of the user.
    async fn set_unread(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversation and its change.")] input: SetUnreadInput,
    ) -> RootResult<SetUnreadPayload> {
        let _timer = ctx.time_mutation();
        let (uid, channel) = input.target.parse(ctx)?;
        let conversation = conversations::set_unread(
            &ctx.core().conversations,
            &uid,
            &channel,
            i64::from(input.unread),
            input.up_to.map(UInt53::seq),
        )
        .await
        .in_argument("input")?;
        Ok(Some(SetUnreadPayload {
            conversation: conversation.into(),
            unread_summary: Some(LazyUnreadSummary(uid)),
        }))
    }

    /// Marks a conversation as read, up to its last message or up to `upTo`. A number below the
    /// read position changes nothing.
    async fn clear_unread(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversation and its change.")] input: ClearUnreadInput,
    ) -> RootResult<ClearUnreadPayload> {
        let _timer = ctx.time_mutation();
        let (uid, channel) = input.target.parse(ctx)?;
        let conversation = conversations::set_unread(
            &ctx.core().conversations,
            &uid,
            &channel,
            0,
            input.up_to.map(UInt53::seq),
        )
        .await?;
        Ok(Some(ClearUnreadPayload {
            conversation: conversation.into(),
            unread_summary: Some(LazyUnreadSummary(uid)),
        }))
    }

    /// Deletes a conversation up to its last message, or up to `upTo`; the next message brings it
    /// back. Deleting a deleted conversation changes nothing.
    async fn delete_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversation and its change.")] input: DeleteConversationInput,
    ) -> RootResult<DeleteConversationPayload> {
        let _timer = ctx.time_mutation();
        let (uid, channel) = input.target.parse(ctx)?;
        let up_to = input.up_to.map(UInt53::seq);
        let deleted =
            conversations::delete_conversation(&ctx.core().conversations, &uid, &channel, up_to)
                .await?;
        let (removed, conversation) = match deleted {
            DeleteOutcome::Removed(removed) => (Some(RemovedConversation(removed)), None),
            DeleteOutcome::StillListed(conversation) => (None, Some(conversation.into())),
        };
        Ok(Some(DeleteConversationPayload {
            removed,
            conversation,
            unread_summary: Some(LazyUnreadSummary(uid)),
        }))
    }

    /// Marks all conversations as read, including muted ones, for all devices of the user.
    async fn mark_all_read(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversations to mark as read.")] input: MarkAllReadInput,
    ) -> RootResult<MarkAllReadPayload> {
        let _timer = ctx.time_mutation();
        let uid = ctx.viewer(input.uid.as_ref()).in_argument("input")?;
        let only = input
            .channel_types
            .map(|types| parse_channel_types("channel_types", &types))
            .transpose()
            .in_argument("input")?;
        let changed = conversations::mark_all_read(
            &ctx.core().conversations,
            &uid,
            only.as_deref(),
            input.up_to_version.map(|version| Version(version.signed())),
        )
        .await?;
        Ok(Some(MarkAllReadPayload {
            conversations: changed.into_iter().map(Conversation::from).collect(),
            unread_summary: Some(LazyUnreadSummary(uid)),
        }))
    }

    /// Pins a conversation above the others, or unpins it, for all devices of the user.
    async fn pin_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversation and its change.")] input: PinConversationInput,
    ) -> RootResult<PinConversationPayload> {
        let _timer = ctx.time_mutation();
        let (uid, channel) = input.target.parse(ctx)?;
        let conversation = conversations::set_pinned(
            &ctx.core().conversations,
            &uid,
            &channel,
            input.pinned.unwrap_or(true),
        )
        .await?;
        Ok(Some(PinConversationPayload {
            conversation: conversation.into(),
            unread_summary: Some(LazyUnreadSummary(uid)),
        }))
    }

    /// Mutes or unmutes a conversation, for all devices of the user. Unread messages of muted
    /// conversations are counted separately.
    async fn mute_conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The conversation and its change.")] input: MuteConversationInput,
    ) -> RootResult<MuteConversationPayload> {
        let _timer = ctx.time_mutation();
        let (uid, channel) = input.target.parse(ctx)?;
        let conversation = conversations::set_muted(
            &ctx.core().conversations,
            &uid,
            &channel,
            input.muted.unwrap_or(true),
        )
        .await?;
        Ok(Some(MuteConversationPayload {
            conversation: conversation.into(),
            unread_summary: Some(LazyUnreadSummary(uid)),
        }))
    }
}
