//! Imports from a running `WuKongIM`: the conversations of given users with all their messages, their
//! unread counts, their order, and what they deleted.
//!
//! 1. `user`: for each user, the messages of the listed conversations that are missing here
//!    (`channel`), the membership in groups, and the read positions.
//! 2. The groups that no user lists, if they are named.
//! 3. `settle`: for each user, conversations that are not listed there. They are here because the
//!    import of other users brought their messages.
//!
//! The progress of each channel and user is kept in the database: an import can be interrupted and
//! run again, and it can run while webhooks arrive. Unread counts are those at the moment of the
//! answer; later messages are added to them. For users that were imported before, missing messages
//! are added, and nothing else is changed.

mod channel;
mod gaps;
mod ingest;
mod locks;
mod settle;
mod summary;
mod user;

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use moka::sync::Cache;

pub(super) use self::gaps::next_gap;
use self::locks::ChannelLocks;
pub use self::summary::ImportSummary;
use super::ImportOptions;
use super::source::Source;
use super::workers::for_each_user;
use crate::error::Error;
use crate::model::{ChannelKey, Seq, Uid};
use crate::services::Services;
use crate::upstream::{RequestError, WukongimClient};

/// Number of channels that are remembered as checked; others are checked again.
const CHECKED_CHANNELS: u64 = 200_000;
/// An import with more failures ends: something else is wrong.
const MAX_FAILURES: u64 = 1_000;

/// An import in progress.
#[derive(Debug)]
struct Import {
    core: Arc<Services>,
    source: Source,
    locks: ChannelLocks,
    /// Channels of which this import has stored everything up to a seq.
    checked: Cache<ChannelKey, Seq>,
    /// The groups of `--groups`.
    groups: HashSet<ChannelKey>,
    /// Those of them that a user lists.
    listed_groups: Mutex<HashSet<ChannelKey>>,
    summary: Mutex<ImportSummary>,
    progress: ProgressBar,
}

/// Imports the conversations of these users.
///
/// # Errors
/// Returns an error if the server does not answer, if it refuses everything, or if the database
/// fails. Running the import again continues it.
pub async fn import_server(
    core: &Arc<Services>,
    client: &Arc<WukongimClient>,
    uids: &[Uid],
    options: &ImportOptions,
) -> anyhow::Result<ImportSummary> {
    let Some(first) = uids.first() else {
        return Ok(ImportSummary::default());
    };
    let source = Source::connect(client, options.wukongim, &options.groups, first).await?;
    let groups = options
        .groups
        .iter()
        .map(|group| ChannelKey::new(first, group));
    let import = Arc::new(Import {
        core: Arc::clone(core),
        locks: ChannelLocks::new(),
        checked: Cache::new(CHECKED_CHANNELS),
        groups: groups.collect(),
        listed_groups: Mutex::default(),
        summary: Mutex::new(ImportSummary {
            users: uids.len() as u64,
            is_v3: source.is_v3(),
            ..ImportSummary::default()
        }),
        progress: progress_bar(uids.len())?,
        source,
    });
    let uids: Arc<[Uid]> = uids.into();
    let this = Arc::clone(&import);
    for_each_user(&uids, options.parallel, move |uid| {
        let this = Arc::clone(&this);
        async move {
            user::import_user(&this, &uid).await?;
            this.progress.inc(1);
            Ok(())
        }
    })
    .await?;
    import.import_unlisted_groups(&uids[0], options).await?;
    import.progress.reset();
    import.progress.set_message("(deleted conversations)");
    let this = Arc::clone(&import);
    for_each_user(&uids, options.parallel, move |uid| {
        let this = Arc::clone(&this);
        async move {
            settle::settle_user(&this, &uid).await?;
            this.progress.inc(1);
            Ok(())
        }
    })
    .await?;
    import.progress.finish_and_clear();
    let summary = *import.summary();
    Ok(summary)
}

fn progress_bar(users: usize) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} users, {per_sec}, {eta} left {msg}")?;
    Ok(ProgressBar::new(users as u64).with_style(style))
}

/// Adds the details of an error: texts for API callers hide details that the operator of an import
/// needs.
fn with_details(error: impl Into<Error>) -> anyhow::Error {
    let error = error.into();
    let details = format!("{error:?}");
    anyhow::Error::new(error).context(details)
}

impl Import {
    fn summary(&self) -> MutexGuard<'_, ImportSummary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, numbers: &ImportSummary) {
        let mut summary = self.summary();
        summary.add(numbers);
        let stored = summary.stored;
        drop(summary);
        self.progress.set_message(format!("({stored} messages)"));
    }

    /// Counts a refused request, so that the others are imported. A server that does not answer
    /// ends the import.
    fn accept_failure(&self, what: &str, error: &RequestError) -> anyhow::Result<()> {
        match error {
            RequestError::Refused(_) | RequestError::TooLong(_) => {}
            fatal => {
                let url = self.source.display_url();
                return Err(anyhow!(
                    "{url}: {what}: {fatal}; run the import again to continue"
                ));
            }
        }
        tracing::warn!(reason = %error, "cannot import {what}");
        let mut summary = self.summary();
        summary.failed += 1;
        if summary.failed > MAX_FAILURES {
            bail!("{what}: {error}; more than {MAX_FAILURES} requests were refused");
        }
        Ok(())
    }

    /// Imports the messages of the named groups that no user lists.
    async fn import_unlisted_groups(
        &self,
        uid: &Uid,
        options: &ImportOptions,
    ) -> anyhow::Result<()> {
        for group in &options.groups {
            let key = ChannelKey::new(uid, group);
            let is_listed = self.listed_groups().contains(&key);
            let numbers = ImportSummary {
                groups: 1,
                groups_without_users: u64::from(!is_listed),
                ..ImportSummary::default()
            };
            self.add(&numbers);
            if !is_listed {
                channel::import_group(self, uid, group, &key).await?;
            }
        }
        Ok(())
    }

    fn listed_groups(&self) -> MutexGuard<'_, HashSet<ChannelKey>> {
        self.listed_groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
