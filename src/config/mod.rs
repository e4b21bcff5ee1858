//! The configuration: defaults → file → environment (`RECENTS__SECTION__KEY`) → flags.
//!
//! How to add a key: a documented field with its default in the file of its section, the same text
//! in `recents.toml` (a test compares the two), and a check in the section's `check` if not every
//! value makes sense.

mod auth;
mod cache;
mod check;
mod conversation;
mod database;
mod graphql;
mod ingest;
mod limits;
mod live;
mod log;
mod proxy;
mod renamed;
mod secret;
mod server;
mod source;

use std::path::Path;

use ::config::Environment;
use serde::{Deserialize, Serialize};

pub use self::auth::{AuthConfig, JwtConfig};
pub use self::cache::CacheConfig;
pub use self::conversation::ConversationConfig;
pub use self::database::DatabaseConfig;
pub use self::graphql::GraphqlConfig;
pub use self::ingest::{IngestConfig, WukongimVersion};
pub use self::limits::Limits;
pub use self::live::LiveConfig;
pub use self::log::{LogConfig, LogFormat};
pub use self::proxy::ProxyConfig;
pub use self::secret::{Secret, Url};
pub use self::server::ServerConfig;
pub use self::source::misspelled_variables;

/// The file that is read if it is in the working directory and no other file is named.
pub const DEFAULT_FILE: &str = "recents.toml";
/// The prefix of environment variables.
const ENVIRONMENT_PREFIX: &str = "RECENTS";

/// All settings, one field for each section of `recents.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each section documents itself")]
pub struct Settings {
    pub server: ServerConfig,
    pub database: DatabaseConfig,
    pub conversation: ConversationConfig,
    pub ingest: IngestConfig,
    pub proxy: ProxyConfig,
    pub auth: AuthConfig,
    pub live: LiveConfig,
    pub limits: Limits,
    pub graphql: GraphqlConfig,
    pub cache: CacheConfig,
    pub log: LogConfig,
    /// Warnings about keys that have old names in the file or the environment.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// An error in the configuration. The text names the key and its source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Settings {
    /// Reads the file and the environment. If no file is named, reads `recents.toml` in the working
    /// directory, if it exists.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, an invalid value.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_from(file, Environment::with_prefix(ENVIRONMENT_PREFIX))
    }

    /// Renders the settings as TOML, with secrets redacted.
    ///
    /// # Errors
    /// Never in practice: every value has a TOML form.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError(error.to_string()))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.server.check()?;
        self.database.check()?;
        self.ingest.check()?;
        self.ingest.check_forwarding(&self.server.listen)?;
        self.proxy.check(&self.server)?;
        self.auth.check()?;
        self.live.check()?;
        self.limits.check()?;
        self.graphql.check()?;
        self.cache.check()?;
        self.log.check()
    }
}

/// Parses an address, or a range of addresses like `10.0.0.0/8`.
pub(crate) fn address_range(text: &str) -> Option<ipnet::IpNet> {
    text.parse()
        .ok()
        .or_else(|| Some(text.parse::<std::net::IpAddr>().ok()?.into()))
}

#[cfg(test)]
mod tests;
