//! `[database]`

use serde::{Deserialize, Serialize};

use super::check::{DAY_SECONDS, check_ranges};
use super::{ConfigError, Url};

/// Maximum of `database.max_connections`. The pool allocates room for all connections at its start.
const MAX_DATABASE_CONNECTIONS: u64 = 10_000;

/// `[database]`: the database and its connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseConfig {
    /// `sqlite://FILE?mode=rwc`, `postgres://USER:PASSWORD@HOST/NAME` or
    /// `mysql://USER:PASSWORD@HOST/NAME.`
    pub url: Url,
    /// File that contains the URL instead.
    pub url_file: String,
    /// Maximum number of connections. With SQLite, one connection writes and the others read.
    pub max_connections: u32,
    /// How long the server waits at its start for a database that cannot be reached. 0 ends it at
    /// once, with the reason.
    pub startup_timeout_seconds: u64,
    /// How long a request waits for a free connection.
    pub acquire_timeout_seconds: u64,
    /// Time limit of one statement, and of waiting for one lock. Never longer than
    /// `limits.request_timeout_seconds`.
    pub statement_timeout_seconds: u64,
    /// Lets `serve` apply missing migrations at its start. Otherwise it refuses to start without
    /// them.
    pub migrate: bool,
    /// PostgreSQL only: whether connections go through `PgBouncer` (or the like) in transaction
    /// mode. Nothing is kept on connections then, and reads cost two more round trips.
    pub transaction_pooler: bool,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: "sqlite://recents.db?mode=rwc".into(),
            url_file: String::new(),
            max_connections: 10,
            startup_timeout_seconds: 0,
            acquire_timeout_seconds: 5,
            statement_timeout_seconds: 10,
            migrate: true,
            transaction_pooler: false,
        }
    }
}

impl DatabaseConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges(
            "database",
            &[
                (
                    "max_connections",
                    u64::from(self.max_connections),
                    2..=MAX_DATABASE_CONNECTIONS,
                ),
                (
                    "startup_timeout_seconds",
                    self.startup_timeout_seconds,
                    0..=DAY_SECONDS,
                ),
                (
                    "acquire_timeout_seconds",
                    self.acquire_timeout_seconds,
                    1..=DAY_SECONDS,
                ),
                (
                    "statement_timeout_seconds",
                    self.statement_timeout_seconds,
                    1..=DAY_SECONDS,
                ),
            ],
        )?;
        let url = self.url.reveal();
        if self.transaction_pooler && !url.starts_with("postgres") {
            return Err(ConfigError(
                "database.transaction_pooler is for PostgreSQL only".to_owned(),
            ));
        }
        if !["sqlite:", "postgres:", "postgresql:", "mysql:", "mariadb:"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(ConfigError(
                "database.url must begin with sqlite:, postgres: or mysql:".to_owned(),
            ));
        }
        Ok(())
    }
}
