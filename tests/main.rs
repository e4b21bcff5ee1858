//! Behaviour through the public interfaces: one scenario, four databases. `scripts/test` starts the
//! databases; a missing one fails the run.
//!
//! How to add a behaviour: a file here named for it, `async fn scenario(engine: Engine)` in it, its
//! name in `on_every_database!`.

#![expect(clippy::pedantic, reason = "tests say what they mean in their names")]

#[macro_use]
mod support;

mod arrival_order;
mod bad_input;
mod broken_statements;
mod clients;
mod commands;
mod contention;
mod conversations;
mod crashes;
mod database_limits;
mod datasource;
mod fairness;
mod faults;
mod graphql_answers;
mod graphql_http;
mod grpc;
mod hang_ups;
mod histories;
mod hostile_answers;
mod hostile_graphql;
mod hostile_input;
mod importing;
mod ingest;
mod interleavings;
mod layers;
mod lists;
mod live;
mod locked_rows;
mod logs;
mod members;
mod message_content;
mod migrations;
mod old_clients;
mod open_mode;
mod overload;
mod parsers;
mod permissions;
mod portable_sql;
mod preemptions;
mod read_positions;
mod recorded_history;
mod removals;
mod replay;
mod sending;
mod sqlite_files;
mod statements;
mod storms;
mod strangers;
mod tokens;
mod unavailable;
