//! Imports recorded traffic, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::channel::{add_members, create_channel, remove_members};
use crate::error::Error;
use crate::message::ingest;
use crate::services::Services;
use crate::wukongim::{
    AddMembersBody, ChannelBody, JsonObject, MessageDecoder, RemoveMembersBody, SourceDialect,
    decode_webhook,
};

/// A line of a recording: a webhook (`path` begins with `?event=`, `body`) or an API call (`path`,
/// `request`).
#[derive(Deserialize)]
struct Line {
    path: String,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    request: Option<String>,
}

/// The result of importing a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileImportSummary {
    /// Number of lines read.
    pub lines: u64,
    /// Lines that an earlier import processed; the other counts are about the remaining lines.
    pub imported: u64,
    /// Number of webhook bodies.
    pub webhooks: u64,
    /// Number of changes of channels and their members.
    pub channels: u64,
    /// Lines without anything to import: reads, and changes by clients to their own lists.
    pub other: u64,
    /// Messages stored by this import.
    pub stored: u64,
    /// Messages that were stored before.
    pub repeated: u64,
    /// Messages that are not stored on purpose, such as commands.
    pub skipped: u64,
    /// Messages and lines that are invalid.
    pub refused: u64,
    /// Messages whose seq or id is taken by another message.
    pub conflicts: u64,
}

impl std::fmt::Display for FileImportSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} lines: {} imported before, {} webhooks, {} channel changes, {} others left alone",
            self.lines, self.imported, self.webhooks, self.channels, self.other
        )?;
        write!(
            f,
            "messages: {} stored, {} already there, {} skipped, {} refused, {} in conflict",
            self.stored, self.repeated, self.skipped, self.refused, self.conflicts
        )
    }
}

/// Imports a `.jsonl` or `.jsonl.gz` file. Every line is a transaction, and the progress is kept in
/// the database: an import can be interrupted and run again, and a completed import does nothing.
///
/// # Errors
/// Returns an error if the file cannot be read, a line does not belong to a recording, or the
/// database fails.
pub async fn import_file(core: &Arc<Services>, path: &Path) -> anyhow::Result<FileImportSummary> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let progress = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template(
            "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left {msg}",
        )?;
        ProgressBar::new(file.metadata()?.len()).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let file = progress.wrap_read(file);
    let is_compressed = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn Read + Send> = if is_compressed {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let recording = fingerprint(path)?;
    let imported = core.base.store.count_imported_lines(&recording).await?;
    let mut summary = FileImportSummary::default();
    // A webhook's body is a JSON string, with escapes. The limit matters because a compressed file
    // of a megabyte may contain a line of a gigabyte.
    let max_line_bytes = core.base.limits.webhook_body_bytes.saturating_mul(2);
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let bounded = reader
            .by_ref()
            .take(max_line_bytes as u64 + 1)
            .read_until(b'\n', &mut line);
        if bounded.with_context(|| format!("cannot read {}", path.display()))? == 0 {
            break;
        }
        if line.len() > max_line_bytes {
            bail!(
                "line {} of {} is longer than {max_line_bytes} bytes",
                summary.lines + 1,
                path.display()
            );
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        summary.lines += 1;
        let number = summary.lines;
        if number <= imported {
            summary.imported += 1;
            continue;
        }
        let line: Line = serde_json::from_slice(&line).with_context(|| {
            format!(
                "line {number} of {} is not a line of a recording",
                path.display()
            )
        })?;
        match import_line(core, &line, &mut summary).await {
            Ok(()) => {}
            Err(error @ (Error::Store(_) | Error::Internal(_))) => {
                // Error texts for API callers hide details that the operator of an import needs.
                return Err(
                    anyhow::Error::new(error.clone()).context(format!("line {number}: {error:?}"))
                );
            }
            Err(error) => {
                summary.refused += 1;
                tracing::warn!(line = number, error = %error, "skipped an invalid line");
            }
        }
        core.base
            .store
            .write_imported_lines(&recording, number)
            .await?;
        progress.set_message(format!("({} messages)", summary.stored));
    }
    progress.finish_and_clear();
    Ok(summary)
}

/// Identifies a recording in the database: the SHA-256 of the file.
fn fingerprint(path: &Path) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hash)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex::encode(hash.finalize()))
}

async fn import_line(
    core: &Arc<Services>,
    line: &Line,
    summary: &mut FileImportSummary,
) -> Result<(), Error> {
    if let Some(event) = line.path.strip_prefix("?event=") {
        summary.webhooks += 1;
        let decoder = MessageDecoder {
            dialect: SourceDialect::of_webhooks(core.base.wukongim),
            limits: &core.base.limits,
            clock: &core.base.clock,
        };
        let body = line.body.as_deref().unwrap_or_default();
        let webhook = decode_webhook(decoder, event, body.as_bytes())?;
        let report = ingest(&core.messages, webhook.batch).await?;
        summary.stored += report.stored;
        summary.repeated += report.repeated;
        summary.conflicts += report.conflicts;
        summary.skipped += webhook.skipped;
        summary.refused += webhook.refused;
        return Ok(());
    }
    let request = line.request.as_deref().unwrap_or_default().as_bytes();
    match line.path.as_str() {
        "/channel" => {
            let body: ChannelBody = JsonObject::parse(request)?.decode()?;
            create_channel(&core.channels, &body.into_request()?).await?;
        }
        "/channel/subscriber_add" => {
            let body: AddMembersBody = JsonObject::parse(request)?.decode()?;
            let reset = body.reset.0;
            let (channel, uids) = body.into_members()?;
            add_members(&core.channels, &channel, &uids, reset).await?;
        }
        "/channel/subscriber_remove" => {
            let body: RemoveMembersBody = JsonObject::parse(request)?.decode()?;
            let (channel, uids) = body.into_members()?;
            remove_members(&core.channels, &channel, &uids).await?;
        }
        _ => {
            summary.other += 1;
            return Ok(());
        }
    }
    summary.channels += 1;
    Ok(())
}
