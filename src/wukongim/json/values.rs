//! Types of fields.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A flag: 0 or missing is off, any other number is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(|number| Self(number != 0))
    }
}

/// Bytes in standard base64 with padding. Line breaks are skipped, as Go's decoder does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        text.retain(|character| !matches!(character, '\r' | '\n'));
        STANDARD
            .decode(text)
            .map(Self)
            .map_err(|_| D::Error::custom("must be standard base64 with padding"))
    }
}

/// A field whose wrong value does not prevent the other fields from being decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked<T>(Option<T>);

impl<T> Checked<T> {
    /// Returns the value, or the error if the value was wrong.
    pub(crate) fn or<E>(self, error: E) -> Result<T, E> {
        self.0.ok_or(error)
    }

    /// Returns the value unless it was wrong.
    pub(crate) fn as_ref(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Checked<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(T::deserialize(deserializer).ok()))
    }
}
