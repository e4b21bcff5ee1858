//! Reads the settings from their sources: the file and the environment.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use ::config::{Config, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use serde::Deserialize;

use super::renamed::replace_old_names;
use super::{ConfigError, DEFAULT_FILE, DatabaseConfig, Settings, Url};

/// Reads a list, or a text of comma-separated items, which is how the environment names a list.
pub(super) fn list_or_text<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ListOrText {
        List(Vec<String>),
        Text(String),
    }
    Ok(match ListOrText::deserialize(deserializer)? {
        ListOrText::List(list) => list,
        ListOrText::Text(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

/// The keys and values of a source, which are known and have their new names.
#[derive(Clone)]
struct CheckedSource(Map<String, Value>);

impl fmt::Debug for CheckedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may be secret.
        f.debug_struct("CheckedSource").finish_non_exhaustive()
    }
}

impl Source for CheckedSource {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.0.clone())
    }
}

impl Settings {
    /// Reads and checks the settings.
    pub(super) fn load_from(
        file: Option<&Path>,
        environment: Environment,
    ) -> Result<Self, ConfigError> {
        let (path, required) = file.map_or((Path::new(DEFAULT_FILE), false), |path| (path, true));
        check_toml_syntax(path)?;
        let file = File::from(path).format(FileFormat::Toml).required(required);
        let environment = environment.prefix_separator("__").separator("__");
        let known = known_keys(
            &serde_json::to_value(Self::default())
                .map_err(|error| ConfigError(error.to_string()))?,
        );
        let mut sources = Config::builder();
        let mut warnings = Vec::new();
        for source in [&file as &dyn Source, &environment] {
            let mut given = source
                .collect()
                .map_err(|error| ConfigError(error.to_string()))?;
            warnings.extend(replace_old_names(&mut given)?);
            refuse_unknown("", &given, &known)?;
            sources = sources.add_source(CheckedSource(given));
        }
        let config = sources
            .build()
            .map_err(|error| ConfigError(error.to_string()))?;
        // Not every error about a value names the key.
        let mut settings: Self = serde_path_to_error::deserialize(config).map_err(|error| {
            ConfigError(describe_value_error(
                &error.path().to_string(),
                &error.inner().to_string(),
            ))
        })?;
        settings.warnings = warnings;
        settings.read_secrets()?;
        settings.check()?;
        Ok(settings)
    }

    /// Reads secrets from the files that `…_file` keys name: container platforms mount secrets as
    /// files.
    fn read_secrets(&mut self) -> Result<(), ConfigError> {
        let default_url = DatabaseConfig::default().url;
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
                "ingest.repair_token",
                &mut self.ingest.repair_token.0,
                &self.ingest.repair_token_file,
            ),
            (
                "proxy.wukongim_token",
                &mut self.proxy.wukongim_token.0,
                &self.proxy.wukongim_token_file,
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
                    "{key} and {key}_file are both set: unset one of them"
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
}

/// Describes an error about a value, without the value where it may be secret.
fn describe_value_error(key: &str, problem: &str) -> String {
    let secrets = [
        "manager_token",
        "secret",
        "webhook_secret",
        "url",
        "redis_url",
        "datasource_url",
        "jwks_url",
        "wukongim_url",
        "wukongim_token",
    ];
    let name = key.rsplit('.').next().unwrap_or_default();
    let is_secret = secrets.contains(&name.strip_prefix("previous_").unwrap_or(name));
    if is_secret {
        format!("{key} must be a text")
    } else {
        format!("{key}: {problem}")
    }
}

/// Checks that the file, if it exists, is TOML, and names the position of an error. (`config` alone
/// replaces invalid UTF-8, and names no line for numbers that are too large.)
fn check_toml_syntax(path: &Path) -> Result<(), ConfigError> {
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
        // Leaves the line itself out, which may contain a secret.
        let position = error.span().map_or_else(String::new, |span| {
            let before = &text[..span.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            format!(
                " at line {line}, column {}",
                before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1
            )
        });
        ConfigError(format!(
            "{name} is not valid TOML{position}: {}",
            error.message()
        ))
    })?;
    Ok(())
}

/// Returns warnings about environment variables that look like keys but are not.
#[must_use]
pub fn misspelled_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    /// Prefixes of other variables: keys, commands, tests, and those that Kubernetes sets for a
    /// service named recents.
    const OTHER_PREFIXES: [&str; 5] = [
        "RECENTS__",
        "RECENTS_IMPORT_",
        "RECENTS_TEST_",
        "RECENTS_SERVICE_",
        "RECENTS_PORT",
    ];
    let known = serde_json::to_value(Settings::default())
        .map(|all| known_keys(&all))
        .unwrap_or_default();
    let unknown = names.filter(|name| {
        name.to_ascii_uppercase().starts_with("RECENTS_")
            && !OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    unknown
        .map(|name| {
            let given = name["RECENTS_".len()..].to_ascii_lowercase();
            let given = given.trim_start_matches('_');
            let nearest = known
                .iter()
                .min_by_key(|key| strsim::levenshtein(&key.replace('.', "_"), given))
                .map_or_else(String::new, |key| {
                    key.replace('.', "__").to_ascii_uppercase()
                });
            format!(
                "the variable {name} means nothing: keys are separated by two underscores; \
             did you mean RECENTS__{nearest}?"
            )
        })
        .collect()
}

/// Refuses unknown keys of one source: tables of keys in a file, `section.key` in the environment.
/// Runs before `config` merges the sources, because merging reads a name as a path, and `server[9]`
/// as an array of ten.
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
            // An unknown section is reported by its first key.
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

/// Returns every key with its sections, such as `auth.jwt.secret`.
pub(super) fn known_keys(all: &serde_json::Value) -> Vec<String> {
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
