//! `recents import`

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::{Clock, IdGenerator};
use crate::config::{ConfigError, Settings, Url};
use crate::model::Uid;
use crate::services::Services;
use crate::upstream::WukongimClient;
use crate::wukongim::dto::write_message;
use crate::{import, server};
use anyhow::{Context, bail};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Recordings, in order, or the URL of a running server (http://…)
    #[arg(required = true, value_name = "FILE|URL")]
    from: Vec<String>,
    /// Users to import from a running server
    #[arg(long, value_name = "UID,…", value_delimiter = ',')]
    uids: Vec<String>,
    /// File with users to import from a running server, one a line
    #[arg(long, value_name = "FILE")]
    uid_file: Option<PathBuf>,
    /// Manager token of the running server
    #[arg(
        long,
        env = "RECENTS_IMPORT_TOKEN",
        hide_env_values = true,
        default_value = "",
        value_name = "TOKEN"
    )]
    token: String,
    /// Maximum number of requests per second to a running server
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Import nothing: compare the answers of a running server for these users with the answers of
    /// this database; exit with 1 if they differ
    #[arg(long)]
    verify: bool,
}

impl Args {
    fn check(&self, uids: &[Uid]) -> Result<(), ConfigError> {
        if self.from.iter().any(|from| is_url(from)) && uids.is_empty() {
            return Err(ConfigError(
                "an import from a running server needs users: set --uids or --uid-file".to_owned(),
            ));
        }
        let has_options_for_servers = !uids.is_empty() || self.verify;
        match self.from.iter().find(|from| !is_url(from)) {
            Some(file) if has_options_for_servers => Err(ConfigError(format!(
                "{file} is a recording: --uids, --uid-file and --verify are for running servers"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the users of `--uids` and `--uid-file`, in order, without duplicates.
    fn users(&self) -> anyhow::Result<Vec<Uid>> {
        let mut names = self.uids.clone();
        if let Some(file) = &self.uid_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            names.extend(
                text.lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty())
                    .map(str::to_owned),
            );
        }
        let mut seen = HashSet::new();
        names.retain(|uid| seen.insert(uid.clone()));
        let uids = names
            .into_iter()
            .map(|uid| Uid::parse("uid", uid))
            .collect::<Result<_, _>>();
        Ok(uids.map_err(|error| ConfigError(error.to_string()))?)
    }
}

fn is_url(from: &str) -> bool {
    from.starts_with("http://") || from.starts_with("https://")
}

pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let uids = args.users()?;
    args.check(&uids)?;
    let store = server::open_store(settings).await?;
    let core = Arc::new(Services::new(
        store.clone(),
        Clock::System,
        IdGenerator::random(),
        settings,
        write_message,
    ));
    let mut differs = false;
    for from in &args.from {
        if !is_url(from) {
            let summary = import::import_file(&core, Path::new(from)).await?;
            super::print(&format!("{from}\n{summary}"))?;
            continue;
        }
        // The URL may contain a password.
        let shown = Url::from(from.as_str()).redacted();
        let source = WukongimClient::new(from, &args.token, args.rate)?;
        if args.verify {
            let comparison = import::compare(&core, &source, &uids).await?;
            differs |= !comparison.differences.is_empty();
            super::print(&format!("{shown}\n{comparison}"))?;
        } else {
            let summary = import::import_server(&core, &source, &uids).await?;
            super::print(&format!("{shown}\n{summary}"))?;
        }
    }
    store.close().await;
    if differs {
        bail!("the answers differ")
    }
    Ok(())
}
