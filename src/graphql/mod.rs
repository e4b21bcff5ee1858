//! The GraphQL side. A resolver does four things: read the input, call a use case, map the result,
//! map the error.
//!
//! How to add a field: its type in `types/` (one a file), its resolver in `query.rs` or
//! `mutation/`, and `cargo run -- schema > schema.graphql`.

mod conform;
mod context;
pub mod error;
mod events;
pub(crate) mod figures;
mod guard;
pub mod http;
mod json;
mod loaders;
mod mutation;
mod observed;
mod operation;
pub(crate) mod persisted;
mod query;
mod scalars;
mod selections;
pub(crate) mod socket;
mod subscription;
mod types;
mod variables;
mod work;
mod written;

use std::sync::Arc;

use async_graphql::Schema;

use crate::core::Core;
use crate::live::Feeds;

/// The schema with its resolvers.
pub type AppSchema = Schema<query::Query, mutation::Mutation, subscription::Subscriptions>;

/// Builds the schema over a core.
#[must_use]
pub(crate) fn schema(core: Arc<Core>, feeds: Arc<Feeds>) -> AppSchema {
    builder().data(core).data(feeds).finish()
}

/// The schema in GraphQL's own language, as in `schema.graphql`.
#[must_use]
pub fn sdl() -> String {
    builder()
        .finish()
        .sdl_with_options(async_graphql::SDLExportOptions::new().include_specified_by())
}

fn builder()
-> async_graphql::SchemaBuilder<query::Query, mutation::Mutation, subscription::Subscriptions> {
    // Depth and size are bounded by `guard`, before anything walks the document.
    Schema::build(
        query::Query,
        mutation::Mutation::default(),
        subscription::Subscriptions,
    )
}
