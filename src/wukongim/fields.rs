//! The fields of a JSON object, read with the leniency of Go's decoder.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::budget::{hold, parsed_size};
use crate::error::Error;

/// The body of a request, or an object inside of one, read like Go's decoder does: keys match in
/// any case, unknown keys are ignored, `null` and missing fields have the zero value, and other
/// values must have the exact type.
#[derive(Clone, Debug, Default)]
pub struct LegacyBody {
    prefix: String,
    map: Map<String, Value>,
}

impl LegacyBody {
    /// Parses a body.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if the body is not one JSON object (or `null`, which counts as an
    /// empty one).
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::BadRequest(
                "the body must be a JSON object, but it is empty".into(),
            ));
        }
        Self::from_value(parse_json(body)?, "the body", String::new())
    }

    /// Reads the pairs of a query string; those named in `numbers` are numbers, the others strings.
    ///
    /// # Errors
    /// [`Error::BadInput`] if a number is invalid.
    pub fn from_query(query: &str, numbers: &[&str]) -> Result<Self, Error> {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        let mut map = Map::new();
        for (name, value) in pairs {
            let value = if !numbers.contains(&name.as_str()) {
                Value::String(value)
            } else if value.is_empty() {
                Value::Null
            } else {
                value
                    .parse::<i64>()
                    .map_err(|_| Error::bad_input(name.clone(), "must be a whole number"))?
                    .into()
            };
            map.insert(name, value);
        }
        Ok(Self {
            prefix: String::new(),
            map,
        })
    }

    fn from_value(value: Value, name: &str, prefix: String) -> Result<Self, Error> {
        match value {
            Value::Null => Ok(Self {
                prefix,
                map: Map::new(),
            }),
            Value::Object(map) => Ok(Self { prefix, map }),
            _ => Err(Error::bad_input(name.to_owned(), "must be a JSON object")),
        }
    }

    /// Reads an object inside of an array called `name`.
    ///
    /// # Errors
    /// [`Error::BadInput`] if the value is not an object.
    pub fn from_element(value: Value, name: &str) -> Result<Self, Error> {
        Self::from_value(value, name, format!("{name}."))
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let found = self.map.get(key).or_else(|| {
            self.map
                .iter()
                .find(|(candidate, _)| candidate.eq_ignore_ascii_case(key))
                .map(|(_, value)| value)
        });
        found.filter(|value| !value.is_null())
    }

    /// Returns whether the key has a value other than null.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Reads a string; missing is empty.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn string(&self, key: &str) -> Result<String, Error> {
        match self.get(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(Error::bad_input(self.name(key), "must be a string")),
        }
    }

    /// Reads an integer within a range; missing is 0.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn integer(&self, key: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, Error> {
        let Some(value) = self.get(key) else {
            return Ok(0);
        };
        value
            .as_i64()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (least, most) = (*range.start(), *range.end());
                let problem = if (least, most) == (i64::MIN, i64::MAX) {
                    "must be a whole number of at most 64 bits".to_owned()
                } else {
                    format!("must be a whole number between {least} and {most}")
                };
                Error::bad_input(self.name(key), problem)
            })
    }

    /// Reads an `int64`; missing is 0.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn int64(&self, key: &str) -> Result<i64, Error> {
        self.integer(key, i64::MIN..=i64::MAX)
    }

    /// Reads a `uint8`; missing is 0.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn uint8(&self, key: &str) -> Result<u8, Error> {
        self.integer(key, 0..=255)
            .map(|number| u8::try_from(number).unwrap_or_default())
    }

    /// Reads a `uint32`; missing is 0.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn uint32(&self, key: &str) -> Result<u32, Error> {
        self.integer(key, 0..=i64::from(u32::MAX))
            .map(|number| u32::try_from(number).unwrap_or_default())
    }

    /// Reads a flag: 0 or missing is off, any other number is on.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn flag(&self, key: &str) -> Result<bool, Error> {
        Ok(self.int64(key)? != 0)
    }

    /// Reads bytes in standard base64 with padding; missing is empty.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn bytes(&self, key: &str) -> Result<Vec<u8>, Error> {
        let text = self.string(key)?;
        STANDARD
            .decode(text)
            .map_err(|_| Error::bad_input(self.name(key), "must be standard base64 with padding"))
    }

    /// Reads an array; missing is empty.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn array(&self, key: &str) -> Result<&[Value], Error> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Array(values)) => Ok(values),
            Some(_) => Err(Error::bad_input(self.name(key), "must be an array")),
        }
    }

    /// Reads an array of strings; missing is empty.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn strings(&self, key: &str) -> Result<Vec<String>, Error> {
        self.array(key)?
            .iter()
            .map(|value| match value {
                Value::String(text) => Ok(text.clone()),
                Value::Null => Ok(String::new()),
                _ => Err(Error::bad_input(
                    self.name(key),
                    "must be an array of strings",
                )),
            })
            .collect()
    }

    /// Reads an object; missing is empty.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn object(&self, key: &str) -> Result<Self, Error> {
        let name = self.name(key);
        Self::from_element(self.get(key).cloned().unwrap_or(Value::Null), &name)
    }

    /// Reads an array of objects; missing is empty.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn objects(&self, key: &str) -> Result<Vec<Self>, Error> {
        let name = self.name(key);
        self.array(key)?
            .iter()
            .map(|value| Self::from_element(value.clone(), &name))
            .collect()
    }
}

/// Parses exactly one JSON value.
///
/// # Errors
/// [`Error::BadRequest`] with the position of the syntax error; [`Error::Overloaded`] or
/// [`Error::TooManyAtOnce`] if there is no memory left for the value.
pub(super) fn parse_json(body: &[u8]) -> Result<Value, Error> {
    hold(parsed_size(body))?;
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::BadRequest(
            format!("the body must be one JSON value, but it is not well-formed at {place}").into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(text: &str) -> LegacyBody {
        LegacyBody::parse(text.as_bytes()).unwrap()
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn keys_match_in_any_case_and_null_counts_as_missing() {
        let given = fields(r#"{"UID":"ann","Channel_Type":2,"payload":null,"zzz":[1]}"#);
        assert_eq!(given.string("uid").unwrap(), "ann");
        assert_eq!(given.uint8("channel_type").unwrap(), 2);
        assert_eq!(given.bytes("payload").unwrap(), Vec::<u8>::new());
        assert_eq!(given.int64("version").unwrap(), 0);
        assert!(fields("null").string("uid").unwrap().is_empty());
    }

    #[test]
    fn wrong_types_and_ranges_name_the_field() {
        let given = fields(
            r#"{"uid":1,"version":"1","unread":1.5,"channel_type":256,"header":{"red_dot":"1"},"subscribers":["a",1]}"#,
        );
        assert_eq!(refusal(given.string("uid")), "uid must be a string");
        assert!(
            refusal(given.int64("version"))
                .starts_with("version must be a whole number of at most 64 bits")
        );
        assert!(refusal(given.int64("unread")).starts_with("unread must be a whole number"));
        assert_eq!(
            refusal(given.uint8("channel_type")),
            "channel_type must be a whole number between 0 and 255"
        );
        assert!(
            refusal(given.object("header").unwrap().flag("red_dot"))
                .starts_with("header.red_dot must be a whole number")
        );
        assert_eq!(
            refusal(given.strings("subscribers")),
            "subscribers must be an array of strings"
        );
        assert_eq!(
            refusal(given.object("uid").map(|_| ())),
            "uid must be a JSON object"
        );
        assert!(
            refusal(fields(r#"{"version":99999999999999999999}"#).int64("version"))
                .starts_with("version must be")
        );
        assert!(
            refusal(fields(r#"{"version":1e3}"#).int64("version")).starts_with("version must be")
        );
        assert_eq!(
            refusal(fields(r#"{"payload":"***"}"#).bytes("payload")),
            "payload must be standard base64 with padding"
        );
    }

    #[test]
    fn body_must_be_one_json_object() {
        for (body, text) in [
            ("", "the body must be a JSON object, but it is empty"),
            ("[]", "the body must be a JSON object"),
            (
                "{",
                "the body must be one JSON value, but it is not well-formed at line 1, column 1",
            ),
            (
                r#"{"uid":"ann"} x"#,
                "the body must be one JSON value, but it is not well-formed at line 1, column 15",
            ),
            (
                "uid=ann",
                "the body must be one JSON value, but it is not well-formed at line 1, column 1",
            ),
        ] {
            assert_eq!(
                refusal(LegacyBody::parse(body.as_bytes()).map(|_| ())),
                text,
                "{body}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LegacyBody::parse(&body);
        }
    }
}
