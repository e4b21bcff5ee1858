//! `recents import`: imports earlier messages, from recordings (`files`) or from a running
//! `WuKongIM` (`server`), through the same use cases as live traffic. Both can be interrupted and
//! run again. `compare` reports differences afterwards.

mod compare;
mod decode;
mod files;
mod progress;
mod server;
mod source;
mod workers;

pub use self::compare::{Comparison, compare};
pub use self::files::{FileImportSummary, import_file};
pub use self::server::{ImportSummary, import_server};
use crate::config::WukongimVersion;
use crate::model::ChannelRef;

/// Number of users that are imported at the same time, if nothing else is said.
pub const DEFAULT_PARALLEL: usize = 8;

/// How to import from a running server, or to compare with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// The version of the server; if it has other routes, it is found out.
    pub wukongim: WukongimVersion,
    /// Groups that v1 lists only when they are named.
    pub groups: Vec<ChannelRef>,
    /// Maximum number of users at the same time.
    pub parallel: usize,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            wukongim: WukongimVersion::default(),
            groups: Vec::new(),
            parallel: DEFAULT_PARALLEL,
        }
    }
}
