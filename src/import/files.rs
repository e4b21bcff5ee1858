//! Recorded traffic, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::auth::Caller;
use crate::core::Core;
use crate::error::Error;
use crate::rest::legacy::Fields;
use crate::rest::wukong::channel;
use crate::rest::wukong::webhook::deliver;

/// One line of a recording: a webhook (`path` begins with `?event=`, `body`) or a call (`path`,
/// `request`).
#[derive(Deserialize)]
struct Line {
    path: String,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    request: Option<String>,
}

/// What became of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines read.
    pub lines: u64,
    /// Lines that an earlier import has brought in; the rest of these figures are about the others.
    pub imported: u64,
    /// Webhook bodies among them.
    pub webhooks: u64,
    /// Changes of channels and their members among them.
    pub channels: u64,
    /// Lines that bring nothing in: reads, and what clients did to their own lists.
    pub other: u64,
    /// Messages stored now.
    pub stored: u64,
    /// Messages stored before.
    pub repeated: u64,
    /// Messages that are not stored on purpose: commands and the like.
    pub skipped: u64,
    /// Messages and lines that cannot be used.
    pub refused: u64,
    /// Messages whose place another one has.
    pub conflicts: u64,
}

impl std::fmt::Display for Summary {
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

/// Reads a `.jsonl` or `.jsonl.gz` file. Every line is a transaction, and how far it came is
/// remembered in the database: it can be interrupted and run again, and an import that is done does
/// nothing.
///
/// # Errors
/// A file that cannot be read, a line that is none of a recording, a database that fails.
pub async fn import_file(core: &Arc<Core>, path: &Path) -> anyhow::Result<Summary> {
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
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn Read + Send> = if packed {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let recording = fingerprint(path)?;
    let imported = core.store.count_imported_lines(&recording).await?;
    let mut summary = Summary::default();
    // A webhook's body is written as a JSON string, with escapes; a packed file of a megabyte may
    // unpack to a line of a gigabyte.
    let longest = core.limits.webhook_body_bytes.saturating_mul(2);
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let bounded = reader
            .by_ref()
            .take(longest as u64 + 1)
            .read_until(b'\n', &mut line);
        if bounded.with_context(|| format!("cannot read {}", path.display()))? == 0 {
            break;
        }
        if line.len() > longest {
            bail!(
                "line {} of {} is longer than {longest} bytes",
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
            Err(error @ Error::Store(_)) => {
                // What the caller may read says too little for who runs an import.
                return Err(
                    anyhow::Error::new(error.clone()).context(format!("line {number}: {error:?}"))
                );
            }
            Err(error) => {
                summary.refused += 1;
                tracing::warn!(line = number, error = %error, "a line cannot be used");
            }
        }
        core.store.write_imported_lines(&recording, number).await?;
        progress.set_message(format!("({} messages)", summary.stored));
    }
    progress.finish_and_clear();
    Ok(summary)
}

/// What a recording is known by in the database: the SHA-256 of the file.
fn fingerprint(path: &Path) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hash)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex::encode(hash.finalize()))
}

async fn import_line(core: &Arc<Core>, line: &Line, summary: &mut Summary) -> Result<(), Error> {
    if let Some(event) = line.path.strip_prefix("?event=") {
        summary.webhooks += 1;
        let delivery = deliver(
            core,
            event,
            line.body.as_deref().unwrap_or_default().as_bytes(),
        )
        .await?;
        summary.stored += delivery.report.stored;
        summary.repeated += delivery.report.repeated;
        summary.conflicts += delivery.report.conflicts;
        summary.skipped += delivery.skipped;
        summary.refused += delivery.refused;
        return Ok(());
    }
    let request = line.request.as_deref().unwrap_or_default().as_bytes();
    match line.path.as_str() {
        "/channel" => channel::create(core, &Caller::Service, &Fields::parse(request)?)
            .await
            .map(|_| ())?,
        "/channel/subscriber_add" => {
            channel::subscriber_add(core, &Caller::Service, &Fields::parse(request)?)
                .await
                .map(|_| ())?
        }
        "/channel/subscriber_remove" => {
            channel::subscriber_remove(core, &Caller::Service, &Fields::parse(request)?)
                .await
                .map(|_| ())?
        }
        _ => {
            summary.other += 1;
            return Ok(());
        }
    }
    summary.channels += 1;
    Ok(())
}
