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
mod tests {
    use super::source::known_keys;
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
            Environment::with_prefix(ENVIRONMENT_PREFIX).source(Some(variables)),
        )
    }

    #[test]
    fn the_shipped_file_has_every_default_and_enables_conversations() {
        let shipped = include_str!("../../recents.toml");
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

    /// Returns the comments before the keys, without line breaks and backticks, by key. `is_key`
    /// returns the name of the key in a line.
    fn comments<'a>(
        text: &'a str,
        marker: &str,
        is_key: impl Fn(&'a str) -> Option<&'a str>,
    ) -> Vec<(&'a str, String)> {
        let mut found = Vec::new();
        let mut comment = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix(marker) {
                comment += &(text.trim().replace('`', "") + " ");
            } else if let Some(key) = is_key(line) {
                found.push((key, std::mem::take(&mut comment)));
            } else if !line.starts_with("#[") {
                comment.clear();
            }
        }
        found
    }

    #[test]
    fn the_shipped_file_explains_every_key_as_its_field_does() {
        let in_file = comments(include_str!("../../recents.toml"), "# ", |line| {
            line.split_once(" = ").map(|(key, _)| key)
        });
        let sections = [
            include_str!("server.rs"),
            include_str!("database.rs"),
            include_str!("conversation.rs"),
            include_str!("ingest.rs"),
            include_str!("auth.rs"),
            include_str!("live.rs"),
            include_str!("limits.rs"),
            include_str!("graphql.rs"),
            include_str!("cache.rs"),
            include_str!("log.rs"),
        ];
        let in_code: Vec<_> = sections
            .iter()
            .flat_map(|text| {
                comments(text, "/// ", |line| {
                    let (key, _) = line.strip_prefix("pub ")?.split_once(": ")?;
                    // The section [auth.jwt] follows.
                    (key != "jwt").then_some(key)
                })
            })
            .collect();
        assert_eq!(in_file, in_code);
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let settings = load(
            "[server]\nlisten = '127.0.0.1:1'\n[limits]\nmax_messages_per_conversation = 7",
            &[
                ("RECENTS__SERVER__LISTEN", "127.0.0.1:2"),
                ("RECENTS__CONVERSATION__ON", "true"),
                ("RECENTS__AUTH__MANAGER_TOKEN", "123"),
            ],
        )
        .unwrap();
        assert_eq!(settings.server.listen, "127.0.0.1:2");
        assert_eq!(settings.limits.max_messages_per_conversation, 7);
        assert!(settings.conversation.on);
        assert_eq!(settings.auth.manager_token.reveal(), "123");
    }

    #[test]
    fn old_names_work_with_a_warning() {
        let settings = load("[limits]\nrequests = 7\n[live]\ninit_seconds = 8", &[]).unwrap();
        assert_eq!(settings.limits.max_concurrent_requests, 7);
        assert_eq!(settings.live.connection_init_timeout_seconds, 8);
        assert_eq!(settings.warnings.len(), 2, "{:?}", settings.warnings);
        let warning = settings
            .warnings
            .iter()
            .find(|warning| warning.contains("limits.requests"))
            .unwrap();
        assert!(
            warning.contains("given.toml") && warning.contains("limits.max_concurrent_requests"),
            "{warning}"
        );
        let settings = load("", &[("RECENTS__GRAPHQL__SLOW_MILLISECONDS", "9")]).unwrap();
        assert_eq!(settings.graphql.slow_operation_ms, 9);
        assert!(
            settings.warnings.len() == 1
                && settings.warnings[0].contains(
                    "graphql.slow_milliseconds in the environment is now called \
                     graphql.slow_operation_ms"
                ),
            "{:?}",
            settings.warnings
        );
        let new_names = "[limits]\nmax_concurrent_requests = 7";
        assert!(load(new_names, &[]).unwrap().warnings.is_empty());
    }

    #[test]
    fn the_environment_overrides_the_file_whichever_names_they_use() {
        for file in ["requests = 7", "max_concurrent_requests = 7"] {
            for variable in [
                "RECENTS__LIMITS__REQUESTS",
                "RECENTS__LIMITS__MAX_CONCURRENT_REQUESTS",
            ] {
                let settings = load(&format!("[limits]\n{file}"), &[(variable, "8")]).unwrap();
                let value = settings.limits.max_concurrent_requests;
                assert_eq!(value, 8, "{file}, {variable}");
            }
        }
    }

    #[test]
    fn old_and_new_name_in_one_source_are_refused() {
        for (file, environment, source) in [
            (
                "[limits]\nrequests = 7\nmax_concurrent_requests = 7",
                vec![],
                "given.toml",
            ),
            (
                "'limits.requests' = 7\n[limits]\nmax_concurrent_requests = 7",
                vec![],
                "given.toml",
            ),
            (
                "",
                vec![
                    ("RECENTS__LIMITS__REQUESTS", "7"),
                    ("RECENTS__LIMITS__MAX_CONCURRENT_REQUESTS", "7"),
                ],
                "the environment",
            ),
        ] {
            let error = load(file, &environment).unwrap_err().to_string();
            assert!(
                error.contains("limits.requests and limits.max_concurrent_requests are both set")
                    && error.contains(source),
                "{error}"
            );
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_their_source_and_the_nearest_key() {
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
    fn keys_are_not_paths() {
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
    fn invalid_toml_is_reported_with_its_line() {
        for file in [
            "[limits]\nmax_messages_per_conversation = 9223372036854775808",
            "[limits]\nmax_messages_per_conversation = 1e400",
            "[limits]\nmax_messages_per_conversation =",
        ] {
            let error = load(file, &[]).unwrap_err().to_string();
            assert!(
                error.contains("given.toml is not valid TOML at line 2"),
                "{error}"
            );
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
    fn invalid_values_name_the_key_and_its_source() {
        let error = load("[limits]\nmax_messages_per_conversation = 'many'", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("limits.max_messages_per_conversation") && error.contains("given.toml"),
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
                "[database]\nacquire_timeout_seconds = 86401",
                "database.acquire_timeout_seconds",
            ),
            (
                "[database]\nstartup_timeout_seconds = 86401",
                "database.startup_timeout_seconds",
            ),
            (
                "[limits]\nrequest_timeout_seconds = 9223372036854775807",
                "limits.request_timeout_seconds",
            ),
            (
                "[limits]\nmax_concurrent_requests = 1000001",
                "limits.max_concurrent_requests",
            ),
            (
                "[database]\nmax_connections = 10001",
                "database.max_connections",
            ),
            ("[limits]\nbody_bytes = 1e19", "limits.body_bytes"),
            (
                "[limits]\nmax_members_per_request = inf",
                "limits.max_members_per_request",
            ),
            (
                "[limits]\nmax_last_msg_seqs = '18446744073709551615'",
                "limits.max_last_msg_seqs",
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
    fn secrets_may_be_read_from_files() {
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
    fn lists_are_read_from_files_and_from_the_environment() {
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
    fn invalid_auth_settings_name_the_key() {
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
                "is not an origin",
            ),
            ("[server]\ncors_origins = ['*']", "is not an origin"),
            ("[server]\ncors_origins = ['null']", "is not an origin"),
            (
                "[server]\ncors_headers = ['*']",
                "\"*\" is not the name of a header",
            ),
            (
                "[server]\ncors_headers = ['a b']",
                "\"a b\" is not the name of a header",
            ),
            ("[server]\ndrain_seconds = 86401", "server.drain_seconds"),
            ("[log]\nlevel = 'warning'", "did you mean warn?"),
            ("[log]\nlevel = ''", "log.level must be"),
            ("[log]\nlevel = 'info,sqlx'", "\"sqlx\" is not a level"),
            ("[log]\nlevel = 'info,sqlx=loud'", "\"loud\" is not a level"),
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
            (
                "[auth.jwt]\nissuer = 'x'",
                "have no effect: set auth.jwt.secret",
            ),
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
            (
                "[live]\npoll_interval_seconds = 0",
                "live.poll_interval_seconds",
            ),
            (
                "[limits]\nmax_user_live_connections = 0",
                "limits.max_user_live_connections",
            ),
        ] {
            let error = load(file, &[]).unwrap_err().to_string();
            assert!(error.contains(text), "{file}: {error}");
        }
    }

    #[test]
    fn log_filters_are_accepted() {
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
    fn misspelled_variables_are_reported() {
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
    fn errors_show_no_secret() {
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
    fn secrets_are_redacted() {
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
