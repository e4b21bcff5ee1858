//! recents keeps the recent-conversation list of instant-messaging systems and serves it as GraphQL
//! and as `WuKongIM`'s routes.
//!
//! The way of a request: `rest` or `graphql` reads it and calls a use case of `conversation`,
//! `message` or `channel`; the use case speaks to `store`; `store` alone knows SQL. Never the other
//! way round; `tests/layers.rs` guards it.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod app;
pub mod auth;
mod border;
mod budget;
pub mod channel;
pub mod clock;
pub mod config;
pub mod conversation;
pub mod core;
mod datasource;
pub mod error;
pub mod graphql;
pub mod http;
pub mod ids;
pub mod import;
pub mod live;
pub mod message;
mod open_mode;
pub mod outside;
mod rates;
pub mod rest;
pub mod store;
pub mod telemetry;
mod together;
pub mod web;
