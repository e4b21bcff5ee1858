//! Validates JSON (RFC 8259). The content of a message is passed through as it was sent, so nothing
//! here interprets values: numbers of any length, lone surrogates and duplicate keys are valid JSON
//! as well.

/// The maximum nesting of arrays and objects. Many clients' parsers refuse to go deeper.
pub(super) const MAX_DEPTH: usize = 500;

/// Returns the bytes if they are one JSON value that nests at most [`MAX_DEPTH`] levels deep.
pub(super) fn as_json(bytes: &[u8]) -> Option<&[u8]> {
    std::str::from_utf8(bytes).ok()?;
    let mut scanner = Scanner { bytes, at: 0 };
    scanner.document()?;
    (scanner.at == bytes.len()).then_some(bytes)
}

/// A cursor over the text. Every method moves past the construct that it is named after, and
/// returns `None` if the text continues differently.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Parses one value with white space around it. Open brackets are kept in a list: recursion
    /// would let a message choose the depth of the stack.
    fn document(&mut self) -> Option<()> {
        let mut open: Vec<u8> = Vec::new();
        self.white_space();
        loop {
            // A value begins here.
            match self.peek()? {
                bracket @ (b'[' | b'{') => {
                    if open.len() == MAX_DEPTH {
                        return None;
                    }
                    self.at += 1;
                    self.white_space();
                    open.push(bracket);
                    if self.peek()? != closing(bracket) {
                        if bracket == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => self.string()?,
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => self.number()?,
            }
            // A value has ended here, or a bracket closes.
            loop {
                self.white_space();
                let Some(bracket) = open.last().copied() else {
                    return Some(());
                };
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        self.white_space();
                        if bracket == b'{' {
                            self.key()?;
                        }
                        break;
                    }
                    byte if byte == closing(bracket) => {
                        self.at += 1;
                        open.pop();
                    }
                    _ => return None,
                }
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn white_space(&mut self) {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    fn skip(&mut self, accepts: impl Fn(u8) -> bool) -> usize {
        let length = self.bytes[self.at..]
            .iter()
            .take_while(|byte| accepts(**byte))
            .count();
        self.at += length;
        length
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes[self.at..]
            .starts_with(word)
            .then(|| self.at += word.len())
    }

    /// Parses `"key":` and the white space after it.
    fn key(&mut self) -> Option<()> {
        self.string()?;
        self.white_space();
        self.word(b":")?;
        self.white_space();
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        self.word(b"\"")?;
        loop {
            self.skip(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                        b'u' => {
                            let digits = self.bytes.get(self.at + 1..self.at + 5)?;
                            if !digits.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            self.at += 5;
                        }
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        self.at += usize::from(self.peek()? == b'-');
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        (self.skip(|byte| byte.is_ascii_digit()) > 0).then_some(())
    }
}

fn closing(bracket: u8) -> u8 {
    if bracket == b'{' { b'}' } else { b']' }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_json(text: &str) -> bool {
        as_json(text.as_bytes()).is_some()
    }

    #[test]
    fn valid_json_is_accepted() {
        for text in [
            "null",
            " true ",
            "false\r\n\t",
            "0",
            "-0",
            "-0.0e-0",
            "1e400",
            "123456789012345678901234567890",
            "1.5E+3",
            "\"\"",
            "\"\\ud800\"",
            "\"\\u00e9 \\\" \\\\ \\/ \\b\\f\\n\\r\\t é\u{7f}\"",
            "[]",
            "{}",
            "[ ]",
            "{ }",
            "[1,[2,{\"a\":[]}],{}]",
            "{\"a\" : 1 , \"a\":{\"$serde_json::private::RawValue\":\"[\"}}",
        ] {
            assert!(is_json(text), "{text:?}");
        }
    }

    #[test]
    fn invalid_json_is_refused() {
        for text in [
            "",
            " ",
            "nul",
            "nulll",
            "True",
            "NaN",
            "Infinity",
            "+1",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "0x1",
            "1 2",
            "\"",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "'a'",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,]",
            "[1 2]",
            "[1}",
            "{\"a\":1]",
            "{",
            "}",
            "{\"a\"",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{a:1}",
            "{1:1}",
            "[] []",
            "\u{feff}1",
            "1//",
            "\u{a0}1",
            "\"\u{1}\"",
        ] {
            assert!(!is_json(text), "{text:?}");
        }
        assert_eq!(as_json(b"\"\xff\""), None);
        assert_eq!(as_json(b"\"\xed\xa0\x80\""), None);
    }

    #[test]
    fn nesting_is_limited() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
            let levels = open.matches(['[', '{']).count();
            let nested =
                |depth: usize| open.repeat(depth / levels) + "1" + &close.repeat(depth / levels);
            assert!(is_json(&nested(MAX_DEPTH)), "{open}");
            assert!(!is_json(&nested(MAX_DEPTH + levels)), "{open}");
        }
        assert!(!is_json(&"[".repeat(10_000_000)));
    }

    proptest! {
        // serde_json refuses some valid JSON, and accepts no invalid JSON.
        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}:,\" \\\\a1.eE+-]{0,12}|[ -~]{0,20}|.{0,20}") {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                prop_assert!(is_json(&text));
            }
            if is_json(&text) {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
            }
        }
    }
}
