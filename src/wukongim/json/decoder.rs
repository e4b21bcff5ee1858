//! Decodes parsed JSON and query strings into types.

use std::ops::RangeInclusive;

use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use super::invalid_value::{InvalidValue, Problem};
use super::{JsonObject, Source};

/// Decodes one value. Every type has a zero value, which `null` stands for.
pub(super) struct ValueDecoder {
    pub(super) value: Value,
    pub(super) source: Source,
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
    pub(super) source: Source,
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
pub(super) struct ObjectDecoder<'a> {
    pub(super) map: &'a mut Map<String, Value>,
    pub(super) source: Source,
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
    pub(super) map: &'a mut Map<String, Value>,
    pub(super) source: Source,
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
