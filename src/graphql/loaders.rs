//! Loaders: one request's reads of the same kind become one batch.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::dataloader::{DataLoader, Loader};

use super::error::GraphqlError;
use crate::conversation::{RecentsKey, list_recents};
use crate::core::Core;
use crate::message::Message;

/// The newest messages of conversations.
pub(super) struct RecentsLoader(Arc<Core>);

impl RecentsLoader {
    /// A loader for one request.
    pub(super) fn new(core: Arc<Core>) -> DataLoader<Self> {
        DataLoader::new(Self(core), tokio::spawn)
    }
}

impl Loader<RecentsKey> for RecentsLoader {
    type Value = Vec<Message>;
    type Error = GraphqlError;

    async fn load(&self, keys: &[RecentsKey]) -> Result<HashMap<RecentsKey, Self::Value>, Self::Error> {
        Ok(list_recents(&self.0, keys).await?)
    }
}
