//! Permissions, tokens, hostile input, and callers that try to use up resources.

mod fairness;
mod fuzz_input;
mod hostile_graphql;
mod hostile_input;
mod hostile_responses;
mod open_mode;
mod permissions;
mod proxy_abuse;
mod slow_clients;
mod tokens;
