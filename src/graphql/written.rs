//! Answers as JSON. What there are thousands of in one answer is written by its type at once,
//! instead of being made a tree of values first: async-graphql knows no such thing, so it travels
//! as `Value::Binary`, which nothing else in an answer is.

use async_graphql::{Response, ServerError, Value};
use bytes::Bytes;
use serde::Serialize;

use super::selections::MARKER;

/// JSON that stands in the answer as it is.
pub(super) fn written(json: impl Into<Bytes>) -> Value {
    Value::Binary(json.into())
}

#[derive(Serialize)]
struct Rest<'a> {
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    extensions: &'a std::collections::BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ServerError],
}

/// As [`Response`] serialises itself.
pub(super) fn body(answer: &Response) -> Vec<u8> {
    let mut to = Vec::with_capacity(512 + bytes_of(&answer.data));
    to.extend_from_slice(b"{\"data\":");
    write(&answer.data, &mut to);
    let rest = serde_json::to_vec(&Rest {
        extensions: &answer.extensions,
        errors: &answer.errors,
    })
    .unwrap_or_default();
    match rest.get(1..) {
        Some(rest) if rest.len() > 1 => {
            to.push(b',');
            to.extend_from_slice(rest);
        }
        _ => to.push(b'}'),
    }
    to
}

/// Bytes of what is written already.
fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Binary(json) => json.len(),
        Value::List(values) => values.iter().map(bytes_of).sum::<usize>() + 2,
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| key.len() + 24 + bytes_of(value))
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
                push_text(to, key);
                to.push(b':');
                write(value, to);
            }
            to.push(b'}');
        }
        Value::String(text) => push_text(to, text),
        Value::Null | Value::Number(_) | Value::Boolean(_) | Value::Enum(_) => push(to, value),
    }
}

/// Appends what has a JSON form.
pub(super) fn push(to: &mut Vec<u8>, value: &impl Serialize) {
    // Writing to memory does not fail, nor do these values.
    let _ = serde_json::to_writer(to, value);
}

/// Appends a text; most need no escapes.
pub(super) fn push_text(to: &mut Vec<u8>, text: &str) {
    if text
        .bytes()
        .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
    {
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    } else {
        push(to, &text);
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{Name, Pos, value};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_is_written_as_it_serialises_itself() {
        let data = value!({"a": [1, 2.5, -3, true, null, "x\"\\\n\u{1}ü"], "b": {"c": {}, "d": []}, "e\"": ""});
        let mut answer = Response::new(data.clone());
        assert_eq!(body(&answer), serde_json::to_vec(&answer).unwrap());
        answer
            .errors
            .push(ServerError::new("no", Some(Pos { line: 1, column: 2 })));
        assert_eq!(body(&answer), serde_json::to_vec(&answer).unwrap());
        answer = answer.extension("cost", value!({"n": 1}));
        assert_eq!(body(&answer), serde_json::to_vec(&answer).unwrap());
        answer.errors.clear();
        assert_eq!(body(&answer), serde_json::to_vec(&answer).unwrap());
        assert_eq!(
            body(&Response::default()),
            serde_json::to_vec(&Response::default()).unwrap()
        );
        let mut plain = Vec::new();
        write(&data, &mut plain);
        let fields = [(Name::new("x"), written(plain))].into_iter().collect();
        assert_eq!(
            body(&Response::new(Value::Object(fields))),
            serde_json::to_vec(&Response::new(value!({"x": data}))).unwrap()
        );
    }

    proptest! {
        #[test]
        fn texts_are_escaped(text in ".*") {
            let mut to = Vec::new();
            push_text(&mut to, &text);
            prop_assert_eq!(to, serde_json::to_vec(&text).unwrap());
        }
    }
}
