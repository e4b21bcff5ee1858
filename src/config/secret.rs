//! Values that are redacted in logs and in the output of `recents config`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A secret text, redacted wherever it is shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub(super) String);

impl Secret {
    /// Returns the secret itself.
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

/// The URL of a server, with its password redacted wherever it is shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Url(pub(super) String);

impl Url {
    /// Returns the URL with its password.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the URL without the parts that may be secret.
    #[must_use]
    pub fn redacted(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return "***".to_owned();
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The last @ ends the credentials: a password may contain an @, and even a /, although
        // they should be escaped.
        let shown = match rest.rfind('@') {
            Some(at) => {
                let user = rest[..at].split(':').next().unwrap_or_default();
                format!("{scheme}://{user}:***{}", &rest[at..])
            }
            None => format!("{scheme}://{rest}"),
        };
        // Only options that are known to be harmless are shown: a password may be an option, too.
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
