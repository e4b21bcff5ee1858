//! The cause of a database error.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use sea_orm::{DbErr, SqlxError};

use super::classify::sqlx_error;

/// The cause of a [`StoreError`](super::StoreError): a text, and the error of the library if there is one.
#[derive(Clone)]
pub struct Cause {
    text: Cow<'static, str>,
    pub(super) source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Cause {
    /// Returns the text.
    pub(in crate::store) fn text(&self) -> &str {
        &self.text
    }

    /// Replaces the text and keeps the error of the library.
    pub(in crate::store) fn with_text(self, text: String) -> Self {
        Self {
            text: text.into(),
            ..self
        }
    }
}

impl From<&'static str> for Cause {
    fn from(text: &'static str) -> Self {
        Self {
            text: text.into(),
            source: None,
        }
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self {
            text: text.into(),
            source: None,
        }
    }
}

impl From<&DbErr> for Cause {
    fn from(error: &DbErr) -> Self {
        let source: Arc<dyn Error + Send + Sync> = match sqlx_error(error) {
            // sea-orm has the text of this error, but does not name it as a source.
            Some(inner) => Arc::<SqlxError>::clone(inner),
            None => Arc::new(error.clone()),
        };
        Self {
            text: error.to_string().into(),
            source: Some(source),
        }
    }
}

impl From<Arc<SqlxError>> for Cause {
    fn from(error: Arc<SqlxError>) -> Self {
        Self {
            text: error.to_string().into(),
            source: Some(error),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Shows the text only: the debug form of a library's error contains values of rows.
impl fmt::Debug for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}
