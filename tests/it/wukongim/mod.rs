//! What WuKongIM's servers send, what its clients expect, and imports.

mod compat_clients;
mod datasource;
mod grpc;
mod import;
mod recorded_history;
mod repair;
mod replay;
mod webhooks;
