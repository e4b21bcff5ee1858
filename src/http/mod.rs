//! How connections come in: HTTP/1.1, over hyper, with limits on everything that a client can keep
//! the server waiting for.
//!
//! HTTP/2 is not spoken here: a client without it loses nothing on these routes, and its streams
//! would need limits of their own. (The webhook over gRPC is HTTP/2, on a port of its own.)

mod body;
mod files;
mod listen;
mod stream;

pub(crate) use self::body::{counted, read_body};
pub(crate) use self::files::limit_connections;
pub use self::listen::serve;
pub(crate) use self::listen::{admit, set_options, watch};
pub(crate) use self::stream::{Meter, OPEN, Watched};
