//! Loaders: one request's reads of the same kind become one batch.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::dataloader::{DataLoader, Loader};

use super::error::GraphqlError;
use super::work::Work;
use crate::auth::Caller;
use crate::budget;
use crate::channel::{ChannelKey, Flags, find_channels};
use crate::conversation::{Conversation, RecentsKey, find_conversations, list_recents};
use crate::core::Core;
use crate::ids::{ChannelRef, Uid};
use crate::message::{Message, Recents, find_messages};

/// What a batch reads from, and for whom: what the caller may not see is not there.
pub(super) struct Batches {
    core: Arc<Core>,
    caller: Caller,
    work: Arc<Work>,
}

impl Batches {
    /// For one request.
    pub(super) fn loader(core: Arc<Core>, caller: Caller, work: Arc<Work>) -> DataLoader<Self> {
        let reservation = budget::current();
        let spawn = move |work| match reservation.clone() {
            Some(reservation) => tokio::spawn(reservation.scope(work)),
            None => tokio::spawn(work),
        };
        DataLoader::new(Self { core, caller, work }, spawn)
    }
}

type Loaded<K, V> = Result<HashMap<K, V>, GraphqlError>;

/// The newest messages of a conversation.
impl Loader<RecentsKey> for Batches {
    type Value = Recents;
    type Error = GraphqlError;

    async fn load(&self, keys: &[RecentsKey]) -> Loaded<RecentsKey, Self::Value> {
        let _turn = self.work.turn().await;
        let recents = list_recents(&self.core, keys, &self.work.bytes).await?;
        Ok(keys.iter().cloned().zip(recents).collect())
    }
}

/// A user's conversation in a channel.
impl Loader<(Uid, ChannelRef)> for Batches {
    type Value = Conversation;
    type Error = GraphqlError;

    async fn load(&self, names: &[(Uid, ChannelRef)]) -> Loaded<(Uid, ChannelRef), Self::Value> {
        let _turn = self.work.turn().await;
        let known: Vec<_> = names
            .iter()
            .filter(|(uid, _)| self.caller.knows_of(uid))
            .cloned()
            .collect();
        Ok(find_conversations(&self.core, &known).await?)
    }
}

/// A message by its channel and id.
impl Loader<(ChannelKey, i64)> for Batches {
    type Value = Message;
    type Error = GraphqlError;

    async fn load(&self, names: &[(ChannelKey, i64)]) -> Loaded<(ChannelKey, i64), Self::Value> {
        let _turn = self.work.turn().await;
        Ok(find_messages(&self.core, self.caller.user(), names, &self.work.bytes).await?)
    }
}

/// The flags of a channel, if there is one.
impl Loader<ChannelRef> for Batches {
    type Value = Flags;
    type Error = GraphqlError;

    async fn load(&self, channels: &[ChannelRef]) -> Loaded<ChannelRef, Self::Value> {
        let _turn = self.work.turn().await;
        Ok(find_channels(&self.core, self.caller.user(), channels).await?)
    }
}
