//! The commands, one a file.

pub(crate) mod config;
pub(crate) mod healthcheck;
pub(crate) mod import;
pub(crate) mod migrate;
pub(crate) mod schema;
pub(crate) mod serve;

use std::io::Write;

use anyhow::Context;

/// Prints the output of a command.
fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("stdout cannot be written")
}
