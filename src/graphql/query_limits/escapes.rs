//! Replaces escapes in strings that are valid by the specification and refused by the parser of
//! async-graphql 7.2.1: `\ud83d\ude00`, a surrogate pair as JSON encoders write it, and
//! `\u{1F600}`. They are replaced by their characters before the document is parsed. Spaces after
//! the string make up for the difference in length, so that positions in errors match the document
//! that was sent.

use std::borrow::Cow;

use async_graphql::Pos;
use async_graphql::parser::Error;

use super::lexer::{end_of_block, end_of_string, starts_block};

/// Returns the document with escapes replaced.
///
/// # Errors
/// Returns the position of an escape that is not a character.
pub(in crate::graphql) fn replace_escapes(document: &str) -> Result<Cow<'_, str>, Error> {
    if !document.contains("\\u") {
        return Ok(Cow::Borrowed(document));
    }
    let bytes = document.as_bytes();
    let mut to = String::with_capacity(document.len());
    // The part of the document before this position is already in `to`.
    let mut done = 0;
    let mut at = 0;
    let mut blocks_close = true;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'#' => {
                at += bytes[at..]
                    .iter()
                    .take_while(|byte| !matches!(byte, b'\n' | b'\r'))
                    .count()
            }
            b'"' if blocks_close && starts_block(bytes, at) => match end_of_block(bytes, at) {
                Some(end) => at = end,
                None => {
                    blocks_close = false;
                    at += 1;
                }
            },
            b'"' => {
                let end = end_of_string(bytes, at).min(bytes.len());
                to.push_str(&document[done..at]);
                let padding = replace_in_string(document, at, end, &mut to)?;
                // The closing quote, if there is one.
                let next = bytes.get(end).is_some_and(|byte| *byte == b'"');
                if next {
                    to.push('"');
                }
                to.extend(std::iter::repeat_n(' ', if next { padding } else { 0 }));
                done = end + usize::from(next);
                at = done;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    to.push_str(&document[done..]);
    Ok(Cow::Owned(to))
}

/// Appends a string from its opening quote, without the closing one. Returns how many characters
/// shorter it became.
fn replace_in_string(
    document: &str,
    start: usize,
    end: usize,
    to: &mut String,
) -> Result<usize, Error> {
    let mut saved = 0;
    let mut rest = &document[start..end];
    while let Some(found) = rest.find('\\') {
        let (before, escape) = rest.split_at(found);
        to.push_str(before);
        let at = end - escape.len();
        let (length, character) = match escape.as_bytes().get(1) {
            Some(b'u') => read_escape(escape)
                .map_err(|problem| syntax_error(document, at, escape, problem))?,
            // The character after the backslash may have several bytes; the parser refuses those.
            Some(_) => (
                1 + escape[1..].chars().next().map_or(0, char::len_utf8),
                None,
            ),
            None => (1, None),
        };
        match character {
            Some(character) => {
                let written = match character {
                    '"' | '\\' => format!("\\{character}"),
                    '\n' => "\\n".to_owned(),
                    '\r' => "\\r".to_owned(),
                    other => other.to_string(),
                };
                saved += length - written.chars().count();
                to.push_str(&written);
            }
            None => to.push_str(&escape[..length]),
        }
        rest = &escape[length..];
    }
    to.push_str(rest);
    Ok(saved)
}

/// Returns the length of the escape at the start of a text, and its character. The character is
/// `None` for escapes that the parser reads, or refuses, by itself.
fn read_escape(escape: &str) -> Result<(usize, Option<char>), &'static str> {
    if let Some(braced) = escape.strip_prefix("\\u{") {
        let digits = braced
            .find('}')
            .map(|end| &braced[..end])
            .unwrap_or_default();
        let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex
            .then(|| digits.trim_start_matches('0'))
            .filter(|digits| digits.len() <= 6);
        let number = number.map(|digits| u32::from_str_radix(digits, 16).unwrap_or_default());
        let character = number
            .and_then(char::from_u32)
            .ok_or("must name a character: \\u{1F600}")?;
        return Ok(("\\u{}".len() + digits.len(), Some(character)));
    }
    let unit = |text: &str| -> Option<u16> {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let Some(first) = unit(escape) else {
        return Ok((2, None));
    };
    if !(0xd800..=0xdfff).contains(&first) {
        return Ok((6, None));
    }
    let pair = [first, unit(&escape[6..]).unwrap_or_default()];
    let character = char::decode_utf16(pair).next().and_then(Result::ok);
    let character =
        character.ok_or("is half of a surrogate pair, which is not a character by itself")?;
    Ok((12, Some(character)))
}

fn syntax_error(document: &str, at: usize, escape: &str, problem: &str) -> Error {
    let before = &document[..at];
    let lines = before.replace("\r\n", "\n").replace('\r', "\n");
    let line = lines.matches('\n').count() + 1;
    let column = lines
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    let shown: String = escape.chars().take(6).collect();
    Error::Syntax {
        message: format!("the escape {shown} in a string {problem}"),
        start: Pos { line, column },
        end: None,
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::Value;
    use proptest::prelude::*;

    use super::*;

    fn replace(document: &str) -> String {
        replace_escapes(document).unwrap().into_owned()
    }

    #[test]
    fn escapes_become_characters_and_positions_are_kept() {
        for (document, expected) in [
            (r#"{a(b:"\ud83d\ude00") c}"#, r#"{a(b:"😀"           ) c}"#),
            (
                r#"{a(b:"\uD83D\uDE00x\u{1F600}")}"#,
                r#"{a(b:"😀x😀"                   )}"#,
            ),
            (
                r#"{a(b:"\u{22}\u{5c}\u{A}\u{d}\u{0000041}")}"#,
                r#"{a(b:"\"\\\n\rA"                        )}"#,
            ),
            // Escapes that the parser reads by itself, and plain text.
            (r#"{a(b:"\u00e9\\ud83d\n")}"#, r#"{a(b:"\u00e9\\ud83d\n")}"#),
            ("{a # \"\\ud83d\n}", "{a # \"\\ud83d\n}"),
            (
                r#"{a(b:"""\ud83d \""" """)}"#,
                r#"{a(b:"""\ud83d \""" """)}"#,
            ),
        ] {
            assert_eq!(replace(document), expected, "{document}");
            assert_eq!(
                replace(document).chars().count(),
                document.chars().count(),
                "{document}"
            );
        }
        let error =
            async_graphql::parser::parse_query(replace("{a(b:\"\\ud83d\\ude00\") !}")).unwrap_err();
        assert_eq!(
            error.positions().next().unwrap(),
            Pos {
                line: 1,
                column: 22
            }
        );
    }

    #[test]
    fn lone_surrogate_is_refused_with_its_position() {
        for (document, line, column) in [
            (r#"{a(b:"\ud83d")}"#, 1, 7),
            ("{\r\n\na(b:\"é\\ud83d\\u0041\")}", 3, 7),
            (r#"{a(b:"\ude00\ud83d")}"#, 1, 7),
            (r#"{a(b:"\u{d83d}")}"#, 1, 7),
            (r#"{a(b:"\u{110000}")}"#, 1, 7),
            (r#"{a(b:"\u{}")}"#, 1, 7),
            (r#"{a(b:"x\u{g}")}"#, 1, 8),
            (r#"{a(b:"\u{41")}"#, 1, 7),
        ] {
            let error = replace_escapes(document).unwrap_err();
            assert_eq!(
                error.positions().next(),
                Some(Pos { line, column }),
                "{document}"
            );
        }
    }

    proptest! {
        #[test]
        fn escaped_text_round_trips(text in any::<String>(), braced: bool) {
            let escape = |character: char| {
                if braced {
                    return format!("\\u{{{:x}}}", u32::from(character));
                }
                character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            };
            let escaped: String = text.chars().map(escape).collect();
            let document = replace(&format!("{{a(b:\"{escaped}\")}}"));
            let parsed = async_graphql::parser::parse_query(&document).unwrap();
            let (_, operation) = parsed.operations.iter().next().unwrap();
            let async_graphql::parser::types::Selection::Field(field) = &operation.node.selection_set.node.items[0].node else {
                unreachable!()
            };
            prop_assert_eq!(field.node.get_argument("b").unwrap().node.clone().into_const(), Some(Value::String(text)));
        }

        #[test]
        fn arbitrary_documents_do_not_panic(document in "[ -~\\n\\ré]{0,60}|(\"|\\\\|\\\\u|\\\\ud83d|\\\\ude00|\\{|\\}|é|1| |\n|#){0,30}") {
            if let Ok(document) = replace_escapes(&document) {
                let _ = async_graphql::parser::parse_query(document);
            }
        }
    }
}
