//! Serialises responses. Large values, such as thousands of messages, are serialised by their type
//! directly, without a tree of values. async-graphql has no type for that, so the JSON travels as
//! `Value::Binary`, which responses do not use otherwise.

use async_graphql::{Response, ServerError, Value};
use bytes::Bytes;
use serde::Serialize;

use super::empty_selections::MARKER;

/// Wraps serialised JSON that is copied into the response as it is.
pub(super) fn raw_json(json: impl Into<Bytes>) -> Value {
    Value::Binary(json.into())
}

#[derive(Serialize)]
struct ResponseTail<'a> {
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    extensions: &'a std::collections::BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ServerError],
}

/// Serialises a response in the same form as [`Response`] itself.
pub(super) fn serialize_response(response: &Response) -> Vec<u8> {
    let mut to = Vec::with_capacity(512 + estimated_size(&response.data));
    to.extend_from_slice(b"{\"data\":");
    write(&response.data, &mut to);
    let tail = serde_json::to_vec(&ResponseTail {
        extensions: &response.extensions,
        errors: &response.errors,
    })
    .unwrap_or_default();
    match tail.get(1..) {
        Some(tail) if tail.len() > 1 => {
            to.push(b',');
            to.extend_from_slice(tail);
        }
        _ => to.push(b'}'),
    }
    to
}

/// Estimates the serialised size of a value.
fn estimated_size(value: &Value) -> usize {
    match value {
        Value::Binary(json) => json.len(),
        Value::List(values) => values.iter().map(estimated_size).sum::<usize>() + 2,
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| key.len() + 24 + estimated_size(value))
            .sum(),
        _ => 16,
    }
}

fn write(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Binary(json) => to.extend_from_slice(json),
        Value::List(values) => {
            to.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    to.push(b',');
                }
                write(value, to);
            }
            to.push(b']');
        }
        Value::Object(fields) => {
            to.push(b'{');
            for (at, (key, value)) in fields.iter().filter(|(key, _)| **key != MARKER).enumerate() {
                if at > 0 {
                    to.push(b',');
                }
                push_string(to, key);
                to.push(b':');
                write(value, to);
            }
            to.push(b'}');
        }
        Value::String(text) => push_string(to, text),
        Value::Null | Value::Number(_) | Value::Boolean(_) | Value::Enum(_) => push_json(to, value),
    }
}

/// Appends a value as JSON.
pub(super) fn push_json(to: &mut Vec<u8>, value: &impl Serialize) {
    // Writing to memory does not fail, and these values always have a JSON form.
    let _ = serde_json::to_writer(to, value);
}

/// Appends a string; most strings need no escapes.
pub(super) fn push_string(to: &mut Vec<u8>, text: &str) {
    if text
        .bytes()
        .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
    {
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    } else {
        push_json(to, &text);
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{Name, Pos, value};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn response_is_serialised_like_async_graphql_does() {
        let data = value!({"a": [1, 2.5, -3, true, null, "x\"\\\n\u{1}ü"], "b": {"c": {}, "d": []}, "e\"": ""});
        let mut response = Response::new(data.clone());
        assert_eq!(
            serialize_response(&response),
            serde_json::to_vec(&response).unwrap()
        );
        response
            .errors
            .push(ServerError::new("no", Some(Pos { line: 1, column: 2 })));
        assert_eq!(
            serialize_response(&response),
            serde_json::to_vec(&response).unwrap()
        );
        response = response.extension("cost", value!({"n": 1}));
        assert_eq!(
            serialize_response(&response),
            serde_json::to_vec(&response).unwrap()
        );
        response.errors.clear();
        assert_eq!(
            serialize_response(&response),
            serde_json::to_vec(&response).unwrap()
        );
        assert_eq!(
            serialize_response(&Response::default()),
            serde_json::to_vec(&Response::default()).unwrap()
        );
        let mut plain = Vec::new();
        write(&data, &mut plain);
        let fields = [(Name::new("x"), raw_json(plain))].into_iter().collect();
        assert_eq!(
            serialize_response(&Response::new(Value::Object(fields))),
            serde_json::to_vec(&Response::new(value!({"x": data}))).unwrap()
        );
    }

    proptest! {
        #[test]
        fn strings_are_escaped(text in ".*") {
            let mut to = Vec::new();
            push_string(&mut to, &text);
            prop_assert_eq!(to, serde_json::to_vec(&text).unwrap());
        }
    }
}
