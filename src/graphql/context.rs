//! What resolvers reach through the context.

use std::sync::Arc;

use async_graphql::Context;
use async_graphql::dataloader::DataLoader;

use super::error::{GraphqlError, Result};
use super::loaders::RecentsLoader;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Uid;

/// Typed access to what a request carries.
pub(super) trait ContextExt {
    /// What the use cases work with.
    fn core(&self) -> &Arc<Core>;
    /// Recent messages, batched over one request.
    fn recents(&self) -> &DataLoader<RecentsLoader>;
    /// Whom a field is about. Services act for anybody, so they must say for whom.
    fn viewer(&self, uid: Option<&str>) -> Result<Uid>;
}

impl ContextExt for Context<'_> {
    fn core(&self) -> &Arc<Core> {
        self.data_unchecked()
    }

    fn recents(&self) -> &DataLoader<RecentsLoader> {
        self.data_unchecked()
    }

    fn viewer(&self, uid: Option<&str>) -> Result<Uid> {
        match uid {
            Some(uid) => Ok(Uid::parse("uid", uid)?),
            None => Err(GraphqlError(Error::bad_input("uid", "must be given"))),
        }
    }
}
