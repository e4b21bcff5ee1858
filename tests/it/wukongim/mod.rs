//! Messages of WuKongIM's servers, expectations of its clients, and imports.

mod compat_clients;
mod datasource;
mod forwarded_datasource;
mod forwarding;
mod forwarding_faults;
mod grpc;
mod import;
mod import_recorded;
mod import_repeated;
mod import_versions;
mod odd_bodies;
mod proxying;
mod quirks;
mod recorded_history;
mod repair;
mod replay;
mod routes;
mod streams;
mod v3;
mod webhooks;
