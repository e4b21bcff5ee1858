//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use recents::app::{self, ListenError};
use recents::clock::{Clock, Ids};
use recents::config::{ConfigError, Settings};
use recents::core::Core;
use recents::{graphql, import, telemetry};

/// Keeps the recent-conversation list of instant-messaging systems and serves it as GraphQL and as `WuKongIM`'s routes.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// The configuration file (default: recents.toml in the working directory, when it is there)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default)
    Serve {
        /// Where to listen, above file and environment
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
    },
    /// Change the database's schema, or show how it stands
    Migrate {
        #[command(subcommand)]
        direction: Migrate,
    },
    /// Print the GraphQL schema
    Schema,
    /// Print the configuration in effect, secrets redacted
    Config,
    /// Read recorded traffic (.jsonl or .jsonl.gz) into the database
    Import {
        /// The recordings, in order
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Ask the server that is configured whether it is ready
    Healthcheck,
}

#[derive(Subcommand, Clone, Copy)]
enum Migrate {
    /// Apply what is missing
    Up,
    /// Take migrations back
    Down {
        /// How many
        #[arg(long, default_value_t = 1)]
        steps: u32,
    },
    /// Show which are applied
    Status,
}

fn main() -> ExitCode {
    // clap ends with 2 for a wrong command line by itself.
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let is_callers = error.chain().any(|cause| cause.is::<ConfigError>() || cause.is::<ListenError>());
            ExitCode::from(if is_callers { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let command = cli.command.unwrap_or(Command::Serve { listen: None });
    if matches!(command, Command::Schema) {
        print!("{}", graphql::sdl());
        return Ok(());
    }
    let mut settings = Settings::load(cli.config.as_deref())?;
    if let Command::Serve { listen: Some(listen) } = &command {
        settings.server.listen.clone_from(listen);
    }
    if matches!(command, Command::Config) {
        print!("{}", settings.to_toml()?);
        return Ok(());
    }
    telemetry::log_to_stderr(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Serve { .. } => app::serve(settings).await,
            Command::Migrate { direction } => migrate(&settings, direction).await,
            Command::Import { files } => import_files(&settings, &files).await,
            Command::Healthcheck => healthcheck(&settings).await,
            Command::Schema | Command::Config => Ok(()),
        }
    })
}

async fn migrate(settings: &Settings, direction: Migrate) -> anyhow::Result<()> {
    let store = app::connect(settings).await?;
    match direction {
        Migrate::Up => store.migrate_up().await?,
        Migrate::Down { steps } => store.migrate_down(Some(steps)).await?,
        Migrate::Status => {}
    }
    for migration in store.migration_status().await? {
        println!("{:8} {}", if migration.applied { "applied" } else { "missing" }, migration.name);
    }
    store.close().await;
    Ok(())
}

async fn import_files(settings: &Settings, files: &[PathBuf]) -> anyhow::Result<()> {
    let store = app::open_store(settings).await?;
    let core = Core::new(store.clone(), Clock::System, Ids::random(), settings);
    for file in files {
        let summary = import::import_file(&core, file).await?;
        println!("{}\n{summary}", file.display());
    }
    store.close().await;
    Ok(())
}

async fn healthcheck(settings: &Settings) -> anyhow::Result<()> {
    let url = format!("http://{}/readyz", settings.server.listen);
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
    let response = client.get(&url).send().await.with_context(|| format!("no answer from {url}"))?;
    let (status, text) = (response.status(), response.text().await?);
    if !status.is_success() {
        bail!("{} says {}", url, text.trim());
    }
    println!("{}", text.trim());
    Ok(())
}
