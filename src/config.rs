//! The configuration: defaults → file → environment (`RECENTS__SECTION__KEY`) → flags.
//!
//! How to add a key: a field with its default below, a line in `recents.toml` (a test compares the two), and, where not every
//! value makes sense, a check in `Settings::check`.

use std::fmt;
use std::path::Path;

use ::config::{Config, Environment, File, FileFormat, Source, Value};
use serde::{Deserialize, Serialize};

/// The file that is read when it lies in the working directory and no other is named.
pub const DEFAULT_FILE: &str = "recents.toml";
const ENVIRONMENT: &str = "RECENTS";
/// No time limit is longer than a day.
const DAY_SECONDS: u64 = 86_400;

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
    pub limits: Limits,
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Server {
    pub listen: String,
    pub shutdown_seconds: u64,
}

/// `[database]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Database {
    pub url: DatabaseUrl,
    pub max_connections: u32,
    pub acquire_seconds: u64,
    pub statement_seconds: u64,
    pub migrate: bool,
}

/// Where the database is; its password never shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// With the password.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn redacted(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else { return "***".to_owned() };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The last @ ends the credentials: a password may contain one, and a / too, although it should not.
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
                Some(("mode" | "sslmode" | "ssl-mode" | "user" | "host" | "port" | "dbname", _)) => option.to_owned(),
                Some((name, _)) => format!("{name}=***"),
                None => "***".to_owned(),
            })
            .collect();
        if options.is_empty() { shown } else { format!("{shown}?{}", options.join("&")) }
    }
}

impl From<&str> for DatabaseUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for DatabaseUrl {
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
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "recents.toml is the manual of the keys")]
pub struct Limits {
    pub body_bytes: usize,
    pub webhook_body_bytes: usize,
    pub payload_bytes: usize,
    pub msg_count: u32,
    pub last_msg_seqs: usize,
    pub page_size: u32,
    pub members: usize,
    pub request_seconds: u64,
    pub document_bytes: usize,
    pub document_depth: usize,
    pub document_fields: usize,
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
        Self { listen: "127.0.0.1:5001".to_owned(), shutdown_seconds: 10 }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: "sqlite://recents.db?mode=rwc".into(),
            max_connections: 10,
            acquire_seconds: 5,
            statement_seconds: 10,
            migrate: true,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 4 << 20,
            webhook_body_bytes: 64 << 20,
            payload_bytes: 256 << 10,
            msg_count: 500,
            last_msg_seqs: 100_000,
            page_size: 1000,
            members: 100_000,
            request_seconds: 30,
            document_bytes: 64 << 10,
            document_depth: 20,
            document_fields: 1000,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Why the configuration cannot be used; the text names the key and where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Settings {
    /// Reads the file (`recents.toml` of the working directory where none is named and it is there) and the environment.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a value that makes no sense.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_from(file, Environment::with_prefix(ENVIRONMENT))
    }

    fn load_from(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        let (path, required) = file.map_or((Path::new(DEFAULT_FILE), false), |path| (path, true));
        let config = Config::builder()
            .add_source(File::from(path).format(FileFormat::Toml).required(required))
            .add_source(environment.prefix_separator("__").separator("__"))
            .build()
            .map_err(|error| ConfigError(error.to_string()))?;
        let given = config.collect().map_err(|error| ConfigError(error.to_string()))?;
        let known = serde_json::to_value(Self::default()).map_err(|error| ConfigError(error.to_string()))?;
        refuse_unknown(&given, &known, "", &known)?;
        // Not every error of the values knows its key.
        let settings: Self = serde_path_to_error::deserialize(config)
            .map_err(|error| ConfigError(format!("{}: {}", error.path(), error.inner())))?;
        settings.check()?;
        Ok(settings)
    }

    /// As a file that could be read again, but for the secrets.
    ///
    /// # Errors
    /// Never in practice: every value has a TOML form.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError(error.to_string()))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("server.shutdown_seconds", self.server.shutdown_seconds),
            ("database.max_connections", u64::from(self.database.max_connections)),
            ("database.acquire_seconds", self.database.acquire_seconds),
            ("database.statement_seconds", self.database.statement_seconds),
            ("limits.body_bytes", self.limits.body_bytes as u64),
            ("limits.webhook_body_bytes", self.limits.webhook_body_bytes as u64),
            ("limits.payload_bytes", self.limits.payload_bytes as u64),
            ("limits.msg_count", u64::from(self.limits.msg_count)),
            ("limits.last_msg_seqs", self.limits.last_msg_seqs as u64),
            ("limits.page_size", u64::from(self.limits.page_size)),
            ("limits.members", self.limits.members as u64),
            ("limits.request_seconds", self.limits.request_seconds),
            ("limits.document_bytes", self.limits.document_bytes as u64),
            ("limits.document_depth", self.limits.document_depth as u64),
            ("limits.document_fields", self.limits.document_fields as u64),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(ConfigError(format!("{key} must be at least 1")));
            }
        }
        for (key, value) in positive.into_iter().filter(|(key, _)| key.ends_with("_seconds")) {
            if value > DAY_SECONDS {
                return Err(ConfigError(format!("{key} must be at most {DAY_SECONDS}")));
            }
        }
        if self.database.max_connections < 2 {
            return Err(ConfigError("database.max_connections must be at least 2".to_owned()));
        }
        if !["sqlite:", "postgres:", "postgresql:", "mysql:", "mariadb:"]
            .iter()
            .any(|scheme| self.database.url.reveal().starts_with(scheme))
        {
            return Err(ConfigError("database.url must begin with sqlite:, postgres: or mysql:".to_owned()));
        }
        if !self.ingest.webhook_secret.reveal().chars().all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c)) {
            return Err(ConfigError(
                "ingest.webhook_secret is a part of a path and may contain only letters, digits, and - _ . ~".to_owned(),
            ));
        }
        Ok(())
    }
}

fn refuse_unknown(
    given: &::config::Map<String, Value>,
    known: &serde_json::Value,
    prefix: &str,
    all: &serde_json::Value,
) -> Result<(), ConfigError> {
    for (key, value) in given {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (known.get(key), value.clone().into_table()) {
            (Some(section @ serde_json::Value::Object(_)), Ok(table)) => refuse_unknown(&table, section, &path, all)?,
            (Some(_), _) => {}
            (None, nested) => {
                // A whole unknown section: name the first key in it, and its source.
                let (path, origin) = match nested.ok().and_then(|table| table.into_iter().next()) {
                    Some((inner, value)) => (format!("{path}.{inner}"), value.origin().map(str::to_owned)),
                    None => (path, value.origin().map(str::to_owned)),
                };
                let nearest =
                    known_keys(all).into_iter().min_by_key(|candidate| strsim::levenshtein(candidate, &path)).unwrap_or_default();
                let source = origin.unwrap_or_else(|| "the configuration".to_owned());
                return Err(ConfigError(format!("unknown key {path} in {source}; did you mean {nearest}?")));
            }
        }
    }
    Ok(())
}

fn known_keys(all: &serde_json::Value) -> Vec<String> {
    let sections = all.as_object().into_iter().flatten();
    sections
        .flat_map(|(section, keys)| keys.as_object().into_iter().flatten().map(move |(key, _)| format!("{section}.{key}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("given.toml");
        std::fs::write(&path, file).unwrap();
        let variables = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Settings::load_from(Some(&path), Environment::with_prefix(ENVIRONMENT).source(Some(variables)))
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
            let (section, name) = key.split_once('.').unwrap();
            assert!(keys[section].get(name).is_some(), "recents.toml lacks {key}");
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
        assert!(error.contains("server.lisen") && error.contains("given.toml") && error.contains("server.listen?"), "{error}");
        let error = load("", &[("RECENTS__DATABSE__URL", "x")]).unwrap_err().to_string();
        assert!(error.contains("databse.url") && error.contains("environment") && error.contains("database.url?"), "{error}");
        let error = load("listen = 1", &[]).unwrap_err().to_string();
        assert!(error.contains("unknown key listen"), "{error}");
    }

    #[test]
    fn wrong_values_name_the_key_and_where_it_came_from() {
        let error = load("[limits]\nmsg_count = 'many'", &[]).unwrap_err().to_string();
        assert!(error.contains("limits.msg_count") && error.contains("given.toml"), "{error}");
        let error = load("", &[("RECENTS__DATABASE__MAX_CONNECTIONS", "lots")]).unwrap_err().to_string();
        assert!(error.contains("database.max_connections") && error.contains("environment"), "{error}");
        let error = load("[ingest]\nwukongim = 'v4'", &[]).unwrap_err().to_string();
        assert!(error.contains("ingest.wukongim"), "{error}");
        for (file, key) in [
            ("[database]\nmax_connections = 0", "database.max_connections"),
            ("[database]\nacquire_seconds = 86401", "database.acquire_seconds"),
            ("[limits]\nrequest_seconds = 9223372036854775807", "limits.request_seconds"),
            ("[database]\nurl = 'oracle://x'", "database.url"),
            ("[ingest]\nwebhook_secret = 'a/b'", "ingest.webhook_secret"),
        ] {
            let error = load(file, &[]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
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
            assert!(!shown.contains("hush") && !shown.contains("p@ss"), "{shown}");
            assert!(shown.contains("postgres://user:***@host:5432/db"), "{shown}");
        }
        for (url, expected) in [
            (
                "postgres://host/db?user=me&password=hush&sslmode=require",
                "postgres://host/db?user=me&password=***&sslmode=require",
            ),
            ("mysql://me:hu/sh?x=hush@host/db", "mysql://me:hu/sh?x=***"),
            ("mysql://me:hu/sh@host/db", "mysql://me:***@host/db"),
            ("sqlite://recents.db?mode=rwc", "sqlite://recents.db?mode=rwc"),
        ] {
            assert_eq!(DatabaseUrl::from(url).redacted(), expected);
        }
    }
}
