//! Logs and metrics.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, LogConfig, LogFormat};

/// How long the process waits at its end for log lines and errors to be written.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of log lines that wait to be written.
const MAX_BUFFERED_LINES: usize = 10_000;

/// Counts log lines that were dropped since the start.
static DROPPED_LINES: OnceLock<ErrorCounter> = OnceLock::new();

/// Writes the buffered log lines when it is dropped.
#[must_use]
pub struct LogGuard(Option<WorkerGuard>);

impl fmt::Debug for LogGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogGuard").field(&self.0.is_some()).finish()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let guard = self.0.take();
        run_with_timeout(FLUSH_TIMEOUT, move || drop(guard));
    }
}

/// Runs work in a thread and waits for it, but no longer than `timeout`: a write to a pipe blocks
/// for as long as the pipe is not read.
pub fn run_with_timeout(timeout: Duration, work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        work();
        // The receiver is gone after the timeout.
        let _ = sender.send(());
    });
    let _ = receiver.recv_timeout(timeout);
}

/// Starts logging to stderr; stdout is for the output of commands. A thread of its own writes the
/// lines, so that a reader that stops reading loses lines and blocks nothing.
///
/// # Errors
/// A `log.level` that is neither a level nor a filter.
pub fn init_logging(settings: &LogConfig) -> Result<LogGuard, ConfigError> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        ConfigError(format!(
            "log.level must be error, warn, info, debug, trace, or a filter: {error}"
        ))
    })?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_BUFFERED_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let _ = DROPPED_LINES.set(writer.error_counter());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    // In tests a subscriber may be installed already.
    let _ = match settings.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(LogGuard(Some(guard)))
}

/// Returns how many log lines were dropped because their reader was too slow.
pub fn dropped_log_lines() -> usize {
    DROPPED_LINES.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Installs the recorder of the process's metrics; further calls do nothing.
pub fn install_metrics_recorder() {
    let _ = metrics_handle();
}

/// Returns all metrics in Prometheus' text format, renamed ones under both names.
pub fn render_metrics() -> String {
    let text = metrics_handle().render();
    let old_names = crate::metrics::render_old_names(&text);
    text + &old_names
}

/// Returns the handle of the recorder. The first call installs the recorder.
fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let seconds = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let counts = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
        let batch_sizes = Matcher::Full(crate::metrics::BATCH_SIZE.to_owned());
        let builder = PrometheusBuilder::new()
            .set_buckets(&seconds)
            .and_then(|builder| builder.set_buckets_for_metric(batch_sizes, &counts));
        let recorder = builder
            .unwrap_or_else(|_| PrometheusBuilder::new())
            .build_recorder();
        let handle = recorder.handle();
        // If an embedding program has installed a recorder, this one renders nothing.
        let _ = metrics::set_global_recorder(recorder);
        crate::metrics::describe();
        handle
    })
}

/// Bounds the memory of histograms while `/metrics` is not read.
pub async fn maintain_metrics() {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        metrics_handle().run_upkeep();
    }
}

/// Returns the text of an error and the texts of its sources, separated by colons. Many libraries
/// repeat the text of the source in their own: such a source is left out.
#[must_use]
pub fn text_with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod test_log {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::DefaultGuard;

    /// The log lines of a test.
    #[derive(Clone, Default)]
    pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

    impl CapturedLog {
        /// Returns the lines up to now.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for CapturedLog {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Captures the log lines of the current thread until the guard is dropped.
    pub(crate) fn capture_log() -> (CapturedLog, DefaultGuard) {
        let log = CapturedLog::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_every_source_appears_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Layer {
            text: &'static str,
            source: Option<Box<Layer>>,
        }
        let layers = ["c", "b: c", "b: c", "a"];
        let error = layers
            .into_iter()
            .fold(None, |source, text| Some(Box::new(Layer { text, source })));
        assert_eq!(text_with_sources(&*error.unwrap()), "a: b: c");
    }
}
