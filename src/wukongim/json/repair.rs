//! Rewrites well-formed JSON that `serde_json` cannot hold as a value, so that one odd value costs
//! only the field that it is in: nesting without a practical limit, halves of surrogate pairs, and
//! numbers outside the range of a double.

/// The levels of arrays and objects that are kept. No field that is decoded nests deeper.
const MAX_DEPTH: usize = 100;
/// Numbers from here on are written as [`LARGE_NUMBER`].
const MAX_NUMBER: f64 = 1e307;
/// Not longer than any number that it replaces.
const LARGE_NUMBER: &[u8] = b"1e300";
/// Replaces half of a surrogate pair: a control character, which no field accepts.
const NO_CHARACTER: &[u8] = b"\x7f";

/// Rewrites one well-formed JSON value; the result is not longer. Open brackets are counted
/// instead of followed by recursion, so that a body cannot choose the depth of the stack.
pub(super) fn repair(json: &[u8]) -> Vec<u8> {
    let mut to = Vec::with_capacity(json.len());
    let (mut at, mut depth) = (0, 0);
    while let Some(byte) = json.get(at) {
        let length = match byte {
            b'"' => string_length(&json[at..]),
            b'-' | b'0'..=b'9' => number_length(&json[at..]),
            _ => 1,
        };
        let token = &json[at..at + length];
        at += length;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth == MAX_DEPTH + 1 {
                    to.push(b'0');
                }
            }
            b']' | b'}' => {
                depth -= 1;
                if depth == MAX_DEPTH {
                    continue;
                }
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            continue;
        }
        match byte {
            b'"' => push_string(token, &mut to),
            b'-' | b'0'..=b'9' => push_number(token, &mut to),
            _ => to.extend_from_slice(token),
        }
    }
    to
}

/// Returns the length of the string at the start, with its quotes.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn number_length(text: &[u8]) -> usize {
    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    text.iter().take_while(is_part).count()
}

fn push_string(string: &[u8], to: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(byte) = string.get(at) {
        let rest = &string[at..];
        let length = match (byte, escaped_unit(rest)) {
            (b'\\', None) => 2,
            (b'\\', Some(0xd800..=0xdbff)) => match escaped_unit(&rest[6..]) {
                Some(0xdc00..=0xdfff) => 12,
                _ => 0,
            },
            (b'\\', Some(0xdc00..=0xdfff)) => 0,
            (b'\\', Some(_)) => 6,
            _ => 1,
        };
        if length == 0 {
            to.extend_from_slice(NO_CHARACTER);
            at += 6;
        } else {
            to.extend_from_slice(&rest[..length]);
            at += length;
        }
    }
}

/// Returns the UTF-16 unit if the text starts with `\uXXXX`.
fn escaped_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn push_number(number: &[u8], to: &mut Vec<u8>) {
    let value: Option<f64> = std::str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse().ok());
    if value.is_some_and(|value| value.abs() < MAX_NUMBER) {
        to.extend_from_slice(number);
    } else {
        to.extend_from_slice(LARGE_NUMBER);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn repaired(text: &str) -> String {
        String::from_utf8(repair(text.as_bytes())).unwrap()
    }

    #[test]
    fn odd_values_are_replaced() {
        for (text, expected) in [
            (r#"{"a" : [1, "x\"y\\"]}"#, r#"{"a" : [1, "x\"y\\"]}"#),
            (r#""\ud83d\ude00\u00e9""#, r#""\ud83d\ude00\u00e9""#),
            (r#""a\ud800b""#, "\"a\x7fb\""),
            (r#""\udc00\ud800""#, "\"\x7f\x7f\""),
            (r#""\ud800\ud83d\ude00""#, "\"\x7f\\ud83d\\ude00\""),
            (r#""\\ud800""#, r#""\\ud800""#),
            ("[1e400,-1E+999,1e-400,12]", "[1e300,1e300,1e-400,12]"),
        ] {
            assert_eq!(repaired(text), expected, "{text}");
        }
        assert_eq!(repaired(&"9".repeat(400)), "1e300");
    }

    #[test]
    fn deep_nesting_is_cut() {
        let nested = |depth: usize| "[".repeat(depth) + "{\"a\":\"]\"}" + &"]".repeat(depth);
        assert_eq!(repaired(&nested(MAX_DEPTH - 1)), nested(MAX_DEPTH - 1));
        let cut = "[".repeat(MAX_DEPTH) + "0" + &"]".repeat(MAX_DEPTH);
        for depth in [MAX_DEPTH, MAX_DEPTH + 1, 10_000] {
            assert_eq!(repaired(&nested(depth)), cut, "{depth}");
        }
        let two = format!("[{},{}]", nested(10_000), nested(10_000));
        let value: Value = serde_json::from_str(&repaired(&two)).unwrap();
        assert_eq!(value.as_array().unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn other_values_stay_as_they_are(text in ".{0,20}", number: i64, fraction: f32) {
            let value = json!({ text.as_str(): [text, number, fraction, null, {}] });
            prop_assert_eq!(repaired(&value.to_string()), value.to_string());
        }

        #[test]
        fn repaired_json_can_be_parsed(
            text in "[\\[\\]{}:,\" \\\\ua1.eE+-]{0,14}|\"(\\\\u[dD][89cC]00|x){0,4}\"|-?[0-9]{1,3}(e[0-9]{1,4})?"
        ) {
            if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
                let repaired = repair(text.as_bytes());
                prop_assert!(repaired.len() <= text.len());
                prop_assert!(serde_json::from_slice::<Value>(&repaired).is_ok());
            }
        }
    }
}
