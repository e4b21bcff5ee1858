//! `recents import`

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::clock::{Clock, IdGenerator};
use crate::config::{ConfigError, Settings, Url, WukongimVersion};
use crate::import::{DEFAULT_PARALLEL, ImportOptions};
use crate::model::{ChannelRef, ChannelType, Uid};
use crate::services::Services;
use crate::upstream::WukongimClient;
use crate::wukongim::dto::write_message;
use crate::{import, server};

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
    /// File with the large groups of a running server, one a line: ID or ID:TYPE. v1 lists them only
    /// when they are named
    #[arg(long, value_name = "FILE")]
    groups: Option<PathBuf>,
    /// Manager token of the running server
    #[arg(
        long,
        env = "RECENTS_IMPORT_TOKEN",
        hide_env_values = true,
        default_value = "",
        value_name = "TOKEN"
    )]
    token: String,
    /// Version of the running server: v1, v2 or v3 (default: ingest.wukongim)
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    wukongim: Option<WukongimVersion>,
    /// Maximum number of requests per second to a running server
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Maximum number of users that are imported at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: Option<u8>,
    /// Import nothing: compare the answers of a running server for these users, and its messages,
    /// with those of this database; exit with 1 if they differ by more than the rules
    #[arg(long)]
    verify: bool,
}

fn parse_version(text: &str) -> Result<WukongimVersion, String> {
    match text {
        "v1" => Ok(WukongimVersion::V1),
        "v2" => Ok(WukongimVersion::V2),
        "v3" => Ok(WukongimVersion::V3),
        _ => Err("must be v1, v2 or v3".to_owned()),
    }
}

/// Returns the lines of a file that are not empty, with their numbers.
fn read_lines(file: &Path) -> anyhow::Result<Vec<(usize, String)>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().map(str::trim);
    Ok((1..)
        .zip(lines)
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| (number, line.to_owned()))
        .collect())
}

/// Parses a line of the file of groups. The id may contain colons, so the type is behind the last
/// one.
fn parse_group(line: &str) -> Result<ChannelRef, String> {
    let (id, channel_type) = match line.rsplit_once(':') {
        None => (line, i64::from(ChannelType::GROUP.number())),
        Some((id, digits)) => {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number {
                return Err(format!(
                    "the type behind the last colon must be a number; for the group {line} write {line}:{}",
                    ChannelType::GROUP.number()
                ));
            }
            (id, digits.parse().unwrap_or(i64::MAX))
        }
    };
    let group = ChannelRef::parse(id, channel_type).map_err(|error| error.to_string())?;
    if group.channel_type == ChannelType::PERSON {
        return Err("channel_type must not be 1: a person channel is not a group".to_owned());
    }
    Ok(group)
}

impl Args {
    fn check(&self, uids: &[Uid]) -> Result<(), ConfigError> {
        if self.from.iter().any(|from| is_url(from)) && uids.is_empty() {
            return Err(ConfigError(
                "an import from a running server needs users: set --uids or --uid-file".to_owned(),
            ));
        }
        let options_for_servers = [
            ("--uids", !self.uids.is_empty()),
            ("--uid-file", self.uid_file.is_some()),
            ("--groups", self.groups.is_some()),
            ("--wukongim", self.wukongim.is_some()),
            ("--parallel", self.parallel.is_some()),
            ("--verify", self.verify),
        ];
        let given = options_for_servers.iter().find(|(_, is_given)| *is_given);
        match (self.from.iter().find(|from| !is_url(from)), given) {
            (Some(file), Some((option, _))) => Err(ConfigError(format!(
                "{file} is a recording: {option} is for running servers (http://… or https://…)"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the users of `--uids` and `--uid-file`, in order, without duplicates.
    fn users(&self) -> anyhow::Result<Vec<Uid>> {
        let mut uids = Vec::new();
        for uid in &self.uids {
            let uid = Uid::parse("uid", uid.as_str());
            uids.push(uid.map_err(|error| ConfigError(format!("--uids: {error}")))?);
        }
        if let Some(file) = &self.uid_file {
            for (number, line) in read_lines(file)? {
                let uid = Uid::parse("uid", line);
                uids.push(uid.map_err(|error| in_line(file, number, &error.to_string()))?);
            }
        }
        let mut seen = HashSet::new();
        uids.retain(|uid| seen.insert(uid.clone()));
        Ok(uids)
    }

    /// Returns the groups of `--groups`, in order, without duplicates.
    fn large_groups(&self) -> anyhow::Result<Vec<ChannelRef>> {
        let mut groups = Vec::new();
        if let Some(file) = &self.groups {
            for (number, line) in read_lines(file)? {
                groups.push(parse_group(&line).map_err(|problem| in_line(file, number, &problem))?);
            }
        }
        let mut seen = HashSet::new();
        groups.retain(|group| seen.insert(group.clone()));
        Ok(groups)
    }
}

fn in_line(file: &Path, number: usize, problem: &str) -> ConfigError {
    ConfigError(format!("{}, line {number}: {problem}", file.display()))
}

fn is_url(from: &str) -> bool {
    from.starts_with("http://") || from.starts_with("https://")
}

pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let uids = args.users()?;
    args.check(&uids)?;
    let options = ImportOptions {
        wukongim: args.wukongim.unwrap_or(settings.ingest.wukongim),
        groups: args.large_groups()?,
        parallel: args.parallel.map_or(DEFAULT_PARALLEL, usize::from),
    };
    let store = server::open_store(settings).await?;
    let core = Arc::new(Services::new(
        store.clone(),
        Clock::System,
        IdGenerator::random(),
        settings,
        write_message,
    ));
    let mut problem = None;
    for from in &args.from {
        if !is_url(from) {
            let summary = import::import_file(&core, Path::new(from)).await?;
            super::print(&format!("{from}\n{summary}"))?;
            continue;
        }
        // The URL may contain a password.
        let shown = Url::from(from.as_str()).redacted();
        let source = Arc::new(WukongimClient::new(from, &args.token, args.rate)?);
        if args.verify {
            let comparison = import::compare(&core, &source, &uids, &options).await?;
            if !comparison.differences.is_empty() {
                problem = Some("the answers differ");
            }
            super::print(&format!("{shown}\n{comparison}"))?;
        } else {
            let summary = import::import_server(&core, &source, &uids, &options).await?;
            if summary.failed > 0 {
                problem = Some("the import is not complete");
            }
            super::print(&format!("{shown}\n{summary}"))?;
        }
    }
    store.close().await;
    match problem {
        Some(problem) => bail!(problem),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_split_at_the_last_colon() {
        let group = |line| {
            parse_group(line)
                .map(|group| (group.channel_id, i64::from(group.channel_type.number())))
        };
        assert_eq!(group("g1"), Ok(("g1".to_owned(), 2)));
        assert_eq!(group("g1:3"), Ok(("g1".to_owned(), 3)));
        assert_eq!(group("team:blue:2"), Ok(("team:blue".to_owned(), 2)));
        for (line, problem) in [
            ("team:blue", "write team:blue:2"),
            ("g1:", "must be a number"),
            ("g1:-2", "must be a number"),
            ("g1:0", "channel_type must be between 1 and 255"),
            ("g1:256", "channel_type must be between 1 and 255"),
            ("g1:99999999999999999999", "channel_type must be between"),
            ("g1:1", "a person channel is not a group"),
            (":2", "channel_id must not be empty"),
        ] {
            let refusal = group(line).unwrap_err();
            assert!(refusal.contains(problem), "{line}: {refusal}");
        }
    }
}
