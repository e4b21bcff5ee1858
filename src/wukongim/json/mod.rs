//! JSON objects, decoded with the leniency of Go's decoder: keys match in any case, unknown keys are
//! ignored, `null` and missing fields have the zero value, and other values must have the exact
//! type.
//!
//! A request body is a struct that derives `Deserialize`. Its fields are decoded in the order of
//! their declaration, so the first one with a wrong value is named in the error, whatever the order
//! of the keys was. No field needs `#[serde(default)]` to be decoded; the attribute only marks the
//! fields that the `OpenAPI` document describes as optional.

mod decoder;
mod invalid_value;
mod repair;
mod values;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use self::decoder::{ObjectDecoder, ValueDecoder};
use self::repair::repair;
pub(crate) use self::values::Checked;
pub use self::values::{Base64, Flag};
use crate::budget::{parsed_size, reserve_memory};
use crate::error::Error;
use crate::model::Uid;

/// The name of a whole body in errors.
const BODY: &str = "the body";

/// A JSON object or a query string, parsed but not decoded.
#[derive(Clone, Debug, Default)]
pub struct JsonObject {
    map: Map<String, Value>,
    source: Source,
}

/// Where values come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Source {
    /// JSON, where a number is a number.
    #[default]
    Json,
    /// A query string, where every value is a text.
    Query,
}

impl JsonObject {
    /// Parses a body.
    ///
    /// # Errors
    /// [`Error::BadRequest`] or [`Error::BadInput`] if the body is not one JSON object (or `null`,
    /// which counts as an empty one); [`Error::Overloaded`] or [`Error::TooManyAtOnce`] if there is
    /// no memory left for it.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::BadRequest(
                "the body must be a JSON object, but it is empty".into(),
            ));
        }
        Self::from_value(parse_json(body)?)
            .ok_or_else(|| Error::bad_input(BODY, "must be a JSON object"))
    }

    /// Reads the pairs of a query string.
    #[must_use]
    pub fn from_query(query: &str) -> Self {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        Self {
            map: pairs
                .into_iter()
                .map(|(name, value)| (name, Value::String(value)))
                .collect(),
            source: Source::Query,
        }
    }

    /// Returns the value if it is an object, or `null`, which counts as an empty one.
    pub(super) fn from_value(value: Value) -> Option<Self> {
        let map = match value {
            Value::Null => Map::new(),
            Value::Object(map) => map,
            _ => return None,
        };
        Some(Self {
            map,
            source: Source::Json,
        })
    }

    /// Moves the fields of `T` out of the object.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the first field of `T` with a wrong value.
    pub fn decode<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let fields = ObjectDecoder {
            map: &mut self.map,
            source: self.source,
        };
        T::deserialize(fields).map_err(|invalid| invalid.into_error(BODY, None))
    }
}

/// Parses a body that is an array of uids.
///
/// # Errors
/// Like [`JsonObject::parse`]; [`Error::BadInput`] if a value is not a uid.
pub(crate) fn parse_uids(body: &[u8]) -> Result<Vec<Uid>, Error> {
    let texts: Vec<String> = decode_value(parse_json(body)?, BODY)?;
    let uids = texts.into_iter().map(|text| Uid::parse("uids", text));
    Ok(uids.collect::<Result<_, _>>()?)
}

/// Decodes a value called `name`, which prefixes the names of its fields in errors.
///
/// # Errors
/// [`Error::BadInput`] naming the first field with a wrong value.
pub(crate) fn decode_value<T: DeserializeOwned>(
    value: Value,
    name: &'static str,
) -> Result<T, Error> {
    T::deserialize(ValueDecoder {
        value,
        source: Source::Json,
    })
    .map_err(|invalid| invalid.into_error(name, Some(name)))
}

/// Parses the body of a request, which must be exactly one JSON value.
///
/// # Errors
/// [`Error::BadRequest`] with the position of the syntax error; [`Error::Overloaded`] or
/// [`Error::TooManyAtOnce`] if there is no memory left for the value.
pub(super) fn parse_json(body: &[u8]) -> Result<Value, Error> {
    reserve_memory(parsed_size(body))?;
    parse_value(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::BadRequest(
            format!("the body must be one JSON value, but it is not well-formed at {place}").into(),
        )
    })
}

/// Parses exactly one JSON value. Parts that a [`Value`] cannot hold are replaced by others of the
/// same kind that no field accepts, so an odd value prevents only the field that it is in from
/// being decoded: values nested over 100 levels deep, halves of surrogate pairs, and numbers
/// outside the range of a double.
///
/// # Errors
/// The text is not well-formed JSON (RFC 8259) in UTF-8.
pub(crate) fn parse_value(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(text).or_else(|error| {
        // The parser skips values of any depth without recursion, and does not read them.
        serde_json::from_slice::<IgnoredAny>(text)?;
        if std::str::from_utf8(text).is_err() {
            return Err(error);
        }
        serde_json::from_slice(&repair(text))
    })
}

#[cfg(test)]
mod tests;
