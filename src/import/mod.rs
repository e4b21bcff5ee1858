//! `recents import`: what was said before, from recordings (`files`) or from a `WuKongIM` that runs
//! (`running`), through the same use cases as live traffic. Either can be interrupted and run
//! again. `compare` says afterwards where the two differ.

mod compare;
mod files;
mod running;

pub use compare::{Comparison, compare};
pub use files::{Summary, import_file};
pub use running::{Carried, Source, import_running};
