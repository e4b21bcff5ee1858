//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    recents::cli::main()
}
