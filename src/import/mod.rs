//! `recents import`: imports earlier messages, from recordings (`files`) or from a running
//! `WuKongIM` (`server`), through the same use cases as live traffic. Both can be interrupted and
//! run again. `compare` reports differences afterwards.

mod compare;
mod files;
mod server;

pub use compare::{Comparison, compare};
pub use files::{FileImportSummary, import_file};
pub use server::{ImportSummary, import_server};
