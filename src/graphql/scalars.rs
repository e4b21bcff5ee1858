//! Custom scalars.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::SecondsFormat;

use super::raw_json::raw_json;
use crate::model::{EpochMs, Seq, Version};

/// The largest integer that JavaScript represents exactly.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A whole number from 0 to 2^53 − 1, as a JSON number: exceeds `Int` and is exact in JavaScript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UInt53(pub u64);

impl From<i64> for UInt53 {
    fn from(number: i64) -> Self {
        Self(
            u64::try_from(number)
                .unwrap_or_default()
                .min(MAX_SAFE_INTEGER),
        )
    }
}

impl From<Version> for UInt53 {
    fn from(version: Version) -> Self {
        version.0.into()
    }
}

impl From<Seq> for UInt53 {
    fn from(seq: Seq) -> Self {
        seq.0.into()
    }
}

impl UInt53 {
    pub(super) fn seq(self) -> Seq {
        Seq(self.signed())
    }

    pub(super) fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// A whole number from 0 to 2^53 − 1, as a JSON number: exceeds `Int` and is exact in JavaScript.
#[Scalar(
    name = "UInt53",
    specified_by_url = "https://datatracker.ietf.org/doc/html/rfc7493#section-2.2"
)]
impl ScalarType for UInt53 {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::Number(number) => match number.as_u64() {
                Some(number) if number <= MAX_SAFE_INTEGER => Ok(Self(number)),
                _ => Err(InputValueError::custom(format!(
                    "must be a whole number from 0 to {MAX_SAFE_INTEGER}"
                ))),
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
            Value::String(text) => STANDARD
                .decode(text)
                .map(Self)
                .map_err(|_| InputValueError::custom("must be standard base64 with padding")),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(STANDARD.encode(&self.0))
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime(pub EpochMs);

impl DateTime {
    /// Formats the time as RFC 3339 with a fixed length, so that texts sort like times.
    pub(super) fn text(self) -> String {
        // The years 0 to 9999; other years have more digits.
        let ms = self.0.0.clamp(-62_167_219_200_000, 253_402_300_799_999);
        chrono::DateTime::from_timestamp_millis(ms)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

/// A point in time in RFC 3339, in UTC, always with three fractional digits and `Z`:
/// `2026-11-27T04:52:58.120Z`.
#[Scalar(
    name = "DateTime",
    specified_by_url = "https://datatracker.ietf.org/doc/html/rfc3339"
)]
impl ScalarType for DateTime {
    fn parse(_: Value) -> InputValueResult<Self> {
        Err(InputValueError::custom("is only in answers"))
    }

    fn to_value(&self) -> Value {
        Value::String(self.text())
    }
}

/// A serialised JSON value. It is copied into the response as it is: parsing could lose parts that
/// Rust's types cannot represent.
#[derive(Clone, Debug, PartialEq)]
pub struct Json(pub Bytes);

/// Any JSON value.
#[Scalar(
    name = "JSON",
    specified_by_url = "https://datatracker.ietf.org/doc/html/rfc8259"
)]
impl ScalarType for Json {
    fn parse(_: Value) -> InputValueResult<Self> {
        Err(InputValueError::custom("is only in answers"))
    }

    fn to_value(&self) -> Value {
        raw_json(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_fixed_length_and_sort_as_text() {
        let times = [
            i64::MIN,
            -1,
            0,
            1,
            999,
            1_000,
            1_795_393_000_120,
            253_402_300_799_999,
            i64::MAX,
        ];
        let texts = times.map(|ms| DateTime(EpochMs(ms)).text());
        assert!(
            texts.is_sorted() && texts.iter().all(|text| text.len() == 24),
            "{texts:?}"
        );
        assert_eq!(texts[2], "1970-01-01T00:00:00.000Z");
        assert_eq!(texts[6], "2026-11-23T00:16:40.120Z");
    }
}
