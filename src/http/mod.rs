//! The HTTP server: connections, bodies, rate limits and middleware. It speaks HTTP/1.1 over hyper,
//! and limits everything that a client can make the server wait for.
//!
//! HTTP/2 is not supported here: a client without it loses nothing on these routes, and its streams
//! would need limits of their own. (The webhook over gRPC is HTTP/2, on a port of its own.)

mod body;
mod cors;
mod listen;
pub(crate) mod middleware;
mod monitored_socket;
mod open_files;
mod open_mode;

pub(crate) use self::body::{count_response_bytes, read_body};
pub(crate) use self::cors::CorsPolicy;
pub use self::listen::serve;
pub(crate) use self::listen::{admit_connection, monitor, set_options};
pub(crate) use self::middleware::REQUEST_ID;
pub(crate) use self::monitored_socket::{ConnectionMeter, MonitoredSocket, OPEN_CONNECTION_BYTES};
pub(crate) use self::open_files::limit_connections;
