use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{
    ContextSelectionSet, ID, Object, OutputType, Positioned, ServerResult, SimpleObject, Value,
};

use super::int;
use super::node_id::NodeId;
use crate::conversation;
use crate::graphql::error::Result;
use crate::graphql::operation_context::OperationContext;
use crate::model::Uid;

/// The unread totals of all of a user's conversations.
#[derive(Clone, Debug)]
pub struct UnreadSummary {
    uid: Uid,
    summary: conversation::UnreadSummary,
}

impl UnreadSummary {
    /// Loads a user's summary once for the whole operation, and again after a mutation.
    pub(in crate::graphql) async fn load(operation: &OperationContext, uid: &Uid) -> Result<Self> {
        Ok(Self {
            uid: uid.clone(),
            summary: operation.summary(uid).await?,
        })
    }
}

/// A summary that is read when its fields are resolved, so that in a mutation's payload it shows
/// the state after the mutation.
#[derive(Clone, Debug)]
pub struct LazyUnreadSummary(pub Uid);

impl OutputType for LazyUnreadSummary {
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
        let operation: &Arc<OperationContext> = ctx.data_unchecked();
        let loaded = UnreadSummary::load(operation, &self.0).await;
        let summary = loaded.map_err(|error| {
            ctx.set_error_path(async_graphql::Error::from(error).into_server_error(field.pos))
        })?;
        summary.resolve(ctx, field).await
    }
}

/// The unread totals of all of a user's conversations.
#[Object]
impl UnreadSummary {
    /// The global ID: the same in every answer for this user.
    pub(super) async fn id(&self) -> ID {
        NodeId::UnreadSummary(self.uid.clone()).encode()
    }

    /// The number of unread messages in conversations that are not muted.
    async fn total(&self) -> i32 {
        int(self.summary.total.unread)
    }

    /// The number of conversations with unread messages that are not muted.
    async fn conversations(&self) -> i32 {
        int(self.summary.total.conversations)
    }

    /// The number of unread messages in muted conversations.
    async fn muted_total(&self) -> i32 {
        int(self.summary.muted.unread)
    }

    /// The number of muted conversations with unread messages.
    async fn muted_conversations(&self) -> i32 {
        int(self.summary.muted.conversations)
    }

    /// The totals of conversations that are not muted, by channel type; types without unread
    /// messages are left out.
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

/// The unread totals of the conversations of one channel type.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct ChannelTypeSummary {
    /// 1 person, 2 group, 3 customer service, … up to 255.
    channel_type: i32,
    /// The number of unread messages.
    total: i32,
    /// The number of conversations with unread messages.
    conversations: i32,
}
