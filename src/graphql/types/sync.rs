use async_graphql::{Context, ID, Object};

use super::super::context::ContextExt;
use super::super::error::Result;
use super::super::scalars::UInt53;
use super::id::NodeId;
use super::{Conversation, UnreadSummary};
use crate::conversation::{Item, Removed, SyncAnswer, SyncRequest, Wanted};
use crate::ids::Uid;

/// What changed.
#[derive(Debug)]
pub struct ConversationSync {
    uid: Uid,
    version: i64,
    reset: bool,
    has_more: bool,
    conversations: Vec<Conversation>,
    removed: Vec<Removed>,
}

impl ConversationSync {
    pub(in crate::graphql) fn new(request: SyncRequest, answer: SyncAnswer) -> Self {
        let partial = !request.last_msg_seqs.is_empty();
        let conversation = |item: Item| match request.wanted {
            Wanted::Messages => Conversation::of_sync(item, request.msg_count, partial),
            Wanted::Conversations | Wanted::Version => item.conversation.into(),
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

/// What changed.
#[Object]
impl ConversationSync {
    /// Store it and pass it next time.
    async fn version(&self) -> UInt53 {
        self.version.into()
    }

    /// The version asked with was none of ours (of a restored database, or of another server): this
    /// is everything, forget the rest.
    async fn reset(&self) -> bool {
        self.reset
    }

    /// There is more: ask again at once with `version`. Only with `first`.
    async fn has_more(&self) -> bool {
        self.has_more
    }

    /// What is new or changed; newest activity first, with `first` in order of version.
    async fn conversations(&self, ctx: &Context<'_>) -> &[Conversation] {
        let _turn = ctx.work().turn().await;
        &self.conversations
    }

    /// What does not show any more: deleted, left, or outside of the filters asked with. Empty on a
    /// full answer.
    async fn removed(&self) -> Vec<RemovedConversation> {
        self.removed
            .iter()
            .cloned()
            .map(RemovedConversation)
            .collect()
    }

    /// Unread in all of the user's conversations.
    async fn unread_summary(&self, ctx: &Context<'_>) -> Result<UnreadSummary> {
        UnreadSummary::load(ctx.work(), &self.uid).await
    }
}

/// A conversation that does not show any more.
#[derive(Clone, Debug)]
pub struct RemovedConversation(pub Removed);

/// A conversation that does not show any more.
#[Object]
impl RemovedConversation {
    /// The id that the conversation had.
    async fn id(&self) -> ID {
        NodeId::Conversation(self.0.uid.clone(), self.0.channel.clone()).encode()
    }

    /// The channel's id; for a person channel the other one's uid.
    async fn channel_id(&self) -> ID {
        ID(self.0.channel.channel_id.clone())
    }

    /// 1 person, 2 group, 3 customer service, … up to 255.
    async fn channel_type(&self) -> i32 {
        i32::from(self.0.channel.channel_type.number())
    }

    /// The user's version of that change.
    async fn version(&self) -> UInt53 {
        self.0.version.into()
    }
}
