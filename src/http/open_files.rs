//! The system's limit on open files, which limits connections too: every connection is a file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Settings;

/// Files beside connections: the log, Redis, requests to other servers.
const OTHER_FILES: u64 = 64;
/// For each connection, SQLite opens its file, its log, and an index of the log.
const FILES_PER_DATABASE_CONNECTION: u64 = 3;

/// Raises the limit as far as the system allows it, and lowers `limits.open_connections` if the
/// limit is still too low.
pub(crate) fn limit_connections(settings: &mut Settings) {
    let proxied = if settings.proxy.is_on() {
        settings.proxy.max_connections as u64
    } else {
        0
    };
    let other_files = OTHER_FILES
        + FILES_PER_DATABASE_CONNECTION * u64::from(settings.database.max_connections)
        + proxied;
    let wanted = settings.limits.open_connections as u64 + other_files;
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    );
    let mut allowed = soft;
    if soft < wanted {
        let raised = Rlimit {
            current: Some(wanted.min(hard)),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => allowed = wanted.min(hard),
            Err(error) => {
                tracing::warn!(error = %error, soft, "the limit on open files cannot be raised")
            }
        }
    }
    let connections = connections_within(allowed, other_files);
    if connections < settings.limits.open_connections {
        tracing::warn!(
            "the system allows {allowed} open files (ulimit -n): limits.open_connections is \
             lowered from {} to {connections}",
            settings.limits.open_connections
        );
        settings.limits.open_connections = connections;
    }
}

/// Returns how many connections fit. At least half of the files are for connections.
fn connections_within(files: u64, other_files: u64) -> usize {
    usize::try_from(files.saturating_sub(other_files).max(files / 2).max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_left_for_the_database_and_the_log() {
        assert_eq!(connections_within(1024, 94), 930);
        assert_eq!(connections_within(100, 94), 50);
        assert_eq!(connections_within(u64::MAX, 94), (u64::MAX - 94) as usize);
    }
}
