//! The state of the handlers.

use std::sync::Arc;

use super::AppSchema;
use super::persisted::PersistedQueries;
use crate::config::ConfigError;
use crate::state::AppState;

/// The state that the handlers of GraphQL receive. Cheap to clone.
#[derive(Clone)]
pub(crate) struct GraphqlState {
    /// The state that every handler receives.
    pub(super) app: AppState,
    /// The schema.
    pub(super) schema: AppSchema,
    /// Documents that clients name by their hash.
    pub(super) persisted: Arc<PersistedQueries>,
}

impl GraphqlState {
    /// # Errors
    /// A `graphql.persisted_operations_file` that cannot be read.
    pub(crate) fn new(app: AppState) -> Result<Self, ConfigError> {
        Ok(Self {
            schema: super::schema(Arc::clone(&app.core), Arc::clone(&app.feeds)),
            persisted: Arc::new(PersistedQueries::new(&app.settings.graphql)?),
            app,
        })
    }
}
