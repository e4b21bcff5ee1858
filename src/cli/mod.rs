//! The command line: one command a file.

mod check;
mod config;
mod healthcheck;
mod import;
mod migrate;
mod repair;
mod schema;
mod serve;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::{ConfigError, Settings, misspelled_variables};
use crate::server::ListenError;
use crate::telemetry;
use crate::telemetry::text_with_sources;

/// Keeps the conversation list of instant-messaging systems and serves it as GraphQL and as
/// `WuKongIM`'s routes.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// Configuration file (default: recents.toml in the working directory, if it exists)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default)
    Serve(serve::Args),
    /// Apply, revert or list the migrations of the database
    Migrate {
        #[command(subcommand)]
        command: migrate::MigrateCommand,
    },
    /// Print the GraphQL schema
    Schema,
    /// Print the effective configuration, with secrets redacted
    Config,
    /// Import recorded traffic (.jsonl or .jsonl.gz), or the data of a running WuKongIM
    Import(import::Args),
    /// List the messages that no webhook brought; exit with 1 if there are any
    Check,
    /// Fetch messages that no webhook brought from the WuKongIM
    Repair(repair::Args),
    /// Check whether the configured server is ready
    Healthcheck,
}

/// Runs the command of the process's arguments.
///
/// The runtime is built here and not in `main.rs`: the compiler generates the code of futures where
/// they are run, and two crates would each contain the whole server.
pub fn main() -> ExitCode {
    // clap itself exits with 2 for an invalid command line.
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("error: {}", text_with_sources(&*error));
            telemetry::run_with_timeout(telemetry::FLUSH_TIMEOUT, move || {
                // Stderr may be closed.
                drop(writeln!(std::io::stderr(), "{text}"))
            });
            let is_users_mistake = error
                .chain()
                .any(|cause| cause.is::<ConfigError>() || cause.is::<ListenError>());
            ExitCode::from(if is_users_mistake { 2 } else { 1 })
        }
    }
}

fn run(arguments: Cli) -> anyhow::Result<()> {
    let command = arguments
        .command
        .unwrap_or(Command::Serve(serve::Args::default()));
    if matches!(command, Command::Schema) {
        return schema::run();
    }
    let settings = Settings::load(arguments.config.as_deref())?;
    if matches!(command, Command::Config) {
        return config::run(&settings);
    }
    let _log = telemetry::init_logging(&settings.log)?;
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for warning in settings
        .warnings
        .iter()
        .cloned()
        .chain(misspelled_variables(variables))
    {
        tracing::warn!("{warning}");
    }
    telemetry::install_metrics_recorder();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::run(settings, args).await,
            Command::Migrate { command } => migrate::run(&settings, command).await,
            Command::Import(args) => import::run(&settings, &args).await,
            Command::Check => check::run(&settings).await,
            Command::Repair(args) => repair::run(&settings, &args).await,
            Command::Healthcheck => healthcheck::run(&settings).await,
            Command::Schema | Command::Config => Ok(()),
        }
    })
}

/// Prints the output of a command.
fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("stdout cannot be written")
}
