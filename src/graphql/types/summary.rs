use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{
    ContextSelectionSet, ID, Object, OutputType, Positioned, ServerResult, SimpleObject, Value,
};

use super::super::error::Result;
use super::super::work::Work;
use super::id::NodeId;
use super::int;
use crate::conversation;
use crate::ids::Uid;

/// Unread in all of a user's conversations.
#[derive(Clone, Debug)]
pub struct UnreadSummary {
    uid: Uid,
    summary: conversation::UnreadSummary,
}

impl UnreadSummary {
    /// Of a user; read once for the whole operation, and again after a mutation.
    pub(in crate::graphql) async fn load(work: &Work, uid: &Uid) -> Result<Self> {
        Ok(Self {
            uid: uid.clone(),
            summary: work.summary(uid).await?,
        })
    }
}

/// The summary of this user, read when it is asked for: beside what a mutation returns it tells the
/// state after the mutation.
#[derive(Clone, Debug)]
pub struct SummaryOf(pub Uid);

impl OutputType for SummaryOf {
    fn type_name() -> Cow<'static, str> {
        UnreadSummary::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        UnreadSummary::create_type_info(registry)
    }

    async fn resolve(
        &self,
        ctx: &ContextSelectionSet<'_>,
        field: &Positioned<Field>,
    ) -> ServerResult<Value> {
        let work: &Arc<Work> = ctx.data_unchecked();
        let loaded = UnreadSummary::load(work, &self.0).await;
        let summary = loaded.map_err(|error| {
            ctx.set_error_path(async_graphql::Error::from(error).into_server_error(field.pos))
        })?;
        summary.resolve(ctx, field).await
    }
}

/// Unread in all of a user's conversations.
#[Object]
impl UnreadSummary {
    /// The global ID: the same in every answer for this user.
    pub(super) async fn id(&self) -> ID {
        NodeId::UnreadSummary(self.uid.clone()).encode()
    }

    /// Unread messages in conversations that are not muted.
    async fn total(&self) -> i32 {
        int(self.summary.total.unread)
    }

    /// Conversations with unread messages that are not muted.
    async fn conversations(&self) -> i32 {
        int(self.summary.total.conversations)
    }

    /// Unread messages in muted conversations.
    async fn muted_total(&self) -> i32 {
        int(self.summary.muted.unread)
    }

    /// Muted conversations with unread messages.
    async fn muted_conversations(&self) -> i32 {
        int(self.summary.muted.conversations)
    }

    /// By channel type, those that are not muted; types without unread messages are left out.
    async fn by_channel_type(&self) -> Vec<ChannelTypeSummary> {
        let by_type = self.summary.by_channel_type.iter();
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
