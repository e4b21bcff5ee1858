//! The tables of recents as sea-orm entities: column names and types, nothing else.
//!
//! All integers are signed 64-bit, all times are epoch milliseconds. Ids and other texts compare
//! bytewise on every database; see the `migration` crate for how each engine is told so.

pub mod channel;
pub mod conversation;
pub mod import_progress;
pub mod late_message;
pub mod message;
pub mod pending_removal;
pub mod sender_mark;
pub mod user_cursor;
