//! The configuration: defaults → file → environment (`RECENTS__SECTION__KEY`) → flags.
//!
//! How to add a key: a field with its default below, a line in `recents.toml` (a test compares the
//! two), and, where not every value makes sense, a check in `Settings::check`.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use ::config::{Config, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use serde::{Deserialize, Serialize};

/// The file that is read when it lies in the working directory and no other is named.
pub const DEFAULT_FILE: &str = "recents.toml";
const ENVIRONMENT: &str = "RECENTS";
/// No time limit is longer than a day.
const DAY_SECONDS: u64 = 86_400;
/// More requests at once than any machine answers.
const MOST_REQUESTS: u64 = 1_000_000;
/// Room for all of them is made at the start.
const MOST_CONNECTIONS: u64 = 10_000;
/// Each operation of a batch may cost as much as one alone.
const MOST_OPERATIONS: u64 = 100;
/// With less no large body can be read.
const LEAST_MEMORY: u64 = 16 << 20;
/// async-graphql goes no deeper.
const DEEPEST_DOCUMENT: u64 = 32;
/// More of anything than a machine has room for: a TiB when it is bytes.
const MOST: u64 = 1 << 40;

/// A text that never shows.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for comparing with what a caller gave.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "***" })
    }
}

/// Everything that can be configured. `recents.toml` says what each key means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Settings {
    pub server: Server,
    pub database: Database,
    pub conversation: Conversation,
    pub ingest: Ingest,
    pub auth: Auth,
    pub live: Live,
    pub limits: Limits,
    pub graphql: Graphql,
    pub cache: Cache,
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Server {
    pub listen: String,
    pub shutdown_seconds: u64,
    #[serde(deserialize_with = "list")]
    pub cors_origins: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub trusted_proxies: Vec<String>,
}

/// A list, or a text with commas between its parts, as the environment can have it.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::List(list) => list,
        Given::Text(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

/// `[database]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Database {
    pub url: Url,
    pub url_file: String,
    pub max_connections: u32,
    pub wait_seconds: u64,
    pub acquire_seconds: u64,
    pub statement_seconds: u64,
    pub migrate: bool,
    pub transaction_pooler: bool,
}

/// Where a server is, ours to connect to; its password never shows.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Url(String);

impl Url {
    /// With the password.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Without what may be secret.
    #[must_use]
    pub fn redacted(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return "***".to_owned();
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The last @ ends the credentials: a password may contain one, and a / too, although it
        // should not.
        let shown = match rest.rfind('@') {
            Some(at) => {
                let user = rest[..at].split(':').next().unwrap_or_default();
                format!("{scheme}://{user}:***{}", &rest[at..])
            }
            None => format!("{scheme}://{rest}"),
        };
        // Of the options only what is known to be harmless: a password may stand there too.
        let options = query.split('&').filter(|option| !option.is_empty());
        let options: Vec<String> = options
            .map(|option| match option.split_once('=') {
                Some((
                    "mode" | "sslmode" | "ssl-mode" | "user" | "host" | "port" | "dbname",
                    _,
                )) => option.to_owned(),
                Some((name, _)) => format!("{name}=***"),
                None => "***".to_owned(),
            })
            .collect();
        if options.is_empty() {
            shown
        } else {
            format!("{shown}?{}", options.join("&"))
        }
    }
}

impl From<&str> for Url {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for Url {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

/// `[conversation]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Conversation {
    pub on: bool,
}

/// `[ingest]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Ingest {
    pub wukongim: WukongimVersion,
    pub webhook_secret: Secret,
    pub webhook_secret_file: String,
    pub previous_webhook_secret: Secret,
    pub datasource_url: Url,
    pub grpc_listen: String,
    #[serde(deserialize_with = "list")]
    pub grpc_peers: Vec<String>,
}

/// Which `WuKongIM` sends us its webhooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WukongimVersion {
    /// v1.2
    #[serde(rename = "v1")]
    V1,
    /// v2.2
    #[default]
    #[serde(rename = "v2")]
    V2,
    /// v3: no red dots, stored pairs as the id of person channels
    #[serde(rename = "v3")]
    V3,
}

/// `[auth]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Auth {
    pub manager_token: Secret,
    pub manager_token_file: String,
    pub previous_manager_token: Secret,
    pub users_may_send: bool,
    pub jwt: Jwt,
}

impl Auth {
    /// Whether nothing is configured: then everybody may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.manager_token.reveal().is_empty() && !self.jwt.is_configured()
    }
}

/// `[auth.jwt]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Jwt {
    pub secret: Secret,
    pub secret_file: String,
    pub previous_secret: Secret,
    pub public_key_file: String,
    pub jwks_url: Url,
    pub issuer: String,
    pub audience: String,
    pub leeway_seconds: u64,
}

impl Jwt {
    /// Whether there is any key to check a token with.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.secret.reveal().is_empty()
            || !self.public_key_file.is_empty()
            || !self.jwks_url.reveal().is_empty()
    }
}

/// `[live]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Live {
    pub redis_url: Url,
    pub redis_url_file: String,
    pub redis_channel: String,
    pub poll_seconds: u64,
    pub coalesce_milliseconds: u64,
    pub init_seconds: u64,
    pub ping_seconds: u64,
    pub send_seconds: u64,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Limits {
    pub body_bytes: usize,
    pub webhook_body_bytes: usize,
    pub payload_bytes: usize,
    pub answer_bytes: usize,
    pub msg_count: u32,
    pub last_msg_seqs: usize,
    pub page_size: u32,
    pub members: usize,
    pub read_ahead: u32,
    pub request_seconds: u64,
    pub requests: usize,
    pub user_requests: usize,
    pub memory_bytes: usize,
    pub open_connections: usize,
    pub address_connections: usize,
    pub header_seconds: u64,
    pub idle_seconds: u64,
    pub least_bytes_per_second: usize,
    pub user_requests_per_second: u32,
    pub address_requests_per_second: u32,
    pub connections: usize,
    pub user_connections: usize,
    pub subscriptions: usize,
    pub socket_message_bytes: usize,
    pub socket_messages_per_second: u32,
    pub document_bytes: usize,
    pub document_depth: usize,
    pub document_fields: usize,
    pub document_tokens: usize,
    pub document_complexity: usize,
    pub document_aliases: usize,
    pub document_directives: usize,
    pub document_root_fields: usize,
    pub document_variables: usize,
    pub batch_operations: usize,
}

/// `[graphql]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Graphql {
    pub introspection: bool,
    pub persisted_bytes: u64,
    pub manifest: String,
    pub slow_milliseconds: u64,
}

/// `[cache]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Cache {
    pub messages_bytes: u64,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:5001".to_owned(),
            shutdown_seconds: 10,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: "sqlite://recents.db?mode=rwc".into(),
            url_file: String::new(),
            max_connections: 10,
            wait_seconds: 0,
            acquire_seconds: 5,
            statement_seconds: 10,
            migrate: true,
            transaction_pooler: false,
        }
    }
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret: Secret::default(),
            secret_file: String::new(),
            previous_secret: Secret::default(),
            public_key_file: String::new(),
            jwks_url: Url::default(),
            issuer: String::new(),
            audience: String::new(),
            leeway_seconds: 30,
        }
    }
}

impl Default for Live {
    fn default() -> Self {
        Self {
            redis_url: Url::default(),
            redis_url_file: String::new(),
            redis_channel: "recents".to_owned(),
            poll_seconds: 5,
            coalesce_milliseconds: 10,
            init_seconds: 5,
            ping_seconds: 15,
            send_seconds: 10,
        }
    }
}

impl Limits {
    /// The seq up to which a user may read or delete a channel: messages that have not come yet, up
    /// to a limit.
    pub(crate) fn cap_read(&self, up_to: Option<i64>, last_seq: i64) -> Option<i64> {
        up_to.map(|up_to| up_to.min(last_seq.saturating_add(self.read_ahead.into())))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 4 << 20,
            webhook_body_bytes: 64 << 20,
            payload_bytes: 256 << 10,
            answer_bytes: 8 << 20,
            msg_count: 500,
            last_msg_seqs: 100_000,
            page_size: 1000,
            members: 100_000,
            read_ahead: 100_000,
            request_seconds: 30,
            requests: 1024,
            user_requests: 64,
            memory_bytes: 256 << 20,
            open_connections: 12_000,
            address_connections: 1024,
            header_seconds: 10,
            idle_seconds: 75,
            least_bytes_per_second: 500,
            user_requests_per_second: 100,
            address_requests_per_second: 1000,
            connections: 10_000,
            user_connections: 20,
            subscriptions: 50,
            socket_message_bytes: 256 << 10,
            socket_messages_per_second: 50,
            document_bytes: 64 << 10,
            document_depth: 20,
            document_fields: 1000,
            document_tokens: 10_000,
            document_complexity: 250_000,
            document_aliases: 100,
            document_directives: 100,
            document_root_fields: 100,
            document_variables: 100,
            batch_operations: 1,
        }
    }
}

impl Default for Graphql {
    fn default() -> Self {
        Self {
            introspection: true,
            persisted_bytes: 16 << 20,
            manifest: String::new(),
            slow_milliseconds: 1000,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            messages_bytes: 64 << 20,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// Why the configuration cannot be used; the text names the key and where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Settings {
    /// Reads the file (`recents.toml` of the working directory where none is named and it is there)
    /// and the environment.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a value that makes no sense.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_from(file, Environment::with_prefix(ENVIRONMENT))
    }

    fn load_from(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        let (path, required) = file.map_or((Path::new(DEFAULT_FILE), false), |path| (path, true));
        check_text(path)?;
        let file = File::from(path).format(FileFormat::Toml).required(required);
        let environment = environment.prefix_separator("__").separator("__");
        let known = known_keys(
            &serde_json::to_value(Self::default())
                .map_err(|error| ConfigError(error.to_string()))?,
        );
        for source in [&file as &dyn Source, &environment] {
            refuse_unknown(
                "",
                &source
                    .collect()
                    .map_err(|error| ConfigError(error.to_string()))?,
                &known,
            )?;
        }
        let config = Config::builder()
            .add_source(file)
            .add_source(environment)
            .build()
            .map_err(|error| ConfigError(error.to_string()))?;
        // Not every error of the values knows its key.
        let mut settings: Self = serde_path_to_error::deserialize(config).map_err(|error| {
            ConfigError(value_error(
                &error.path().to_string(),
                &error.inner().to_string(),
            ))
        })?;
        settings.read_secrets()?;
        settings.check()?;
        Ok(settings)
    }

    /// Secrets that stand in files of their own, as container platforms hand them out.
    fn read_secrets(&mut self) -> Result<(), ConfigError> {
        let default_url = Database::default().url;
        if !self.database.url_file.is_empty() && self.database.url == default_url {
            self.database.url = Url::default();
        }
        for (key, text, file) in [
            (
                "auth.manager_token",
                &mut self.auth.manager_token.0,
                &self.auth.manager_token_file,
            ),
            (
                "auth.jwt.secret",
                &mut self.auth.jwt.secret.0,
                &self.auth.jwt.secret_file,
            ),
            (
                "ingest.webhook_secret",
                &mut self.ingest.webhook_secret.0,
                &self.ingest.webhook_secret_file,
            ),
            (
                "database.url",
                &mut self.database.url.0,
                &self.database.url_file,
            ),
            (
                "live.redis_url",
                &mut self.live.redis_url.0,
                &self.live.redis_url_file,
            ),
        ] {
            if file.is_empty() {
                continue;
            }
            if !text.is_empty() {
                return Err(ConfigError(format!(
                    "{key} and {key}_file are both set: which one is it?"
                )));
            }
            let read = std::fs::read_to_string(file).map_err(|error| {
                ConfigError(format!("{key}_file = {file:?} cannot be read: {error}"))
            })?;
            read.trim_end_matches(['\n', '\r']).clone_into(text);
            if text.is_empty() {
                return Err(ConfigError(format!("{key}_file = {file:?} is empty")));
            }
        }
        Ok(())
    }

    /// As a file that could be read again, but for the secrets.
    ///
    /// # Errors
    /// Never in practice: every value has a TOML form.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError(error.to_string()))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let numbers = [
            (
                "server.shutdown_seconds",
                self.server.shutdown_seconds,
                1..=DAY_SECONDS,
            ),
            // SQLite: one writes, the others read.
            (
                "database.max_connections",
                u64::from(self.database.max_connections),
                2..=MOST_CONNECTIONS,
            ),
            (
                "database.wait_seconds",
                self.database.wait_seconds,
                0..=DAY_SECONDS,
            ),
            (
                "database.acquire_seconds",
                self.database.acquire_seconds,
                1..=DAY_SECONDS,
            ),
            (
                "database.statement_seconds",
                self.database.statement_seconds,
                1..=DAY_SECONDS,
            ),
            ("limits.body_bytes", self.limits.body_bytes as u64, 1..=MOST),
            (
                "limits.webhook_body_bytes",
                self.limits.webhook_body_bytes as u64,
                1..=MOST,
            ),
            (
                "limits.payload_bytes",
                self.limits.payload_bytes as u64,
                1..=MOST,
            ),
            (
                "limits.answer_bytes",
                self.limits.answer_bytes as u64,
                1..=MOST,
            ),
            (
                "limits.msg_count",
                u64::from(self.limits.msg_count),
                1..=MOST,
            ),
            (
                "limits.last_msg_seqs",
                self.limits.last_msg_seqs as u64,
                1..=MOST,
            ),
            (
                "limits.page_size",
                u64::from(self.limits.page_size),
                1..=MOST,
            ),
            ("limits.members", self.limits.members as u64, 1..=MOST),
            ("limits.read_ahead", self.limits.read_ahead.into(), 0..=MOST),
            (
                "limits.request_seconds",
                self.limits.request_seconds,
                1..=DAY_SECONDS,
            ),
            (
                "limits.requests",
                self.limits.requests as u64,
                1..=MOST_REQUESTS,
            ),
            (
                "limits.user_requests",
                self.limits.user_requests as u64,
                1..=MOST_REQUESTS,
            ),
            (
                "limits.memory_bytes",
                self.limits.memory_bytes as u64,
                LEAST_MEMORY..=MOST,
            ),
            (
                "limits.open_connections",
                self.limits.open_connections as u64,
                1..=MOST_REQUESTS,
            ),
            (
                "limits.address_connections",
                self.limits.address_connections as u64,
                1..=MOST_REQUESTS,
            ),
            (
                "limits.header_seconds",
                self.limits.header_seconds,
                1..=DAY_SECONDS,
            ),
            (
                "limits.idle_seconds",
                self.limits.idle_seconds,
                1..=DAY_SECONDS,
            ),
            (
                "limits.least_bytes_per_second",
                self.limits.least_bytes_per_second as u64,
                0..=MOST,
            ),
            (
                "limits.socket_messages_per_second",
                u64::from(self.limits.socket_messages_per_second),
                1..=MOST_REQUESTS,
            ),
            (
                "limits.user_requests_per_second",
                u64::from(self.limits.user_requests_per_second),
                0..=MOST_REQUESTS,
            ),
            (
                "limits.address_requests_per_second",
                u64::from(self.limits.address_requests_per_second),
                0..=MOST_REQUESTS,
            ),
            (
                "limits.connections",
                self.limits.connections as u64,
                0..=MOST_REQUESTS,
            ),
            (
                "limits.user_connections",
                self.limits.user_connections as u64,
                1..=MOST_REQUESTS,
            ),
            (
                "limits.subscriptions",
                self.limits.subscriptions as u64,
                1..=MOST_REQUESTS,
            ),
            (
                "limits.socket_message_bytes",
                self.limits.socket_message_bytes as u64,
                1..=MOST,
            ),
            ("live.poll_seconds", self.live.poll_seconds, 1..=DAY_SECONDS),
            (
                "live.coalesce_milliseconds",
                self.live.coalesce_milliseconds,
                0..=60_000,
            ),
            ("live.init_seconds", self.live.init_seconds, 1..=DAY_SECONDS),
            ("live.ping_seconds", self.live.ping_seconds, 1..=DAY_SECONDS),
            ("live.send_seconds", self.live.send_seconds, 1..=DAY_SECONDS),
            (
                "auth.jwt.leeway_seconds",
                self.auth.jwt.leeway_seconds,
                0..=DAY_SECONDS,
            ),
            (
                "limits.document_bytes",
                self.limits.document_bytes as u64,
                1..=MOST,
            ),
            (
                "limits.document_depth",
                self.limits.document_depth as u64,
                1..=DEEPEST_DOCUMENT,
            ),
            (
                "limits.document_fields",
                self.limits.document_fields as u64,
                1..=MOST,
            ),
            (
                "limits.document_tokens",
                self.limits.document_tokens as u64,
                1..=MOST,
            ),
            (
                "limits.document_complexity",
                self.limits.document_complexity as u64,
                1..=MOST,
            ),
            (
                "limits.document_aliases",
                self.limits.document_aliases as u64,
                0..=MOST,
            ),
            (
                "limits.document_directives",
                self.limits.document_directives as u64,
                0..=MOST,
            ),
            (
                "limits.document_root_fields",
                self.limits.document_root_fields as u64,
                1..=MOST,
            ),
            (
                "limits.document_variables",
                self.limits.document_variables as u64,
                0..=MOST,
            ),
            (
                "limits.batch_operations",
                self.limits.batch_operations as u64,
                1..=MOST_OPERATIONS,
            ),
            ("cache.messages_bytes", self.cache.messages_bytes, 0..=MOST),
            (
                "graphql.persisted_bytes",
                self.graphql.persisted_bytes,
                0..=MOST,
            ),
            (
                "graphql.slow_milliseconds",
                self.graphql.slow_milliseconds,
                0..=MOST,
            ),
        ];
        for (key, value, allowed) in numbers {
            if !allowed.contains(&value) {
                return Err(ConfigError(format!(
                    "{key} must be between {} and {}",
                    allowed.start(),
                    allowed.end()
                )));
            }
        }
        if self.database.transaction_pooler && !self.database.url.reveal().starts_with("postgres") {
            return Err(ConfigError(
                "database.transaction_pooler is for PostgreSQL only".to_owned(),
            ));
        }
        if !["sqlite:", "postgres:", "postgresql:", "mysql:", "mariadb:"]
            .iter()
            .any(|scheme| self.database.url.reveal().starts_with(scheme))
        {
            return Err(ConfigError(
                "database.url must begin with sqlite:, postgres: or mysql:".to_owned(),
            ));
        }
        for (key, secret) in [
            ("ingest.webhook_secret", &self.ingest.webhook_secret),
            (
                "ingest.previous_webhook_secret",
                &self.ingest.previous_webhook_secret,
            ),
        ] {
            if !secret
                .reveal()
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c))
            {
                return Err(ConfigError(format!(
                    "{key} is a part of a path and may contain only letters, digits, and - _ . ~"
                )));
            }
        }
        for (key, token) in [
            ("auth.manager_token", &self.auth.manager_token),
            (
                "auth.previous_manager_token",
                &self.auth.previous_manager_token,
            ),
        ] {
            if !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ConfigError(format!(
                    "{key} is sent in a header and may contain only ASCII without spaces"
                )));
            }
        }
        for (previous, current) in [
            (
                (
                    "auth.previous_manager_token",
                    &self.auth.previous_manager_token,
                ),
                &self.auth.manager_token,
            ),
            (
                ("auth.jwt.previous_secret", &self.auth.jwt.previous_secret),
                &self.auth.jwt.secret,
            ),
            (
                (
                    "ingest.previous_webhook_secret",
                    &self.ingest.previous_webhook_secret,
                ),
                &self.ingest.webhook_secret,
            ),
        ] {
            if !previous.1.reveal().is_empty() && current.reveal().is_empty() {
                return Err(ConfigError(format!(
                    "{} is set, but there is no present one beside it",
                    previous.0
                )));
            }
        }
        self.check_jwt()?;
        check_url("ingest.datasource_url", self.ingest.datasource_url.reveal())?;
        check_log_level(&self.log.level)?;
        for (key, ranges) in [
            ("server.trusted_proxies", &self.server.trusted_proxies),
            ("ingest.grpc_peers", &self.ingest.grpc_peers),
        ] {
            for range in ranges {
                if address_range(range).is_none() {
                    return Err(ConfigError(format!(
                        "{key}: {range:?} is neither an address nor a range like 10.0.0.0/8"
                    )));
                }
            }
        }
        for origin in &self.server.cors_origins {
            // A browser sends one spelling only.
            let sent = reqwest::Url::parse(origin)
                .ok()
                .filter(|url| ["http", "https"].contains(&url.scheme()));
            let sent = sent
                .map(|url| url.origin().ascii_serialization())
                .filter(|_| !origin.contains('*'));
            match sent {
                Some(sent) if sent == *origin => {}
                Some(sent) => {
                    return Err(ConfigError(format!(
                        "server.cors_origins: a browser never sends {origin:?}; did you mean {sent}?"
                    )));
                }
                None => {
                    return Err(ConfigError(format!(
                        "server.cors_origins: {origin:?} is no origin like https://chat.example.com"
                    )));
                }
            }
        }
        let redis = self.live.redis_url.reveal();
        if !redis.is_empty() && redis::IntoConnectionInfo::into_connection_info(redis).is_err() {
            return Err(ConfigError(
                "live.redis_url must be like redis://… or rediss://…".to_owned(),
            ));
        }
        if self.live.redis_channel.is_empty() {
            return Err(ConfigError(
                "live.redis_channel must not be empty".to_owned(),
            ));
        }
        Ok(())
    }

    fn check_jwt(&self) -> Result<(), ConfigError> {
        let jwt = &self.auth.jwt;
        check_url("auth.jwt.jwks_url", jwt.jwks_url.reveal())?;
        if !jwt.is_configured() && (!jwt.issuer.is_empty() || !jwt.audience.is_empty()) {
            return Err(ConfigError(
                "auth.jwt.issuer and auth.jwt.audience mean nothing without auth.jwt.secret, public_key_file or jwks_url"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// The problem of a value, which stays out of it where it may be secret.
fn value_error(key: &str, problem: &str) -> String {
    let secrets = [
        "manager_token",
        "secret",
        "webhook_secret",
        "url",
        "redis_url",
        "datasource_url",
        "jwks_url",
    ];
    let name = key.rsplit('.').next().unwrap_or_default();
    let is_secret = secrets.contains(&name.strip_prefix("previous_").unwrap_or(name));
    if is_secret {
        format!("{key} must be a text")
    } else {
        format!("{key}: {problem}")
    }
}

/// That the file, if it is there, is TOML; the error says where it is not. By itself `config`
/// replaces what is no UTF-8, and names no line for numbers that are too large.
fn check_text(path: &Path) -> Result<(), ConfigError> {
    let name = path.display();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ConfigError(format!("{name} cannot be read: {error}"))),
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let at = error.valid_up_to();
        let line = bytes[..at].split(|byte| *byte == b'\n').count();
        ConfigError(format!(
            "{name} is not UTF-8 at line {line}, byte {at} of the file"
        ))
    })?;
    text.parse::<toml::Table>().map_err(|error| {
        // Without the line itself, which may hold a secret.
        let place = error.span().map_or_else(String::new, |span| {
            let before = &text[..span.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            format!(
                " at line {line}, column {}",
                before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1
            )
        });
        ConfigError(format!("{name} is no TOML{place}: {}", error.message()))
    })?;
    Ok(())
}

/// Levels, or filters like `info,sqlx=debug`. `EnvFilter` takes any other word for the name of a
/// module, and shows nothing else.
fn check_log_level(given: &str) -> Result<(), ConfigError> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for part in given.split(',') {
        let level = part.rsplit('=').next().unwrap_or_default().trim();
        if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            let nearest = LEVELS
                .iter()
                .min_by_key(|known| strsim::levenshtein(known, level))
                .copied()
                .unwrap_or_default();
            return Err(ConfigError(format!(
                "log.level must be error, warn, info, debug or trace, or filters like info,sqlx=debug; {level:?} is none: did you mean \
                 {nearest}?"
            )));
        }
    }
    Ok(())
}

/// Warnings about variables of the environment that look like ours and are none.
#[must_use]
pub fn misspelled_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    /// Our own, and those that Kubernetes sets for a service of our name.
    const OTHERS: [&str; 5] = [
        "RECENTS__",
        "RECENTS_IMPORT_",
        "RECENTS_TEST_",
        "RECENTS_SERVICE_",
        "RECENTS_PORT",
    ];
    let known = serde_json::to_value(Settings::default())
        .map(|all| known_keys(&all))
        .unwrap_or_default();
    let ours = names.filter(|name| {
        name.to_ascii_uppercase().starts_with("RECENTS_")
            && !OTHERS.iter().any(|other| name.starts_with(other))
    });
    ours.map(|name| {
        let given = name["RECENTS_".len()..].to_ascii_lowercase();
        let distance = |key: &&String| strsim::levenshtein(&key.replace('.', "_"), given.trim_start_matches('_'));
        let nearest =
            known.iter().min_by_key(distance).map_or_else(String::new, |key| key.replace('.', "__").to_ascii_uppercase());
        format!("the variable {name} means nothing: keys are separated by two underscores; did you mean RECENTS__{nearest}?")
    })
    .collect()
}

/// An address, or a range of them like `10.0.0.0/8`.
pub(crate) fn address_range(text: &str) -> Option<ipnet::IpNet> {
    text.parse()
        .ok()
        .or_else(|| Some(text.parse::<std::net::IpAddr>().ok()?.into()))
}

/// One that we ask, or nothing.
fn check_url(key: &str, url: &str) -> Result<(), ConfigError> {
    match reqwest::Url::parse(url) {
        _ if url.is_empty() => Ok(()),
        Ok(parsed) if ["http", "https"].contains(&parsed.scheme()) => Ok(()),
        Ok(_) => Err(ConfigError(format!(
            "{key} must begin with https:// or http://"
        ))),
        Err(_) => Err(ConfigError(format!("{key} must be a URL"))),
    }
}

/// What a source gives is tables of keys in a file, and `section.key` in the environment. It is
/// looked at before it is put together with others: there a name is a path, and `server[9]` is an
/// array of ten.
fn refuse_unknown(
    section: &str,
    given: &Map<String, Value>,
    known: &[String],
) -> Result<(), ConfigError> {
    for (name, value) in given {
        let source = value.origin().unwrap_or("the configuration");
        let key = if section.is_empty() {
            name.clone()
        } else {
            format!("{section}.{name}")
        };
        let is_section = known.iter().any(|known| {
            known
                .strip_prefix(&key)
                .is_some_and(|rest| rest.starts_with('.'))
        });
        let key = match &value.kind {
            ValueKind::Table(table) if is_section => {
                refuse_unknown(&key, table, known)?;
                continue;
            }
            _ if is_section => {
                return Err(ConfigError(format!(
                    "{key} in {source} is a section, not a key"
                )));
            }
            // A whole unknown section: its first key.
            ValueKind::Table(table) => table
                .keys()
                .next()
                .map_or_else(|| key.clone(), |first| format!("{key}.{first}")),
            _ => key,
        };
        if !known.contains(&key) {
            let nearest = known
                .iter()
                .min_by_key(|candidate| strsim::levenshtein(candidate, &key))
                .map_or("", String::as_str);
            return Err(ConfigError(format!(
                "unknown key {key} in {source}; did you mean {nearest}?"
            )));
        }
    }
    Ok(())
}

/// Every key with its sections before it, as in `auth.jwt.secret`.
fn known_keys(all: &serde_json::Value) -> Vec<String> {
    let Some(keys) = all.as_object() else {
        return Vec::new();
    };
    let below = |name: &String, value: &serde_json::Value| match value {
        serde_json::Value::Object(_) => known_keys(value)
            .into_iter()
            .map(|key| format!("{name}.{key}"))
            .collect(),
        _ => vec![name.clone()],
    };
    keys.iter()
        .flat_map(|(name, value)| below(name, value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("given.toml");
        std::fs::write(&path, file).unwrap();
        let variables = environment
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Settings::load_from(
            Some(&path),
            Environment::with_prefix(ENVIRONMENT).source(Some(variables)),
        )
    }

    #[test]
    fn the_shipped_file_says_every_key_with_its_default_and_switches_conversations_on() {
        let shipped = include_str!("../recents.toml");
        let mut expected = Settings::default();
        expected.conversation.on = true;
        assert_eq!(load(shipped, &[]).unwrap(), expected);
        let keys: toml::Table = shipped.parse().unwrap();
        let all = known_keys(&serde_json::to_value(Settings::default()).unwrap());
        for key in &all {
            let mut found = Some(&toml::Value::Table(keys.clone())).cloned();
            for name in key.split('.') {
                found = found.and_then(|table| table.get(name).cloned());
            }
            assert!(found.is_some(), "recents.toml lacks {key}");
        }
    }

    #[test]
    fn the_environment_is_above_the_file() {
        let settings = load(
            "[server]\nlisten = '127.0.0.1:1'\n[limits]\nmsg_count = 7",
            &[
                ("RECENTS__SERVER__LISTEN", "127.0.0.1:2"),
                ("RECENTS__CONVERSATION__ON", "true"),
                ("RECENTS__AUTH__MANAGER_TOKEN", "123"),
            ],
        )
        .unwrap();
        assert_eq!(settings.server.listen, "127.0.0.1:2");
        assert_eq!(settings.limits.msg_count, 7);
        assert!(settings.conversation.on);
        assert_eq!(settings.auth.manager_token.reveal(), "123");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one_and_their_source() {
        let error = load("[server]\nlisen = 'x'", &[]).unwrap_err().to_string();
        assert!(
            error.contains("server.lisen")
                && error.contains("given.toml")
                && error.contains("server.listen?"),
            "{error}"
        );
        let error = load("", &[("RECENTS__DATABSE__URL", "x")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("databse.url")
                && error.contains("environment")
                && error.contains("database.url?"),
            "{error}"
        );
        let error = load("listen = 1", &[]).unwrap_err().to_string();
        assert!(error.contains("unknown key listen"), "{error}");
    }

    #[test]
    fn a_key_is_no_path_that_is_walked() {
        for file in [
            "'server[9223372036854775807]' = 1",
            "'server[-9223372036854775808].x' = 1",
            "'' = 1",
            "[nope]",
            "a.b.c.d = 1",
        ] {
            let error = load(file, &[]).unwrap_err().to_string();
            assert!(
                error.starts_with("unknown key ") && error.contains("given.toml"),
                "{file}: {error}"
            );
        }
        let deep = format!("RECENTS__{}X", "X__".repeat(1000));
        for name in [
            deep.as_str(),
            "RECENTS__SERVER[9223372036854775807]",
            "RECENTS__SERVER__LISTEN__X",
            "RECENTS__",
        ] {
            let error = load("", &[(name, "1")]).unwrap_err().to_string();
            assert!(
                error.starts_with("unknown key ") && error.contains("the environment"),
                "{name}: {error}"
            );
        }
        let error = load("", &[("RECENTS__SERVER", "1")])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "server in the environment is a section, not a key");
    }

    #[test]
    fn what_is_no_toml_is_named_with_its_line() {
        for file in [
            "[limits]\nmsg_count = 9223372036854775808",
            "[limits]\nmsg_count = 1e400",
            "[limits]\nmsg_count =",
        ] {
            let error = load(file, &[]).unwrap_err().to_string();
            assert!(error.contains("given.toml is no TOML at line 2"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("given.toml");
        std::fs::write(&path, b"[log]\nlevel = '\xff'").unwrap();
        let error = Settings::load(Some(&path)).unwrap_err().to_string();
        assert!(
            error.ends_with("given.toml is not UTF-8 at line 2, byte 15 of the file"),
            "{error}"
        );
    }

    #[test]
    fn wrong_values_name_the_key_and_where_it_came_from() {
        let error = load("[limits]\nmsg_count = 'many'", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("limits.msg_count") && error.contains("given.toml"),
            "{error}"
        );
        let error = load("", &[("RECENTS__DATABASE__MAX_CONNECTIONS", "lots")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("database.max_connections") && error.contains("environment"),
            "{error}"
        );
        let error = load("[ingest]\nwukongim = 'v4'", &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("ingest.wukongim"), "{error}");
        for (file, key) in [
            (
                "[database]\nmax_connections = 0",
                "database.max_connections",
            ),
            (
                "[database]\nacquire_seconds = 86401",
                "database.acquire_seconds",
            ),
            ("[database]\nwait_seconds = 86401", "database.wait_seconds"),
            (
                "[limits]\nrequest_seconds = 9223372036854775807",
                "limits.request_seconds",
            ),
            ("[limits]\nrequests = 1000001", "limits.requests"),
            (
                "[database]\nmax_connections = 10001",
                "database.max_connections",
            ),
            ("[limits]\nbody_bytes = 1e19", "limits.body_bytes"),
            ("[limits]\nmembers = inf", "limits.members"),
            (
                "[limits]\nlast_msg_seqs = '18446744073709551615'",
                "limits.last_msg_seqs",
            ),
            ("[limits]\ndocument_depth = 33", "limits.document_depth"),
            (
                "[limits]\nbatch_operations = 101",
                "limits.batch_operations",
            ),
            ("[limits]\ndocument_tokens = 0", "limits.document_tokens"),
            (
                "[graphql]\nintrospection = 'perhaps'",
                "graphql.introspection",
            ),
            ("limits = [1]", "limits in"),
            (
                "[database]\ntransaction_pooler = true",
                "database.transaction_pooler",
            ),
            ("[database]\nurl = 'oracle://x'", "database.url"),
            ("[ingest]\nwebhook_secret = 'a/b'", "ingest.webhook_secret"),
        ] {
            let error = load(file, &[]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn secrets_may_stand_in_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (token, empty) = (file("token", "hush\n"), file("empty", "\n"));
        let settings = load(
            "[auth.jwt]\nsecret_file = 'SECRET'"
                .replace("SECRET", &token)
                .as_str(),
            &[
                ("RECENTS__AUTH__MANAGER_TOKEN_FILE", &token),
                ("RECENTS__INGEST__WEBHOOK_SECRET_FILE", &token),
                (
                    "RECENTS__DATABASE__URL_FILE",
                    &file("url", "postgres://me:pass@host/db\r\n"),
                ),
                (
                    "RECENTS__LIVE__REDIS_URL_FILE",
                    &file("redis", "redis://:pass@host"),
                ),
            ],
        )
        .unwrap();
        assert_eq!(settings.auth.manager_token.reveal(), "hush");
        assert_eq!(settings.auth.jwt.secret.reveal(), "hush");
        assert_eq!(settings.ingest.webhook_secret.reveal(), "hush");
        assert_eq!(settings.database.url.reveal(), "postgres://me:pass@host/db");
        assert_eq!(settings.live.redis_url.reveal(), "redis://:pass@host");
        let shown = settings.to_toml().unwrap();
        assert!(
            !shown.contains("hush") && !shown.contains("pass"),
            "{shown}"
        );
        for (environment, text) in [
            (
                vec![("RECENTS__AUTH__MANAGER_TOKEN_FILE", "/nowhere/at/all")],
                "auth.manager_token_file = \"/nowhere/at/all\" cannot be read",
            ),
            (
                vec![("RECENTS__AUTH__MANAGER_TOKEN_FILE", empty.as_str())],
                "is empty",
            ),
            (
                vec![
                    ("RECENTS__AUTH__MANAGER_TOKEN_FILE", token.as_str()),
                    ("RECENTS__AUTH__MANAGER_TOKEN", "x"),
                ],
                "auth.manager_token and auth.manager_token_file are both set",
            ),
        ] {
            let error = load("", &environment).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn lists_come_from_files_and_from_the_environment() {
        let expected = ["https://a.example.com", "http://localhost:3000"];
        let in_file = load(
            "[server]\ncors_origins = ['https://a.example.com', 'http://localhost:3000']",
            &[],
        )
        .unwrap();
        let in_environment = load(
            "",
            &[(
                "RECENTS__SERVER__CORS_ORIGINS",
                "https://a.example.com, http://localhost:3000",
            )],
        )
        .unwrap();
        assert_eq!(
            (
                in_file.server.cors_origins.as_slice(),
                in_environment.server.cors_origins
            ),
            (
                expected.map(str::to_owned).as_slice(),
                expected.map(str::to_owned).to_vec()
            )
        );
        assert!(
            load("", &[("RECENTS__SERVER__CORS_ORIGINS", "")])
                .unwrap()
                .server
                .cors_origins
                .is_empty()
        );
    }

    #[test]
    fn what_cannot_be_about_callers_is_named() {
        for (file, text) in [
            (
                "[server]\ncors_origins = ['chat.example.com']",
                "server.cors_origins: \"chat.example.com\"",
            ),
            (
                "[server]\ncors_origins = ['https://chat.example.com/']",
                "did you mean https://chat.example.com?",
            ),
            (
                "[server]\ncors_origins = ['https://Chat.example.com']",
                "did you mean https://chat.example.com?",
            ),
            (
                "[server]\ncors_origins = ['https://chat.example.com:443']",
                "did you mean https://chat.example.com?",
            ),
            (
                "[server]\ncors_origins = ['https://*.example.com']",
                "is no origin",
            ),
            ("[server]\ncors_origins = ['*']", "is no origin"),
            ("[server]\ncors_origins = ['null']", "is no origin"),
            ("[log]\nlevel = 'warning'", "did you mean warn?"),
            ("[log]\nlevel = ''", "log.level must be"),
            ("[log]\nlevel = 'info,sqlx'", "\"sqlx\" is none"),
            ("[log]\nlevel = 'info,sqlx=loud'", "\"loud\" is none"),
            (
                "[server]\ntrusted_proxies = ['10.0.0.0/33']",
                "server.trusted_proxies: \"10.0.0.0/33\"",
            ),
            ("[auth]\nmanager_token = 'with space'", "auth.manager_token"),
            (
                "[auth]\nprevious_manager_token = 'x'",
                "auth.previous_manager_token is set",
            ),
            (
                "[auth.jwt]\nprevious_secret = 'x'",
                "auth.jwt.previous_secret is set",
            ),
            ("[auth.jwt]\nissuer = 'x'", "mean nothing without"),
            (
                "[auth.jwt]\njwks_url = 'ftp://x'",
                "auth.jwt.jwks_url must begin with",
            ),
            (
                "[auth.jwt]\njwks_url = 'x'",
                "auth.jwt.jwks_url must be a URL",
            ),
            ("[auth.jwt]\nsecrets = 'x'", "unknown key auth.jwt.secrets"),
            ("[auth]\njwt = 'x'", "auth.jwt in"),
            ("[live]\nredis_url = 'host:6379'", "live.redis_url"),
            ("[live]\nredis_channel = ''", "live.redis_channel"),
            ("[live]\npoll_seconds = 0", "live.poll_seconds"),
            ("[limits]\nuser_connections = 0", "limits.user_connections"),
        ] {
            let error = load(file, &[]).unwrap_err().to_string();
            assert!(error.contains(text), "{file}: {error}");
        }
    }

    #[test]
    fn filters_of_the_log_are_taken() {
        for level in [
            "info",
            "WARN",
            "off",
            "info,sqlx=debug",
            "recents=trace, hyper=warn",
        ] {
            load(&format!("[log]\nlevel = '{level}'"), &[]).unwrap();
        }
    }

    #[test]
    fn variables_that_look_like_ours_are_named() {
        let given = [
            "RECENTS_DATABASE_URL",
            "RECENTS__DATABASE__URL",
            "RECENTS_IMPORT_TOKEN",
            "RECENTS_PORT_5001_TCP",
            "PATH",
        ];
        let warnings = misspelled_variables(given.into_iter().map(str::to_owned));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("RECENTS_DATABASE_URL means nothing")
                && warnings[0].ends_with("did you mean RECENTS__DATABASE__URL?")
        );
    }

    #[test]
    fn a_broken_line_or_value_shows_no_secret() {
        for file in [
            "[auth]\nmanager_token = hush",
            "[auth]\nmanager_token = 'hush",
            "[auth.jwt]\nsecret = ['hush']",
            "[live]\nredis_url = ['hush']",
        ] {
            let error = load(file, &[]).unwrap_err().to_string();
            assert!(!error.contains("hush") && !error.is_empty(), "{error}");
        }
        let settings = load(
            "[ingest]\ndatasource_url = 'https://me:hush@host/x?key=hush'\n[auth.jwt]\njwks_url = 'https://me:hush@host/keys?k=hush'",
            &[],
        )
        .unwrap();
        for shown in [settings.to_toml().unwrap(), format!("{settings:?}")] {
            assert!(
                !shown.contains("hush") && shown.contains("https://me:***@host/keys?k=***"),
                "{shown}"
            );
        }
    }

    #[test]
    fn secrets_never_show() {
        let settings = load(
            "[auth]\nmanager_token = 'hush'\n[database]\nurl = 'postgres://user:p@ss:w@host:5432/db'\n[ingest]\nwebhook_secret='hush'",
            &[],
        )
        .unwrap();
        for shown in [settings.to_toml().unwrap(), format!("{settings:?}")] {
            assert!(
                !shown.contains("hush") && !shown.contains("p@ss"),
                "{shown}"
            );
            assert!(
                shown.contains("postgres://user:***@host:5432/db"),
                "{shown}"
            );
        }
        for (url, expected) in [
            (
                "postgres://host/db?user=me&password=hush&sslmode=require",
                "postgres://host/db?user=me&password=***&sslmode=require",
            ),
            ("mysql://me:hu/sh?x=hush@host/db", "mysql://me:hu/sh?x=***"),
            ("mysql://me:hu/sh@host/db", "mysql://me:***@host/db"),
            (
                "sqlite://recents.db?mode=rwc",
                "sqlite://recents.db?mode=rwc",
            ),
        ] {
            assert_eq!(Url::from(url).redacted(), expected);
        }
    }
}
