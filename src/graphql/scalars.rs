//! Scalars of our own.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The largest whole number that JavaScript keeps exactly.
const MAX: u64 = (1 << 53) - 1;

/// A whole number from 0 to 2^53 − 1, as a JSON number: larger than `Int`, and exact in JavaScript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UInt53(pub u64);

impl From<i64> for UInt53 {
    fn from(number: i64) -> Self {
        Self(u64::try_from(number).unwrap_or_default().min(MAX))
    }
}

impl UInt53 {
    pub(super) fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// A whole number from 0 to 2^53 − 1, as a JSON number: larger than `Int`, and exact in JavaScript.
#[Scalar(name = "UInt53", specified_by_url = "https://datatracker.ietf.org/doc/html/rfc7493#section-2.2")]
impl ScalarType for UInt53 {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::Number(number) => match number.as_u64() {
                Some(number) if number <= MAX => Ok(Self(number)),
                _ => Err(InputValueError::custom(format!("must be a whole number from 0 to {MAX}"))),
            },
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

/// Bytes as standard base64 with padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

/// Bytes as standard base64 with padding.
#[Scalar(specified_by_url = "https://datatracker.ietf.org/doc/html/rfc4648#section-4")]
impl ScalarType for Base64 {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => {
                STANDARD.decode(text).map(Self).map_err(|_| InputValueError::custom("must be standard base64 with padding"))
            }
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(STANDARD.encode(&self.0))
    }
}

/// Any JSON value.
#[derive(Clone, Debug, PartialEq)]
pub struct Json(pub serde_json::Value);

/// Any JSON value.
#[Scalar(name = "JSON", specified_by_url = "https://datatracker.ietf.org/doc/html/rfc8259")]
impl ScalarType for Json {
    fn parse(value: Value) -> InputValueResult<Self> {
        value.into_json().map(Self).map_err(|_| InputValueError::custom("must be JSON"))
    }

    fn to_value(&self) -> Value {
        Value::from_json(self.0.clone()).unwrap_or_default()
    }
}
