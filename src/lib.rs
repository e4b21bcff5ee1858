//! recents keeps the recent-conversation list of instant-messaging systems and serves it as GraphQL
//! and as `WuKongIM`'s routes.
//!
//! Dependencies point one way, which `tests/it/architecture.rs` checks: `rest` or `graphql` reads a
//! request and calls a use case of `conversation`, `message` or `channel`; the use case calls
//! `store`; only `store` contains SQL. All share the values in `model`. `rest` and `import` share the
//! wire format in `wukongim`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod auth;
pub mod base;
mod batching;
mod budget;
pub mod bus;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conversation;
pub mod error;
mod forward;
pub mod graphql;
pub mod http;
pub mod import;
pub mod live;
mod member_lookup;
pub mod message;
mod metrics;
pub mod model;
mod outage;
pub mod outbound;
mod proxy;
mod rate_limit;
pub mod repair;
pub mod rest;
pub mod server;
pub mod services;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod upstream;
mod webhook_monitor;
pub mod wukongim;
