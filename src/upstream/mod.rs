//! Requests to a running `WuKongIM`.

mod client;

pub use self::client::{RequestError, WukongimClient};
