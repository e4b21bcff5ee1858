//! Data loaders: combine one operation's reads of the same kind into batches.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::dataloader::{DataLoader, Loader};

use super::error::GraphqlError;
use super::operation_context::OperationContext;
use crate::auth::Caller;
use crate::budget;
use crate::channel::{Flags, find_channels};
use crate::conversation::{
    Conversation, RecentMessagesKey, find_conversations, list_recent_messages,
};
use crate::message::{MessageSlice, find_messages};
use crate::model::{ChannelKey, ChannelRef, Message, MessageId, Uid};
use crate::services::Services;

/// The source of all batches of one operation. Rows that the caller may not see are treated as
/// absent.
pub(super) struct Loaders {
    core: Arc<Services>,
    caller: Caller,
    operation: Arc<OperationContext>,
}

impl Loaders {
    /// Creates the loader of one operation.
    pub(super) fn loader(
        core: Arc<Services>,
        caller: Caller,
        operation: Arc<OperationContext>,
    ) -> DataLoader<Self> {
        let reservation = budget::current();
        let spawn = move |load| match reservation.clone() {
            Some(reservation) => tokio::spawn(reservation.scope(load)),
            None => tokio::spawn(load),
        };
        DataLoader::new(
            Self {
                core,
                caller,
                operation,
            },
            spawn,
        )
    }
}

type LoadResult<K, V> = Result<HashMap<K, V>, GraphqlError>;

/// Loads the newest messages of conversations.
impl Loader<RecentMessagesKey> for Loaders {
    type Value = MessageSlice;
    type Error = GraphqlError;

    async fn load(&self, keys: &[RecentMessagesKey]) -> LoadResult<RecentMessagesKey, Self::Value> {
        let _permit = self.operation.acquire_permit().await;
        let recents =
            list_recent_messages(&self.core.conversations, keys, &self.operation.bytes).await?;
        Ok(keys.iter().cloned().zip(recents).collect())
    }
}

/// Loads conversations by user and channel.
impl Loader<(Uid, ChannelRef)> for Loaders {
    type Value = Conversation;
    type Error = GraphqlError;

    async fn load(
        &self,
        names: &[(Uid, ChannelRef)],
    ) -> LoadResult<(Uid, ChannelRef), Self::Value> {
        let _permit = self.operation.acquire_permit().await;
        let visible: Vec<_> = names
            .iter()
            .filter(|(uid, _)| self.caller.may_see(uid))
            .cloned()
            .collect();
        Ok(find_conversations(&self.core.conversations, &visible).await?)
    }
}

/// Loads messages by channel and message id.
impl Loader<(ChannelKey, MessageId)> for Loaders {
    type Value = Message;
    type Error = GraphqlError;

    async fn load(
        &self,
        names: &[(ChannelKey, MessageId)],
    ) -> LoadResult<(ChannelKey, MessageId), Self::Value> {
        let _permit = self.operation.acquire_permit().await;
        Ok(find_messages(
            &self.core.messages,
            self.caller.user(),
            names,
            &self.operation.bytes,
        )
        .await?)
    }
}

/// Loads the flags of channels that exist.
impl Loader<ChannelRef> for Loaders {
    type Value = Flags;
    type Error = GraphqlError;

    async fn load(&self, channels: &[ChannelRef]) -> LoadResult<ChannelRef, Self::Value> {
        let _permit = self.operation.acquire_permit().await;
        Ok(find_channels(&self.core.channels, self.caller.user(), channels).await?)
    }
}
