//! Messages of WuKongIM's servers, expectations of its clients, and imports.

mod compat_clients;
mod datasource;
mod grpc;
mod import;
mod recorded_history;
mod repair;
mod replay;
mod routes;
mod v3;
mod webhooks;
