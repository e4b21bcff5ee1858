use async_graphql::{Context, ID, Object};

use super::node_id::NodeId;
use super::{Conversation, UnreadSummary};
use crate::conversation::{
    ConversationRemoval, ConversationWithMessages, SyncAnswer, SyncDetail, SyncRequest,
};
use crate::graphql::context::ContextExt;
use crate::graphql::error::Result;
use crate::graphql::scalars::UInt53;
use crate::model::{Uid, Version};

/// The changes of a user's conversations.
#[derive(Debug)]
pub struct ConversationSync {
    uid: Uid,
    version: Version,
    reset: bool,
    has_more: bool,
    conversations: Vec<Conversation>,
    removed: Vec<ConversationRemoval>,
}

impl ConversationSync {
    pub(in crate::graphql) fn new(request: SyncRequest, answer: SyncAnswer) -> Self {
        let partial = !request.last_msg_seqs.is_empty();
        let conversation = |item: ConversationWithMessages| match request.detail {
            SyncDetail::Messages => Conversation::from_sync(item, request.msg_count, partial),
            SyncDetail::Conversations | SyncDetail::Version => item.conversation.into(),
        };
        Self {
            version: answer.version,
            reset: answer.reset,
            has_more: answer.has_more,
            conversations: answer.conversations.into_iter().map(conversation).collect(),
            removed: answer.removed,
            uid: request.uid,
        }
    }
}

/// The changes of a user's conversations.
#[Object]
impl ConversationSync {
    /// The version to pass next time.
    async fn version(&self) -> UInt53 {
        self.version.into()
    }

    /// True if the given version is unknown, because it comes from a restored database or from
    /// another server. Then this answer has all conversations, and the client must drop others.
    async fn reset(&self) -> bool {
        self.reset
    }

    /// True if there are more changes: ask again at once with `version`. Only with `first`.
    async fn has_more(&self) -> bool {
        self.has_more
    }

    /// The new and changed conversations; newest activity first, with `first` in order of version.
    async fn conversations(&self, ctx: &Context<'_>) -> &[Conversation] {
        let _permit = ctx.operation().acquire_permit().await;
        &self.conversations
    }

    /// The conversations that are not listed any more: deleted, left, or outside of the given
    /// filters. Empty on a full answer.
    async fn removed(&self) -> Vec<RemovedConversation> {
        self.removed
            .iter()
            .cloned()
            .map(RemovedConversation)
            .collect()
    }

    /// The unread totals of all of the user's conversations.
    async fn unread_summary(&self, ctx: &Context<'_>) -> Result<UnreadSummary> {
        UnreadSummary::load(ctx.operation(), &self.uid).await
    }
}

/// A conversation that is not listed any more.
#[derive(Clone, Debug)]
pub struct RemovedConversation(pub ConversationRemoval);

/// A conversation that is not listed any more.
#[Object]
impl RemovedConversation {
    /// The global ID that the conversation had.
    async fn id(&self) -> ID {
        NodeId::Conversation(self.0.uid.clone(), self.0.channel_ref.clone()).encode()
    }

    /// The channel's ID; for a person channel the other user's uid.
    async fn channel_id(&self) -> ID {
        ID(self.0.channel_ref.channel_id.clone())
    }

    /// 1 person, 2 group, 3 customer service, … up to 255.
    async fn channel_type(&self) -> i32 {
        i32::from(self.0.channel_ref.channel_type.number())
    }

    /// The user's version of this change.
    async fn version(&self) -> UInt53 {
        self.0.version.into()
    }
}
