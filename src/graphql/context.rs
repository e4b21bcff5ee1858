//! Typed access to the values that a resolver gets from its context.

use std::sync::Arc;

use async_graphql::dataloader::DataLoader;
use async_graphql::{Context, ID};

use super::error::Result;
use super::loaders::Loaders;
use super::metrics::FieldTimer;
use super::operation_context::OperationContext;
use crate::auth::Caller;
use crate::model::Uid;
use crate::services::Services;

/// Typed access to the values that an operation carries.
pub(super) trait ContextExt {
    /// Returns the use cases' shared state.
    fn core(&self) -> &Arc<Services>;
    /// Returns the loaders, which batch the reads of one operation.
    fn loaders(&self) -> &DataLoader<Loaders>;
    /// Returns the state that the fields of the operation share.
    fn operation(&self) -> &Arc<OperationContext>;
    /// Like [`ContextExt::time_field`], for a mutation: cached lists are dropped, so that later
    /// fields read the state after the change.
    fn time_mutation(&self) -> FieldTimer;
    /// Measures the duration of a root field's resolver until the returned timer is dropped.
    fn time_field(&self) -> FieldTimer;
    /// Returns the authenticated caller.
    fn caller(&self) -> &Caller;
    /// Returns the user that a field is about: the given one, or else the authenticated user.
    /// Services act for any user, so they must name one.
    fn viewer(&self, uid: Option<&ID>) -> Result<Uid>;
}

impl ContextExt for Context<'_> {
    fn core(&self) -> &Arc<Services> {
        self.data_unchecked()
    }

    fn loaders(&self) -> &DataLoader<Loaders> {
        self.data_unchecked()
    }

    fn operation(&self) -> &Arc<OperationContext> {
        self.data_unchecked()
    }

    fn time_mutation(&self) -> FieldTimer {
        self.operation().invalidate_lists();
        self.time_field()
    }

    fn time_field(&self) -> FieldTimer {
        FieldTimer::start(&self.item.node.name.node)
    }

    fn caller(&self) -> &Caller {
        self.data_unchecked()
    }

    fn viewer(&self, uid: Option<&ID>) -> Result<Uid> {
        let named = uid.map(|uid| Uid::parse("uid", uid.as_str())).transpose()?;
        Ok(self.caller().viewer(named)?)
    }
}
