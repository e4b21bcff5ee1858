//! Behaviour through the public interfaces. Most tests are scenarios that run on four databases;
//! `scripts/test` and `scripts/test-db` start the servers, and a missing one fails the run.
//! `scripts/test-quick` runs what needs SQLite alone.
//!
//! How to add a scenario: `async fn scenario(engine: Engine)` in the file of its subject (or a new
//! file, with its `mod` line), and its name in that file's `on_every_database!`. A test that needs
//! another server has the server's name in its own name; one that needs root ends in `root_only`.

#![expect(clippy::pedantic, reason = "tests say what they mean in their names")]

#[macro_use]
mod support;

mod api;
mod architecture;
mod cli;
mod live;
mod reliability;
mod security;
mod storage;
mod wukongim;
