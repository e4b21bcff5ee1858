//! The tables of recents as sea-orm entities: only column names and types.
//!
//! All integers are signed 64-bit, all times are epoch milliseconds. Ids and other texts are
//! compared by bytes on every database; the `migration` crate shows how each engine is configured
//! for it.

pub mod channel;
pub mod conversation;
pub mod feeder;
pub mod import_progress;
pub mod late_message;
pub mod message;
pub mod pending_removal;
pub mod sender_mark;
pub mod user_cursor;
