//! What resolvers reach through the context.

use std::sync::Arc;

use async_graphql::dataloader::DataLoader;
use async_graphql::{Context, ID};

use super::error::Result;
use super::loaders::Batches;
use super::observed::Timed;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Uid;

/// Typed access to what a request carries.
pub(super) trait ContextExt {
    /// What the use cases work with.
    fn core(&self) -> &Arc<Core>;
    /// Reads that are batched over one request.
    fn loaders(&self) -> &DataLoader<Batches>;
    /// Times a root field's resolver until it is dropped.
    fn timed(&self) -> Timed;
    /// Whom a field is about. Services act for anybody, so they must say for whom.
    fn viewer(&self, uid: Option<&ID>) -> Result<Uid>;
}

impl ContextExt for Context<'_> {
    fn core(&self) -> &Arc<Core> {
        self.data_unchecked()
    }

    fn loaders(&self) -> &DataLoader<Batches> {
        self.data_unchecked()
    }

    fn timed(&self) -> Timed {
        Timed::begin(&self.item.node.name.node)
    }

    fn viewer(&self, uid: Option<&ID>) -> Result<Uid> {
        match uid {
            Some(uid) => Ok(Uid::parse("uid", uid.as_str())?),
            None => Err(Error::bad_input("uid", "must be given").into()),
        }
    }
}
