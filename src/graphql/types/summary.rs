use async_graphql::{Context, Object, SimpleObject};

use super::super::context::ContextExt;
use super::super::error::Result;
use super::int;
use crate::conversation;
use crate::ids::Uid;

/// Unread in all of a user's conversations.
#[derive(Clone, Debug)]
pub struct UnreadSummary(pub conversation::UnreadSummary);

impl UnreadSummary {
    /// Of a user; once for a request, however often it is asked for.
    pub(in crate::graphql) async fn load(ctx: &Context<'_>, uid: &Uid) -> Result<Self> {
        Ok(Self(ctx.loaders().load_one(uid.clone()).await?.unwrap_or_default()))
    }
}

/// Unread in all of a user's conversations.
#[Object]
impl UnreadSummary {
    /// Unread messages in conversations that are not muted.
    async fn total(&self) -> i32 {
        int(self.0.total.unread)
    }

    /// Conversations with unread messages that are not muted.
    async fn conversations(&self) -> i32 {
        int(self.0.total.conversations)
    }

    /// Unread messages in muted conversations.
    async fn muted_total(&self) -> i32 {
        int(self.0.muted.unread)
    }

    /// Muted conversations with unread messages.
    async fn muted_conversations(&self) -> i32 {
        int(self.0.muted.conversations)
    }

    /// By channel type, those that are not muted; types without unread messages are left out.
    async fn by_channel_type(&self) -> Vec<ChannelTypeSummary> {
        let by_type = self.0.by_channel_type.iter();
        by_type
            .map(|(channel_type, sum)| ChannelTypeSummary {
                channel_type: i32::from(*channel_type),
                total: int(sum.unread),
                conversations: int(sum.conversations),
            })
            .collect()
    }
}

/// Unread in the conversations of one channel type.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct ChannelTypeSummary {
    /// 1 person, 2 group, 3 customer service, … up to 255.
    channel_type: i32,
    /// Unread messages.
    total: i32,
    /// Conversations with unread messages.
    conversations: i32,
}
