//! The command line.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use recents::app::{self, ListenError};
use recents::clock::{Clock, Ids};
use recents::config::{ConfigError, Settings, Url, misspelled_variables};
use recents::core::Core;
use recents::ids::Uid;
use recents::outside::read_answer;
use recents::{graphql, import, telemetry};

/// Keeps the recent-conversation list of instant-messaging systems and serves it as GraphQL and as
/// `WuKongIM`'s routes.
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
    /// Read recorded traffic (.jsonl or .jsonl.gz), or what a running WuKongIM v1 or v2 holds, into
    /// the database
    Import(Import),
    /// Ask the server that is configured whether it is ready
    Healthcheck,
}

#[derive(clap::Args)]
struct Import {
    /// Recordings, in order; or the address of a running server (http://…)
    #[arg(required = true, value_name = "FILE|URL")]
    from: Vec<String>,
    /// Users whose conversations a running server is asked for
    #[arg(long, value_name = "UID,…", value_delimiter = ',')]
    uids: Vec<String>,
    /// A file with such users, one a line
    #[arg(long, value_name = "FILE")]
    uid_file: Option<PathBuf>,
    /// The running server's manager token
    #[arg(
        long,
        env = "RECENTS_IMPORT_TOKEN",
        hide_env_values = true,
        default_value = "",
        value_name = "TOKEN"
    )]
    token: String,
    /// Requests that a running server is asked a second, at most
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Import nothing: compare what a running server answers these users with what is answered
    /// here; 1 when they differ
    #[arg(long)]
    verify: bool,
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

/// Bytes of the reason why a server is not ready.
const LONGEST_REASON: usize = 64 * 1024;

fn main() -> ExitCode {
    // clap ends with 2 for a wrong command line by itself.
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("error: {error:#}");
            // Nobody need be there to read it.
            telemetry::within(telemetry::FAREWELL, move || {
                drop(writeln!(std::io::stderr(), "{text}"))
            });
            let is_callers = error
                .chain()
                .any(|cause| cause.is::<ConfigError>() || cause.is::<ListenError>());
            ExitCode::from(if is_callers { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let command = cli.command.unwrap_or(Command::Serve { listen: None });
    if matches!(command, Command::Schema) {
        return say(graphql::sdl().trim_end());
    }
    let mut settings = Settings::load(cli.config.as_deref())?;
    if let Command::Serve {
        listen: Some(listen),
    } = &command
    {
        settings.server.listen.clone_from(listen);
    }
    if matches!(command, Command::Config) {
        return say(settings.to_toml()?.trim_end());
    }
    let _log = telemetry::log_to_stderr(&settings.log)?;
    for warning in
        misspelled_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
    {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Serve { .. } => app::serve(settings).await,
            Command::Migrate { direction } => migrate(&settings, direction).await,
            Command::Import(arguments) => import(&settings, &arguments).await,
            Command::Healthcheck => healthcheck(&settings).await,
            Command::Schema | Command::Config => Ok(()),
        }
    })
}

/// Writes what a command says.
fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("stdout cannot be written")
}

async fn migrate(settings: &Settings, direction: Migrate) -> anyhow::Result<()> {
    let store = app::connect(settings).await?;
    match direction {
        Migrate::Up => store.migrate_up().await?,
        Migrate::Down { steps } => store.migrate_down(Some(steps)).await?,
        Migrate::Status => {}
    }
    for migration in store.migration_status().await? {
        say(&format!(
            "{:8} {}",
            if migration.applied {
                "applied"
            } else {
                "missing"
            },
            migration.name
        ))?;
    }
    store.close().await;
    Ok(())
}

async fn import(settings: &Settings, arguments: &Import) -> anyhow::Result<()> {
    let is_url = |from: &String| from.starts_with("http://") || from.starts_with("https://");
    let uids = uids(arguments)?;
    if arguments.from.iter().any(is_url) && uids.is_empty() {
        return Err(ConfigError(
            "a running server is asked for users: --uids or --uid-file says for which".to_owned(),
        )
        .into());
    }
    if let Some(file) = arguments
        .from
        .iter()
        .find(|from| !is_url(from))
        .filter(|_| !uids.is_empty() || arguments.verify)
    {
        return Err(ConfigError(format!(
            "{file} is a recording: --uids, --uid-file and --verify are for running servers"
        ))
        .into());
    }
    let store = app::open_store(settings).await?;
    let core = Arc::new(Core::new(
        store.clone(),
        Clock::System,
        Ids::random(),
        settings,
    ));
    let mut differs = false;
    for from in &arguments.from {
        if !is_url(from) {
            say(&format!(
                "{from}\n{}",
                import::import_file(&core, Path::new(from)).await?
            ))?;
            continue;
        }
        // Without a password that it may carry.
        let shown = Url::from(from.as_str()).redacted();
        let mut source = import::Source::new(from, &arguments.token, arguments.rate)?;
        if arguments.verify {
            let comparison = import::compare(&core, &mut source, &uids).await?;
            differs |= !comparison.differences.is_empty();
            say(&format!("{shown}\n{comparison}"))?;
        } else {
            say(&format!(
                "{shown}\n{}",
                import::import_running(&core, &mut source, &uids).await?
            ))?;
        }
    }
    store.close().await;
    if differs {
        bail!("the answers differ")
    } else {
        Ok(())
    }
}

/// The users that are named, in order, each once.
fn uids(arguments: &Import) -> anyhow::Result<Vec<Uid>> {
    let mut named = arguments.uids.clone();
    if let Some(file) = &arguments.uid_file {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        named.extend(
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned),
        );
    }
    let mut seen = HashSet::new();
    named.retain(|uid| seen.insert(uid.clone()));
    let uids = named
        .into_iter()
        .map(|uid| Uid::parse("uid", uid))
        .collect::<Result<_, _>>();
    Ok(uids.map_err(|error| ConfigError(error.to_string()))?)
}

async fn healthcheck(settings: &Settings) -> anyhow::Result<()> {
    let url = format!("http://{}/readyz", settings.server.listen);
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .no_proxy();
    let client = client.redirect(reqwest::redirect::Policy::none()).build()?;
    let response = client
        .get(&url)
        .send()
        .await
        .with_context(|| format!("no answer from {url}"))?;
    let status = response.status();
    let body = read_answer(response, LONGEST_REASON)
        .await
        .with_context(|| format!("no answer from {url}"))?;
    let text = String::from_utf8_lossy(&body);
    if !status.is_success() {
        bail!("{} says {}", url, text.trim());
    }
    say(text.trim())
}
