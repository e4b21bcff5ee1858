//! The GraphQL interface. A resolver does four things: read the input, call a use case, map the
//! result, map the error.
//!
//! How to add a field: put its type into `types/` (one type a file) and its resolver into
//! `query.rs`, `subscription.rs` or `mutation/`; if it returns a list or reads rows, add it to the
//! tables in `query_limits/schema_info.rs`; then run `cargo run -- schema > schema.graphql`.

mod context;
mod empty_selections;
pub mod error;
mod field_order;
pub mod http;
mod json;
mod loaders;
mod metrics;
mod mutation;
mod null_propagation;
mod operation;
mod operation_context;
pub(crate) mod operation_stats;
pub(crate) mod persisted;
mod query;
mod query_limits;
mod raw_json;
mod scalars;
mod sse;
mod state;
mod subscription;
mod types;
mod variables;
pub(crate) mod websocket;

use std::sync::Arc;

use async_graphql::Schema;

pub(crate) use self::state::GraphqlState;
use crate::live::Feeds;
use crate::services::Services;

/// The schema with its resolvers.
pub type AppSchema = Schema<query::Query, mutation::Mutation, subscription::Subscriptions>;

/// Builds the schema.
#[must_use]
fn schema(core: Arc<Services>, feeds: Arc<Feeds>) -> AppSchema {
    builder().data(core).data(feeds).finish()
}

/// Returns the schema in the schema definition language, as in `schema.graphql`.
#[must_use]
pub fn sdl() -> String {
    builder()
        .finish()
        .sdl_with_options(async_graphql::SDLExportOptions::new().include_specified_by())
}

fn builder()
-> async_graphql::SchemaBuilder<query::Query, mutation::Mutation, subscription::Subscriptions> {
    // `query_limits` bounds depth and size before anything traverses the document.
    Schema::build(
        query::Query,
        mutation::Mutation::default(),
        subscription::Subscriptions,
    )
}
