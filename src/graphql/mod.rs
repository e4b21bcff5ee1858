//! The GraphQL side. A resolver does four things: read the input, call a use case, map the result, map the error.
//!
//! How to add a field: its type in `types/` (one a file), its resolver in `query.rs` or `mutation.rs`, and
//! `cargo run -- schema > schema.graphql`.

mod conform;
mod context;
pub mod error;
mod guard;
pub mod http;
mod loaders;
mod mutation;
mod observed;
pub(crate) mod persisted;
mod query;
mod scalars;
mod types;

use std::sync::Arc;

use async_graphql::{EmptySubscription, Schema};

use crate::core::Core;

/// The schema with its resolvers.
pub type AppSchema = Schema<query::Query, mutation::Mutation, EmptySubscription>;

/// Builds the schema over a core.
#[must_use]
pub fn schema(core: Arc<Core>) -> AppSchema {
    builder().data(core).finish()
}

/// The schema in GraphQL's own language, as in `schema.graphql`.
#[must_use]
pub fn sdl() -> String {
    builder().finish().sdl_with_options(async_graphql::SDLExportOptions::new().include_specified_by())
}

fn builder() -> async_graphql::SchemaBuilder<query::Query, mutation::Mutation, EmptySubscription> {
    // Depth and size are bounded by `guard`, before anything walks the document.
    Schema::build(query::Query, mutation::Mutation::default(), EmptySubscription)
}
