//! What resolvers reach through the context.

use std::sync::Arc;

use async_graphql::dataloader::DataLoader;
use async_graphql::{Context, ID};

use super::error::Result;
use super::loaders::Batches;
use super::observed::Timed;
use super::work::Work;
use crate::auth::Caller;
use crate::core::Core;
use crate::ids::Uid;

/// Typed access to what a request carries.
pub(super) trait ContextExt {
    /// What the use cases work with.
    fn core(&self) -> &Arc<Core>;
    /// Reads that are batched over one request.
    fn loaders(&self) -> &DataLoader<Batches>;
    /// What the fields of the operation share.
    fn work(&self) -> &Arc<Work>;
    /// As [`ContextExt::timed`], of a mutation: what was read before it is read again.
    fn changing(&self) -> Timed;
    /// Times a root field's resolver until it is dropped.
    fn timed(&self) -> Timed;
    /// Who is asking.
    fn caller(&self) -> &Caller;
    /// Whom a field is about: the user who asks, unless it names another one. Services act for
    /// anybody, so they must say for whom.
    fn viewer(&self, uid: Option<&ID>) -> Result<Uid>;
}

impl ContextExt for Context<'_> {
    fn core(&self) -> &Arc<Core> {
        self.data_unchecked()
    }

    fn loaders(&self) -> &DataLoader<Batches> {
        self.data_unchecked()
    }

    fn work(&self) -> &Arc<Work> {
        self.data_unchecked()
    }

    fn changing(&self) -> Timed {
        self.work().forget_lists();
        self.timed()
    }

    fn timed(&self) -> Timed {
        Timed::begin(&self.item.node.name.node)
    }

    fn caller(&self) -> &Caller {
        self.data_unchecked()
    }

    fn viewer(&self, uid: Option<&ID>) -> Result<Uid> {
        let named = uid.map(|uid| Uid::parse("uid", uid.as_str())).transpose()?;
        Ok(self.caller().viewer(named)?)
    }
}
