//! Logs and metrics.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, Log, LogFormat};

/// For so long the end of a process waits for its last words to be written.
pub const FAREWELL: Duration = Duration::from_secs(2);
/// Lines that wait to be written at most.
const WAITING_LINES: usize = 10_000;

/// Lines that were not written, since the start.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Writes what is still waiting when it is dropped.
#[must_use]
pub struct LogWriter(Option<WorkerGuard>);

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogWriter").field(&self.0.is_some()).finish()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let guard = self.0.take();
        within(FAREWELL, move || drop(guard));
    }
}

/// Does what may wait for the reader of a pipe for ever, and waits no longer than this.
pub fn within(time: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        work();
        // Nobody may be waiting any more.
        let _ = done.send(());
    });
    let _ = is_done.recv_timeout(time);
}

/// Log lines go to stderr: stdout is for what a command says. A thread of its own writes them:
/// where nobody reads them, or nobody can, lines are lost and nothing waits.
///
/// # Errors
/// `log.level` that is no level and no filter.
pub fn log_to_stderr(settings: &Log) -> Result<LogWriter, ConfigError> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        ConfigError(format!(
            "log.level must be error, warn, info, debug, trace, or a filter: {error}"
        ))
    })?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let _ = DROPPED.set(writer.error_counter());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    // A second subscriber (in tests) leaves the first one in place.
    let _ = match settings.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(LogWriter(Some(guard)))
}

/// Lines of the log that were not written, because nobody reads them fast enough.
pub fn dropped_log_lines() -> usize {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines)
}

/// The process's metrics; the first call begins to collect them.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let seconds = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let counts = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
        let shared = Matcher::Full("recents_shared_transaction_requests".to_owned());
        let builder = PrometheusBuilder::new()
            .set_buckets(&seconds)
            .and_then(|builder| builder.set_buckets_for_metric(shared, &counts));
        let recorder = builder
            .unwrap_or_else(|_| PrometheusBuilder::new())
            .build_recorder();
        let handle = recorder.handle();
        // Somebody else's recorder (an embedder's) stays; ours then renders nothing.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        handle
    })
}

fn describe() {
    metrics::describe_counter!(
        "recents_messages_total",
        "Messages by what became of them: stored, repeated, conflict."
    );
    metrics::describe_counter!(
        "recents_webhook_messages_skipped_total",
        "Messages of webhooks that were left out, by reason."
    );
    metrics::describe_counter!(
        "recents_webhooks_ignored_total",
        "Webhooks that are not about messages, by event."
    );
    metrics::describe_counter!(
        "recents_last_msg_seqs_skipped_total",
        "Malformed parts of last_msg_seqs."
    );
    metrics::describe_counter!(
        "recents_transactions_retried_total",
        "Transactions begun again for the sake of another."
    );
    metrics::describe_counter!(
        "recents_locked_rows_total",
        "Requests that waited by themselves for a row that others held."
    );
    metrics::describe_counter!(
        "recents_sql_abandoned_total",
        "Statements that were finished although nobody waited any more."
    );
    metrics::describe_gauge!(
        "recents_database_connections_allowed",
        "How many connections the database allows, once it allowed fewer than database.max_connections."
    );
    metrics::describe_counter!(
        "recents_sql_statements_total",
        "SQL statements, without BEGIN and COMMIT."
    );
    metrics::describe_histogram!(
        "recents_sql_seconds",
        metrics::Unit::Seconds,
        "Time of SQL statements."
    );
    metrics::describe_histogram!(
        "recents_shared_transaction_requests",
        "Requests that were done together."
    );
    metrics::describe_counter!(
        "recents_cache_total",
        "Channels whose newest messages were in memory (hit), or were read (miss)."
    );
    metrics::describe_gauge!(
        "recents_cache_bytes",
        metrics::Unit::Bytes,
        "Of cache.messages_bytes in use."
    );
    metrics::describe_gauge!(
        "recents_log_lines_dropped",
        "Lines of the log that were not written, since the start."
    );
    metrics::describe_counter!(
        "recents_unauthenticated_total",
        "Requests with no, or no valid, credentials, by reason."
    );
    metrics::describe_gauge!(
        "recents_held_bytes",
        metrics::Unit::Bytes,
        "Of limits.memory_bytes in use."
    );
    metrics::describe_gauge!(
        "recents_http_requests_running",
        "Requests that are being answered, of limits.requests."
    );
    metrics::describe_gauge!(
        "recents_open_connections",
        "Open connections, of limits.open_connections."
    );
    metrics::describe_counter!(
        "recents_http_shed_total",
        "Requests and connections refused because a limit was reached, by limit, and by what reached it: server, address, user."
    );
    metrics::describe_counter!(
        "recents_connections_closed_total",
        "Connections closed by the server, by reason."
    );
    metrics::describe_counter!(
        "recents_http_requests_total",
        "Requests by route, method and status."
    );
    metrics::describe_counter!(
        "recents_rate_limited_total",
        "Requests over the rate of a user or an address."
    );
    metrics::describe_gauge!(
        "recents_pending_removals",
        "Removals of many members that are not written to all rows yet."
    );
    metrics::describe_counter!(
        "recents_jwks_fetches_total",
        "Fetches of auth.jwt.jwks_url, by result."
    );
    metrics::describe_counter!(
        "recents_datasource_requests_total",
        "Questions to ingest.datasource_url, by result."
    );
    metrics::describe_gauge!(
        "recents_live_connections",
        "Connections with subscriptions, by protocol."
    );
    metrics::describe_counter!(
        "recents_answers_cut_total",
        "Lists and pages of messages that did not fit into limits.answer_bytes."
    );
    metrics::describe_gauge!(
        "recents_live_chats",
        "Channels with subscribers to messageAdded, as the poll found them last."
    );
    metrics::describe_gauge!(
        "recents_live_feeds",
        "Users with subscribers, as the poll found them last."
    );
    metrics::describe_gauge!(
        "recents_live_redis_up",
        "Whether this server hears Redis: 1 or 0."
    );
    metrics::describe_counter!(
        "recents_live_redis_failures_total",
        "How often the connection that listens to Redis broke."
    );
    metrics::describe_counter!(
        "recents_live_wakes_total",
        "Subscribers' feeds and chats woken by hints."
    );
    metrics::describe_counter!(
        "recents_live_polled_total",
        "Feeds that the poll found behind, although nobody told."
    );
    metrics::describe_counter!(
        "recents_live_events_total",
        "Events of conversationChanges, for each subscriber."
    );
    metrics::describe_counter!(
        "recents_live_closed_total",
        "Connections closed, by reason."
    );
    metrics::describe_histogram!(
        "recents_http_seconds",
        metrics::Unit::Seconds,
        "Time of requests by route."
    );
}

/// Keeps the memory of metrics bounded when nobody reads them.
pub async fn maintain_metrics() {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        metrics().run_upkeep();
    }
}
