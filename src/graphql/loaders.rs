//! Loaders: one request's reads of the same kind become one batch.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::dataloader::{DataLoader, Loader};

use super::error::GraphqlError;
use crate::auth::Caller;
use crate::channel::{ChannelKey, Flags, find_channels};
use crate::conversation::{Conversation, RecentsKey, UnreadSummary, find_conversations, list_recents, summarize};
use crate::core::Core;
use crate::ids::{ChannelRef, Uid};
use crate::message::{Message, Recents, find_messages};

/// What a batch reads from, and for whom: what the caller may not see is not there.
pub(super) struct Batches(Arc<Core>, Caller);

impl Batches {
    /// For one request.
    pub(super) fn loader(core: Arc<Core>, caller: Caller) -> DataLoader<Self> {
        DataLoader::new(Self(core, caller), tokio::spawn)
    }
}

type Loaded<K, V> = Result<HashMap<K, V>, GraphqlError>;

/// The newest messages of a conversation.
impl Loader<RecentsKey> for Batches {
    type Value = Recents;
    type Error = GraphqlError;

    async fn load(&self, keys: &[RecentsKey]) -> Loaded<RecentsKey, Self::Value> {
        let recents = list_recents(&self.0, keys).await?;
        Ok(keys.iter().cloned().zip(recents).collect())
    }
}

/// A user's conversation in a channel.
impl Loader<(Uid, ChannelRef)> for Batches {
    type Value = Conversation;
    type Error = GraphqlError;

    async fn load(&self, names: &[(Uid, ChannelRef)]) -> Loaded<(Uid, ChannelRef), Self::Value> {
        let known: Vec<_> = names.iter().filter(|(uid, _)| self.1.knows_of(uid)).cloned().collect();
        Ok(find_conversations(&self.0, &known).await?)
    }
}

/// A message by its channel and id.
impl Loader<(ChannelKey, i64)> for Batches {
    type Value = Message;
    type Error = GraphqlError;

    async fn load(&self, names: &[(ChannelKey, i64)]) -> Loaded<(ChannelKey, i64), Self::Value> {
        Ok(find_messages(&self.0, self.1.user(), names).await?)
    }
}

/// The flags of a channel, if there is one.
impl Loader<ChannelRef> for Batches {
    type Value = Flags;
    type Error = GraphqlError;

    async fn load(&self, channels: &[ChannelRef]) -> Loaded<ChannelRef, Self::Value> {
        Ok(find_channels(&self.0, self.1.user(), channels).await?)
    }
}

/// What is unread in all of a user's conversations.
impl Loader<Uid> for Batches {
    type Value = UnreadSummary;
    type Error = GraphqlError;

    async fn load(&self, uids: &[Uid]) -> Loaded<Uid, Self::Value> {
        let mut summaries = HashMap::with_capacity(uids.len());
        for uid in uids {
            summaries.insert(uid.clone(), summarize(&self.0, uid).await?);
        }
        Ok(summaries)
    }
}
