//! JSON objects, decoded with the leniency of Go's decoder: keys match in any case, unknown keys are
//! ignored, `null` and missing fields have the zero value, and other values must have the exact
//! type.
//!
//! A request body is a struct that derives `Deserialize`. Its fields are decoded in the order of
//! their declaration, so the first one with a wrong value is named in the error, whatever the order
//! of the keys was. No field needs `#[serde(default)]` to be decoded; the attribute only marks the
//! fields that the `OpenAPI` document describes as optional.

use std::fmt;
use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Map, Value};

use crate::budget::{hold, parsed_size};
use crate::error::Error;

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

/// A flag: 0 or missing is off, any other number is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(|number| Self(number != 0))
    }
}

/// Bytes in standard base64 with padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        STANDARD
            .decode(String::deserialize(deserializer)?)
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

/// A wrong value.
#[derive(Debug)]
struct InvalidValue {
    /// The names of the fields on the way to the value, joined with dots; empty for the value
    /// itself.
    field: String,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    NotString,
    NotArray,
    NotObject,
    NotInteger,
    OutOfRange(RangeInclusive<i64>),
    Other(String),
}

impl InvalidValue {
    /// Returns the error for the value that contains this one in a field.
    fn in_field(mut self, name: &str) -> Self {
        if !self.field.is_empty() {
            self.field.insert(0, '.');
        }
        self.field.insert_str(0, name);
        self
    }

    /// Returns the error for the array that contains this value. Elements are not named, so the
    /// text is about the array.
    fn in_array(mut self) -> Self {
        if self.field.is_empty() {
            self.problem = match self.problem {
                Problem::NotString => Problem::Other("must be an array of strings".to_owned()),
                Problem::OutOfRange(range) => Problem::Other(format!(
                    "must be an array of numbers between {} and {}",
                    range.start(),
                    range.end()
                )),
                other => other,
            };
        }
        self
    }

    /// Returns the error for a caller. `whole` is the name of the decoded value, `prefix` that
    /// before the names of its fields.
    fn into_error(self, whole: &'static str, prefix: Option<&str>) -> Error {
        let problem = self.problem.to_string();
        match (self.field.is_empty(), prefix) {
            (true, _) => Error::bad_input(whole, problem),
            (false, None) => Error::bad_input(self.field, problem),
            (false, Some(prefix)) => Error::bad_input(format!("{prefix}.{}", self.field), problem),
        }
    }
}

impl From<Problem> for InvalidValue {
    fn from(problem: Problem) -> Self {
        Self {
            field: String::new(),
            problem,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotString => f.write_str("must be a string"),
            Self::NotArray => f.write_str("must be an array"),
            Self::NotObject => f.write_str("must be a JSON object"),
            Self::NotInteger => f.write_str("must be a whole number"),
            Self::OutOfRange(range) if *range == (i64::MIN..=i64::MAX) => {
                f.write_str("must be a whole number of at most 64 bits")
            }
            Self::OutOfRange(range) => write!(
                f,
                "must be a whole number between {} and {}",
                range.start(),
                range.end()
            ),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

impl std::error::Error for InvalidValue {}

impl serde::de::Error for InvalidValue {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Problem::Other(text.to_string()).into()
    }
}

/// Decodes one value. Every type has a zero value, which `null` stands for.
struct ValueDecoder {
    value: Value,
    source: Source,
}

impl ValueDecoder {
    fn integer(&self, range: RangeInclusive<i64>) -> Result<i64, InvalidValue> {
        let number = match &self.value {
            Value::Null => return Ok(0),
            Value::String(text) if self.source == Source::Query => {
                if text.is_empty() {
                    return Ok(0);
                }
                Some(text.parse().map_err(|_| Problem::NotInteger)?)
            }
            value => value.as_i64(),
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| Problem::OutOfRange(range).into())
    }
}

macro_rules! decode_integers {
    ($($method:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidValue> {
            visitor.visit_i64(self.integer(i64::from(<$type>::MIN)..=i64::from(<$type>::MAX))?)
        }
    )*};
}

impl<'de> Deserializer<'de> for ValueDecoder {
    type Error = InvalidValue;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidValue> {
        self.value
            .deserialize_any(visitor)
            .map_err(InvalidValue::custom)
    }

    decode_integers!(
        deserialize_i8 i8,
        deserialize_i16 i16,
        deserialize_i32 i32,
        deserialize_i64 i64,
        deserialize_u8 u8,
        deserialize_u16 u16,
        deserialize_u32 u32
    );

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidValue> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidValue> {
        match self.value {
            Value::Null => visitor.visit_string(String::new()),
            Value::String(text) => visitor.visit_string(text),
            _ => Err(Problem::NotString.into()),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidValue> {
        match self.value {
            Value::Null => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<u8>())),
            Value::Array(values) => visitor.visit_seq(ElementDecoder {
                values: values.into_iter(),
                source: self.source,
            }),
            _ => Err(Problem::NotArray.into()),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, InvalidValue> {
        let mut object = JsonObject::from_value(self.value).ok_or(Problem::NotObject)?;
        let object = ObjectDecoder {
            map: &mut object.map,
            source: self.source,
        };
        object.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidValue> {
        if self.value.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, InvalidValue> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, InvalidValue> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i128 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct map enum
        identifier
    }
}

/// Decodes the elements of an array.
struct ElementDecoder {
    values: std::vec::IntoIter<Value>,
    source: Source,
}

impl<'de> SeqAccess<'de> for ElementDecoder {
    type Error = InvalidValue;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, InvalidValue> {
        let Some(value) = self.values.next() else {
            return Ok(None);
        };
        let source = self.source;
        seed.deserialize(ValueDecoder { value, source })
            .map(Some)
            .map_err(InvalidValue::in_array)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len())
    }
}

/// Decodes structs from an object, and moves their fields out of it.
struct ObjectDecoder<'a> {
    map: &'a mut Map<String, Value>,
    source: Source,
}

impl<'de> Deserializer<'de> for ObjectDecoder<'_> {
    type Error = InvalidValue;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidValue> {
        let value = Value::Object(std::mem::take(self.map));
        let source = self.source;
        ValueDecoder { value, source }.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, InvalidValue> {
        visitor.visit_map(FieldDecoder {
            map: self.map,
            source: self.source,
            names: fields.iter(),
            current: "",
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Decodes the fields of a struct in the order of their declaration.
struct FieldDecoder<'a> {
    map: &'a mut Map<String, Value>,
    source: Source,
    names: std::slice::Iter<'static, &'static str>,
    current: &'static str,
}

impl FieldDecoder<'_> {
    /// Moves the value of the current field out of the object. The exact name comes first, then the
    /// first key that differs from it in case only.
    fn take_value(&mut self) -> Value {
        if let Some(value) = self.map.get_mut(self.current) {
            return value.take();
        }
        self.map
            .iter_mut()
            .find(|(key, _)| key.eq_ignore_ascii_case(self.current))
            .map_or(Value::Null, |(_, value)| value.take())
    }
}

impl<'de> MapAccess<'de> for FieldDecoder<'_> {
    type Error = InvalidValue;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, InvalidValue> {
        let Some(name) = self.names.next() else {
            return Ok(None);
        };
        self.current = name;
        seed.deserialize(BorrowedStrDeserializer::new(name))
            .map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, InvalidValue> {
        let (value, source) = (self.take_value(), self.source);
        seed.deserialize(ValueDecoder { value, source })
            .map_err(|invalid| invalid.in_field(self.current))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Header {
        no_persist: Flag,
        red_dot: Flag,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Channel {
        channel_id: String,
        channel_type: u8,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Everything {
        uid: String,
        version: i64,
        message_seq: u32,
        channel_type: u8,
        header: Header,
        subscribers: Vec<String>,
        types: Vec<u8>,
        channels: Vec<Channel>,
        payload: Base64,
        read_seq: Option<u32>,
    }

    fn decode(text: &str) -> Result<Everything, Error> {
        JsonObject::parse(text.as_bytes())?.decode()
    }

    fn refusal(text: &str) -> String {
        decode(text).unwrap_err().to_string()
    }

    #[test]
    fn keys_match_in_any_case_and_null_counts_as_missing() {
        let given = decode(
            r#"{"UID":"ann","Channel_Type":2,"payload":null,"zzz":[1],"header":{"RED_DOT":7},
                "subscribers":["a",null],"types":[null,3],"channels":[null,{"channel_ID":"g"}],"read_seq":0}"#,
        )
        .unwrap();
        let expected = Everything {
            uid: "ann".to_owned(),
            channel_type: 2,
            header: Header {
                no_persist: Flag(false),
                red_dot: Flag(true),
            },
            subscribers: vec!["a".to_owned(), String::new()],
            types: vec![0, 3],
            channels: vec![
                Channel::default(),
                Channel {
                    channel_id: "g".to_owned(),
                    channel_type: 0,
                },
            ],
            read_seq: Some(0),
            ..Everything::default()
        };
        assert_eq!(given, expected);
        for text in [
            "null",
            "{}",
            r#"{"uid":null,"channels":null,"header":null}"#,
        ] {
            assert_eq!(decode(text).unwrap(), Everything::default(), "{text}");
        }
    }

    #[test]
    fn exact_keys_come_first_and_the_last_duplicate_counts() {
        for (text, uid) in [
            (r#"{"Uid":"b","uid":"a","UID":"c"}"#, "a"),
            (r#"{"uid":"a","uid":"b"}"#, "b"),
            (r#"{"Uid":"a","UID":"b","Uid":"c"}"#, "c"),
            (r#"{"UID":"b","uid":null}"#, ""),
        ] {
            assert_eq!(decode(text).unwrap().uid, uid, "{text}");
        }
    }

    #[test]
    fn wrong_types_and_ranges_name_the_field() {
        for (text, expected) in [
            (r#"{"uid":1}"#, "uid must be a string"),
            (
                r#"{"version":"1"}"#,
                "version must be a whole number of at most 64 bits",
            ),
            (
                r#"{"version":1.5}"#,
                "version must be a whole number of at most 64 bits",
            ),
            (
                r#"{"version":1e3}"#,
                "version must be a whole number of at most 64 bits",
            ),
            (
                r#"{"version":99999999999999999999}"#,
                "version must be a whole number of at most 64 bits",
            ),
            (
                r#"{"version":9223372036854775808}"#,
                "version must be a whole number of at most 64 bits",
            ),
            (
                r#"{"message_seq":-1}"#,
                "message_seq must be a whole number between 0 and 4294967295",
            ),
            (
                r#"{"Channel_Type":256}"#,
                "channel_type must be a whole number between 0 and 255",
            ),
            (
                r#"{"header":{"red_dot":"1"}}"#,
                "header.red_dot must be a whole number of at most 64 bits",
            ),
            (r#"{"header":[]}"#, "header must be a JSON object"),
            (r#"{"subscribers":{}}"#, "subscribers must be an array"),
            (
                r#"{"subscribers":["a",1]}"#,
                "subscribers must be an array of strings",
            ),
            (
                r#"{"types":[1,256]}"#,
                "types must be an array of numbers between 0 and 255",
            ),
            (
                r#"{"types":["1"]}"#,
                "types must be an array of numbers between 0 and 255",
            ),
            (r#"{"channels":[{},1]}"#, "channels must be a JSON object"),
            (
                r#"{"channels":[{"channel_id":1}]}"#,
                "channels.channel_id must be a string",
            ),
            (r#"{"payload":1}"#, "payload must be a string"),
            (
                r#"{"payload":"***"}"#,
                "payload must be standard base64 with padding",
            ),
            (
                r#"{"read_seq":-1}"#,
                "read_seq must be a whole number between 0 and 4294967295",
            ),
            // The first field of the struct, not of the text.
            (r#"{"version":"1","uid":1}"#, "uid must be a string"),
        ] {
            assert_eq!(refusal(text), expected, "{text}");
        }
    }

    #[test]
    fn values_inside_of_answers_have_a_name() {
        let refusal = |text: &str| {
            let value = serde_json::from_str(text).unwrap();
            let result: Result<Channel, _> = decode_value(value, "conversation");
            result.unwrap_err().to_string()
        };
        assert_eq!(refusal("[]"), "conversation must be a JSON object");
        assert_eq!(
            refusal(r#"{"channel_id":1}"#),
            "conversation.channel_id must be a string"
        );
    }

    #[test]
    fn numbers_of_queries_are_texts() {
        let decode = |query: &str| JsonObject::from_query(query).decode::<Channel>();
        let channel = decode("channel_id=g%201&channel_type=2&zzz").unwrap();
        assert_eq!(
            (channel.channel_id.as_str(), channel.channel_type),
            ("g 1", 2)
        );
        assert_eq!(decode("channel_type=").unwrap(), Channel::default());
        for (query, expected) in [
            ("channel_type=x", "channel_type must be a whole number"),
            (
                "channel_type=256",
                "channel_type must be a whole number between 0 and 255",
            ),
        ] {
            assert_eq!(decode(query).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn two_structs_share_an_object_and_wrong_values_can_be_kept_apart() {
        #[derive(Deserialize)]
        struct Message {
            channel_id: Checked<String>,
            seq: Checked<u32>,
        }
        let mut object =
            JsonObject::parse(br#"{"channel_id":1,"seq":7,"subscribers":["a"]}"#).unwrap();
        let all: Everything = object.decode().unwrap();
        let message: Message = object.decode().unwrap();
        assert_eq!(all.subscribers, ["a"]);
        assert_eq!(message.seq.as_ref(), Some(&7));
        assert_eq!(message.channel_id.or("wrong"), Err("wrong"));
    }

    #[test]
    fn body_must_be_one_json_object() {
        for (body, text) in [
            ("", "the body must be a JSON object, but it is empty"),
            (" \n", "the body must be a JSON object, but it is empty"),
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
            // Also inside of unknown keys.
            (
                r#"{"zzz":"\ud800"}"#,
                "the body must be one JSON value, but it is not well-formed at line 1, column 15",
            ),
        ] {
            assert_eq!(refusal(body), text, "{body}");
        }
        let deep = format!("{}{}", r#"{"zzz":"#, "[".repeat(200));
        assert!(refusal(&deep).contains("not well-formed"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = JsonObject::parse(&body).and_then(|mut object| object.decode::<Everything>());
        }
    }
}
