//! Measures the text of a document in one pass, before it is parsed.

const THREE_QUOTES: &[u8] = b"\"\"\"";

/// Strings and comments count as one token or none: brackets and names in them are text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenStats {
    /// The deepest nesting of brackets.
    pub(super) max_depth: usize,
    /// Bytes of the longest name or number.
    pub(super) longest_name: usize,
    /// Number of names, numbers, strings and punctuators.
    pub(super) tokens: usize,
}

pub(super) fn scan(document: &str) -> TokenStats {
    let mut stats = TokenStats::default();
    let (mut depth, mut name) = (0_usize, 0);
    // If one block string is not closed, no later one is: searching each to the end would take
    // quadratic time.
    let mut blocks_close = true;
    let bytes = document.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let in_name = byte.is_ascii_alphanumeric() || *byte == b'_';
        stats.tokens += usize::from(if in_name {
            name == 0
        } else {
            byte.is_ascii_punctuation() && !b"#,".contains(byte)
        });
        name = if in_name { name + 1 } else { 0 };
        stats.longest_name = stats.longest_name.max(name);
        match byte {
            b'{' | b'[' | b'(' => {
                depth += 1;
                stats.max_depth = stats.max_depth.max(depth);
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
                    // Two quotes are an empty string, and the third begins another string.
                    blocks_close = false;
                    at += 1;
                }
            }
            b'"' => at = end_of_string(bytes, at),
            _ => {}
        }
        at += 1;
    }
    stats
}

/// Returns whether a block string begins here.
pub(super) fn starts_block(bytes: &[u8], at: usize) -> bool {
    bytes[at..].starts_with(THREE_QUOTES)
}

/// Returns where the block string that begins at `start` ends, if it does.
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

/// Returns where the string that begins at `start` ends. An unclosed string ends with its line,
/// where the parser stops.
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
    fn brackets_in_strings_and_comments_are_ignored() {
        let strings = format!("{{a(x: \"{0}\\\"{0}\") # {0}\n b}}", "{".repeat(300));
        assert_eq!(scan(&strings).max_depth, 2);
        assert_eq!(scan("{a(x: \"\"\"{{ \\\"\"\" {{ \" \"\"\")}").max_depth, 2);
    }

    #[test]
    fn strings_and_comments_end_like_in_the_parser() {
        for document in [
            "# {\r{{",
            "# {\n{{",
            "\"{\r{{",
            "\"\"\" \"{{",
            "\"\"\"\"\" \"{{",
            "\"\"\" \" # {\n\"\"{{",
        ] {
            assert_eq!(scan(document).max_depth, 2, "{document:?}");
        }
    }

    #[test]
    fn tokens_are_counted_by_the_specification() {
        for (document, tokens) in [
            ("", 0),
            ("{a}", 3),
            ("{ ab(c: 12, d: \"e f\") }", 11),
            ("{...f @x} # y z", 6),
            ("\"\"\"a b\"\"\" q", 2),
            ("$a!", 3),
        ] {
            assert_eq!(scan(document).tokens, tokens, "{document}");
        }
    }
}
