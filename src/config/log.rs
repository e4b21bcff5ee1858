//! `[log]`

use serde::{Deserialize, Serialize};

use super::ConfigError;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// `[log]`: the log on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// error, warn, info, debug or trace, or filters like "info,sqlx=debug".
    pub level: String,
    /// "text" or "json".
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogConfig {
    /// Checks for levels, or filters like `info,sqlx=debug`: `EnvFilter` takes every other word for
    /// the name of a module, and then logs nothing else.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for part in self.level.split(',') {
            let level = part.rsplit('=').next().unwrap_or_default().trim();
            if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                let nearest = LEVELS
                    .iter()
                    .min_by_key(|known| strsim::levenshtein(known, level))
                    .copied()
                    .unwrap_or_default();
                return Err(ConfigError(format!(
                    "log.level must be error, warn, info, debug or trace, or filters like \
                     info,sqlx=debug; {level:?} is not a level: did you mean {nearest}?"
                )));
            }
        }
        Ok(())
    }
}
