//! The names and help texts of all metrics.
//!
//! How to add a metric: a line in the list below and in `docs/OPERATION.md`, and its constant at the
//! call site, as in `metrics::counter!(crate::metrics::HTTP_REQUESTS_TOTAL, "route" => route)`. Tests
//! refuse metrics that are not in both lists. (`graphql::operation_stats` renders the metrics of GraphQL operations
//! itself, because it bounds the number of names.)
//!
//! How to rename a metric: rename its constant, and add its old name to [`RENAMED_METRICS`] and to
//! the table in `docs/RELEASING.md` (a test compares the two). Remove both after the next release.

/// Defines a constant for the name of each metric, and [`describe`] for their help texts.
macro_rules! define_metrics {
    ($($kind:ident $constant:ident = $name:literal $([$unit:ident])?, $help:literal;)*) => {
        $(pub(crate) const $constant: &str = $name;)*

        /// Registers the help texts of all metrics with the recorder.
        pub(crate) fn describe() {
            $(define_metrics!(@describe $kind $constant $([$unit])?, $help);)*
        }

        /// The kind, the name and the help text of every metric.
        #[cfg(test)]
        const ALL: &[(&str, &str, &str)] = &[$((stringify!($kind), $name, $help)),*];
    };
    (@describe $kind:ident $constant:ident [$unit:ident], $help:literal) => {
        define_metrics!(@macro $kind, $constant, ::metrics::Unit::$unit, $help)
    };
    (@describe $kind:ident $constant:ident, $help:literal) => {
        define_metrics!(@macro $kind, $constant, $help)
    };
    (@macro counter, $($argument:expr),*) => { ::metrics::describe_counter!($($argument),*) };
    (@macro gauge, $($argument:expr),*) => { ::metrics::describe_gauge!($($argument),*) };
    (@macro histogram, $($argument:expr),*) => { ::metrics::describe_histogram!($($argument),*) };
}

define_metrics! {
    counter HTTP_REQUESTS_TOTAL = "recents_http_requests_total",
        "Requests by route, method and status.";
    histogram HTTP_REQUEST_DURATION_SECONDS = "recents_http_request_duration_seconds" [Seconds],
        "Duration of requests by route.";
    gauge HTTP_REQUESTS_RUNNING = "recents_http_requests_running",
        "Running requests, which limits.max_concurrent_requests limits.";
    counter REQUESTS_REJECTED_TOTAL = "recents_requests_rejected_total",
        "Requests and connections refused at a limit, by reason (the limit) and by its scope: server, address or user.";
    gauge HELD_BYTES = "recents_held_bytes" [Bytes],
        "Memory held for callers, which limits.memory_bytes limits.";
    gauge OPEN_CONNECTIONS = "recents_open_connections",
        "Open connections, which limits.open_connections limits.";
    counter CONNECTIONS_CLOSED_TOTAL = "recents_connections_closed_total",
        "Connections that the server closed, by reason.";
    counter TURNS_SHARED_TOTAL = "recents_turns_shared_total",
        "Requests of heavy users that waited for one of the permits that these users share.";
    counter RATE_LIMITED_TOTAL = "recents_rate_limited_total",
        "Requests refused because of the rate of a user or an address.";
    counter UNAUTHENTICATED_TOTAL = "recents_unauthenticated_total",
        "Requests without valid credentials, by reason.";
    counter JWKS_FETCHES_TOTAL = "recents_jwks_fetches_total",
        "Fetches of auth.jwt.jwks_url, by result.";
    counter DATASOURCE_REQUESTS_TOTAL = "recents_datasource_requests_total",
        "Requests to ingest.datasource_url, by result.";
    gauge INCOMPLETE_CHANNELS = "recents_incomplete_channels",
        "Channels in which messages are missing: a later message has arrived.";
    gauge MISSING_MESSAGES = "recents_missing_messages",
        "Messages that are missing in these channels.";
    counter REPAIRED_MESSAGES_TOTAL = "recents_repaired_messages_total",
        "Messages that no webhook brought, and that were fetched from ingest.repair_url.";
    counter FORWARDED_TOTAL = "recents_forwarded_total",
        "Webhooks and datasource requests forwarded to the business server, by target (the key of its address) and result: taken, failed, or known (a repeat of a webhook that the target has taken).";
    histogram FORWARD_DURATION_SECONDS = "recents_forward_duration_seconds" [Seconds],
        "Duration of forwarding by target.";
    counter MEMBERS_LEARNED_TOTAL = "recents_members_learned_total",
        "Answers of ingest.datasource_forward_url whose members became known, by result: ok, failed or skipped.";
    counter PROXY_REQUESTS_TOTAL = "recents_proxy_requests_total",
        "Calls passed to proxy.wukongim_url, by result: answered, unavailable, timeout, refused (because of the call itself) or abandoned by the caller.";
    histogram PROXY_REQUEST_DURATION_SECONDS = "recents_proxy_request_duration_seconds" [Seconds],
        "Duration of calls passed to proxy.wukongim_url, until the answer begins.";
    gauge PROXY_REQUESTS_RUNNING = "recents_proxy_requests_running",
        "Calls that are being passed on, which proxy.max_connections limits.";
    counter PROXY_ANSWERS_BROKEN_TOTAL = "recents_proxy_answers_broken_total",
        "Answers of proxy.wukongim_url that ended early.";
    counter PROXY_HALF_CHANGES_TOTAL = "recents_proxy_half_changes_total",
        "Changes of channels that were done at proxy.wukongim_url and failed here.";
    counter ANSWERS_CUT_TOTAL = "recents_answers_cut_total",
        "Lists and pages of messages that were shortened to limits.answer_bytes.";

    histogram GRAPHQL_FIELD_SECONDS = "recents_graphql_field_seconds" [Seconds],
        "Duration of root fields of GraphQL operations by field.";

    counter MESSAGES_TOTAL = "recents_messages_total",
        "Messages by result: stored, repeated or conflict.";
    counter WEBHOOK_MESSAGES_SKIPPED_TOTAL = "recents_webhook_messages_skipped_total",
        "Messages of webhooks that were skipped, by reason.";
    counter WEBHOOK_RECIPIENTS_CUT_TOTAL = "recents_webhook_recipients_cut_total",
        "Messages of webhooks with compressed recipients that could not be read completely.";
    counter ONLINE_STATES_TOTAL = "recents_online_states_total",
        "Online states of users in webhooks, by result: read or malformed.";
    counter TIMESTAMPS_CORRECTED_TOTAL = "recents_timestamps_corrected_total",
        "Times of messages that were not given in seconds, by the unit that they were converted from.";
    counter WEBHOOKS_IGNORED_TOTAL = "recents_webhooks_ignored_total",
        "Webhooks that are not about messages, by event.";
    counter LAST_MSG_SEQS_SKIPPED_TOTAL = "recents_last_msg_seqs_skipped_total",
        "Malformed entries of last_msg_seqs.";
    gauge PENDING_REMOVALS = "recents_pending_removals",
        "Removals of many members that are not written to all rows yet.";

    counter SQL_STATEMENTS_TOTAL = "recents_sql_statements_total",
        "SQL statements, without BEGIN and COMMIT.";
    histogram DB_QUERY_DURATION_SECONDS = "recents_db_query_duration_seconds" [Seconds],
        "Duration of SQL statements.";
    counter SQL_ABANDONED_TOTAL = "recents_sql_abandoned_total",
        "SQL statements that were finished after their caller was gone.";
    counter TRANSACTIONS_RETRIED_TOTAL = "recents_transactions_retried_total",
        "Transactions retried after a conflict.";
    histogram BATCH_SIZE = "recents_batch_size",
        "Requests per shared transaction.";
    counter LOCKED_ROWS_TOTAL = "recents_locked_rows_total",
        "Requests that left their batch to wait for a locked row alone.";
    gauge DATABASE_CONNECTIONS_ALLOWED = "recents_database_connections_allowed",
        "Connections that the database allows, once it allowed fewer than database.max_connections.";
    counter MESSAGE_CACHE_LOOKUPS_TOTAL = "recents_message_cache_lookups_total",
        "Channels whose newest messages were cached (hit) or had to be read (miss).";
    gauge CACHE_BYTES = "recents_cache_bytes" [Bytes],
        "Memory of cached messages, which cache.recent_messages_bytes limits.";

    gauge LIVE_CONNECTIONS = "recents_live_connections",
        "Connections with subscriptions, by protocol.";
    gauge LIVE_FEEDS = "recents_live_feeds",
        "Users with subscriptions, at the time of the last poll.";
    gauge LIVE_CHATS = "recents_live_chats",
        "Channels with subscriptions to messageAdded, at the time of the last poll.";
    counter LIVE_NOTIFICATIONS_TOTAL = "recents_live_notifications_total",
        "Notifications to the feeds of users and channels.";
    counter LIVE_MISSED_NOTIFICATIONS_TOTAL = "recents_live_missed_notifications_total",
        "Feeds with changes that only the poll found, because a notification was missing.";
    counter LIVE_EVENTS_TOTAL = "recents_live_events_total",
        "Events of conversationChanges, counted for each subscriber.";
    counter LIVE_CLOSED_TOTAL = "recents_live_closed_total",
        "Connections with subscriptions that the server closed, by reason.";
    gauge LIVE_REDIS_UP = "recents_live_redis_up",
        "1 if this server is subscribed to Redis, otherwise 0.";
    counter LIVE_REDIS_FAILURES_TOTAL = "recents_live_redis_failures_total",
        "Failures of the connection that is subscribed to Redis.";

    gauge LOG_LINES_DROPPED = "recents_log_lines_dropped",
        "Log lines that were dropped since the start.";
}

/// The old name of a metric, its new name, and the old and new names of its labels.
type RenamedMetric = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// The samples are exported under the old names, too, for one release after the metric is renamed.
const RENAMED_METRICS: &[RenamedMetric] = &[
    ("recents_http_seconds", HTTP_REQUEST_DURATION_SECONDS, &[]),
    (
        "recents_http_shed_total",
        REQUESTS_REJECTED_TOTAL,
        &[("limit", "reason")],
    ),
    ("recents_sql_seconds", DB_QUERY_DURATION_SECONDS, &[]),
    ("recents_shared_transaction_requests", BATCH_SIZE, &[]),
    ("recents_cache_total", MESSAGE_CACHE_LOOKUPS_TOTAL, &[]),
    ("recents_live_wakes_total", LIVE_NOTIFICATIONS_TOTAL, &[]),
    (
        "recents_live_polled_total",
        LIVE_MISSED_NOTIFICATIONS_TOTAL,
        &[],
    ),
];

/// Returns the samples of renamed metrics under their old names. `text` has all metrics in
/// Prometheus' text format.
pub(crate) fn render_old_names(text: &str) -> String {
    let mut copies = String::new();
    for (old, new, labels) in RENAMED_METRICS {
        let type_line = format!("# TYPE {new} ");
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix(&type_line) {
                copies += &format!("# HELP {old} Renamed to {new}.\n# TYPE {old} {kind}\n");
            } else if let Some(sample) = line.strip_prefix(new).filter(|rest| is_sample(rest)) {
                let mut sample = sample.to_owned();
                for (old_label, new_label) in *labels {
                    sample = sample.replace(&format!("{new_label}=\""), &format!("{old_label}=\""));
                }
                copies += &format!("{old}{sample}\n");
            }
        }
    }
    copies
}

/// Returns whether this, after the name of a metric, completes a sample of that metric.
fn is_sample(rest: &str) -> bool {
    ["", "_bucket", "_sum", "_count"].iter().any(|suffix| {
        rest.strip_prefix(suffix)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn rust_files(folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(rust_files(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
        files
    }

    #[test]
    fn renamed_metrics_keep_their_old_names() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new()
            .set_buckets(&[0.5])
            .unwrap()
            .build_recorder();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, || {
            describe();
            ::metrics::histogram!(super::HTTP_REQUEST_DURATION_SECONDS, "route" => "/x")
                .record(0.25);
            ::metrics::counter!(super::REQUESTS_REJECTED_TOTAL, "reason" => "memory", "by" => "user")
                .increment(2);
            ::metrics::counter!(super::HTTP_REQUESTS_TOTAL).increment(1);
        });
        let old_names = render_old_names(&handle.render());
        assert_eq!(
            old_names.lines().collect::<Vec<_>>(),
            [
                "# HELP recents_http_seconds Renamed to recents_http_request_duration_seconds.",
                "# TYPE recents_http_seconds histogram",
                "recents_http_seconds_bucket{route=\"/x\",le=\"0.5\"} 1",
                "recents_http_seconds_bucket{route=\"/x\",le=\"+Inf\"} 1",
                "recents_http_seconds_sum{route=\"/x\"} 0.25",
                "recents_http_seconds_count{route=\"/x\"} 1",
                "# HELP recents_http_shed_total Renamed to recents_requests_rejected_total.",
                "# TYPE recents_http_shed_total counter",
                "recents_http_shed_total{limit=\"memory\",by=\"user\"} 2",
            ]
        );
    }

    #[test]
    fn the_documents_list_every_renamed_metric() {
        let document = include_str!("../docs/RELEASING.md");
        for (old, new, _) in RENAMED_METRICS {
            let row = format!("| `{old}` | `{new}` |");
            assert!(document.contains(&row), "docs/RELEASING.md lacks {row}");
            assert!(ALL.iter().all(|(_, name, _)| name != old), "{old}");
        }
    }

    #[test]
    fn every_metric_in_use_has_a_help_text_and_every_help_text_a_use() {
        let mut used = BTreeSet::new();
        for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            for kind in ["counter", "gauge", "histogram"] {
                let call = format!("metrics::{kind}!(");
                for (position, _) in text.match_indices(&call) {
                    let argument = text[position + call.len()..].trim_start();
                    let end = argument.find([',', ')']).unwrap();
                    used.insert((file.clone(), kind, argument[..end].trim().to_owned()));
                }
            }
        }
        // The example in the module comment above is a use, too.
        assert!(used.len() > 30, "{used:?}");
        let mut unused: BTreeSet<&str> = ALL.iter().map(|(_, name, _)| *name).collect();
        for (file, kind, argument) in used {
            let is_named = |name: &str| {
                let constant = name.trim_start_matches("recents_").to_uppercase();
                argument == format!("\"{name}\"") || argument.ends_with(&format!("::{constant}"))
            };
            let known = ALL.iter().find(|(_, name, _)| is_named(name));
            let (known_kind, name, _) =
                known.unwrap_or_else(|| panic!("{}: {argument} has no help text", file.display()));
            assert_eq!(*known_kind, kind, "{}: {name}", file.display());
            unused.remove(name);
        }
        assert!(unused.is_empty(), "nothing uses {unused:?}");
    }

    #[test]
    fn the_operators_manual_has_every_metric() {
        let manual = include_str!("../docs/OPERATION.md");
        for (kind, name, help) in ALL {
            let row = format!("| `{name}` | {kind} | {help} |\n");
            assert!(manual.contains(&row), "docs/OPERATION.md lacks {row}");
        }
        for line in manual
            .lines()
            .filter_map(|line| line.strip_prefix("| `recents_"))
        {
            let name = line.split('`').next().unwrap();
            let is_graphqls = name.starts_with("graphql_");
            assert!(
                is_graphqls || ALL.iter().any(|(_, known, _)| known.ends_with(name)),
                "docs/OPERATION.md has {name}, which does not exist"
            );
        }
    }
}
