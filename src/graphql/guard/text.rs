//! What a document's text tells before anything parses it, in one pass.

const THREE_QUOTES: &[u8] = b"\"\"\"";

/// Strings and comments count as what they are: brackets and names in them are text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measured {
    /// The deepest nesting of brackets.
    pub(super) deepest: usize,
    /// Bytes of the longest name or number.
    pub(super) longest: usize,
    /// Names, numbers, strings and punctuators.
    pub(super) tokens: usize,
}

pub(super) fn measure(document: &str) -> Measured {
    let mut measured = Measured::default();
    let (mut depth, mut name) = (0_usize, 0);
    // When one block string is not closed, none after it is: they would all be searched to the end.
    let mut blocks_close = true;
    let bytes = document.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let in_name = byte.is_ascii_alphanumeric() || *byte == b'_';
        measured.tokens += usize::from(if in_name {
            name == 0
        } else {
            byte.is_ascii_punctuation() && !b"#,".contains(byte)
        });
        name = if in_name { name + 1 } else { 0 };
        measured.longest = measured.longest.max(name);
        match byte {
            b'{' | b'[' | b'(' => {
                depth += 1;
                measured.deepest = measured.deepest.max(depth);
            }
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b'#' => {
                at += bytes[at..]
                    .iter()
                    .take_while(|byte| !matches!(byte, b'\n' | b'\r'))
                    .count()
            }
            b'.' if bytes[at..].starts_with(b"...") => at += 2,
            b'"' if blocks_close && starts_block(bytes, at) => {
                if let Some(end) = end_of_block(bytes, at) {
                    at = end;
                } else {
                    // Two are an empty string, and the third begins another.
                    blocks_close = false;
                    at += 1;
                }
            }
            b'"' => at = end_of_string(bytes, at),
            _ => {}
        }
        at += 1;
    }
    measured
}

/// Whether a block string begins here.
pub(super) fn starts_block(bytes: &[u8], at: usize) -> bool {
    bytes[at..].starts_with(THREE_QUOTES)
}

/// Where the block string that begins at `start` ends, if it does.
pub(super) fn end_of_block(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + THREE_QUOTES.len();
    while at < bytes.len() {
        if bytes[at..].starts_with(THREE_QUOTES) {
            return Some(at + 2);
        }
        at += if bytes[at..].starts_with(b"\\\"\"\"") {
            4
        } else {
            1
        };
    }
    None
}

/// Where the string that begins at `start` ends. One that is not closed ends with its line, and
/// there the parser gives up.
pub(super) fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' | b'\n' | b'\r' => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_and_comments_are_text() {
        let strings = format!("{{a(x: \"{0}\\\"{0}\") # {0}\n b}}", "{".repeat(300));
        assert_eq!(measure(&strings).deepest, 2);
        assert_eq!(measure("{a(x: \"\"\"{{ \\\"\"\" {{ \" \"\"\")}").deepest, 2);
    }

    #[test]
    fn strings_and_comments_end_where_the_parser_ends_them() {
        for document in [
            "# {\r{{",
            "# {\n{{",
            "\"{\r{{",
            "\"\"\" \"{{",
            "\"\"\"\"\" \"{{",
            "\"\"\" \" # {\n\"\"{{",
        ] {
            assert_eq!(measure(document).deepest, 2, "{document:?}");
        }
    }

    #[test]
    fn tokens_are_counted_as_the_specification_does() {
        for (document, tokens) in [
            ("", 0),
            ("{a}", 3),
            ("{ ab(c: 12, d: \"e f\") }", 11),
            ("{...f @x} # y z", 6),
            ("\"\"\"a b\"\"\" q", 2),
            ("$a!", 3),
        ] {
            assert_eq!(measure(document).tokens, tokens, "{document}");
        }
    }
}
