//! Texts that have made parsers crash, or could.

use serde_json::json;

/// The name of a text, and the text.
pub type Text = (&'static str, Vec<u8>);

/// Private key of `serde_json`: with the feature `raw_value`, an object with this key is replaced
/// by its text, parsed again.
pub const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Nested raw values inside arrays, up to this length. Ten kilobytes of them overflowed the stack.
pub fn raw_values(bytes: usize) -> String {
    let mut text = "1".to_owned();
    while text.len() < bytes {
        let inner = text.replace('\\', "\\u005c").replace('"', "\\u0022");
        text = format!(
            "{}{{\"{RAW_VALUE}\":\"{inner}\"}}{}",
            "[".repeat(125),
            "]".repeat(125)
        );
    }
    text
}

/// JSON in a string of JSON in a string, up to this length.
fn quoted(bytes: usize) -> String {
    let mut text = "[".repeat(200) + &"]".repeat(200);
    while text.len() < bytes {
        text = json!({ "a": text }).to_string();
    }
    text
}

/// JSON values, and texts that are nearly JSON. The long ones have about `bytes` bytes.
pub fn texts(bytes: usize) -> Vec<Text> {
    let arrays = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let objects = |depth: usize| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
    let mixed = |depth: usize| "[{\"a\":".repeat(depth) + "1" + &"}]".repeat(depth);
    let written = [
        ("a raw value", json!({ RAW_VALUE: "\"w3\"" }).to_string()),
        ("raw values", raw_values(bytes.min(10 << 10))),
        ("many raw values", raw_values(bytes / 2)),
        (
            "a private number",
            r#"{"$serde_json::private::Number":"1"}"#.to_owned(),
        ),
        ("arrays within the limit", arrays(100)),
        ("arrays at the limit", arrays(127)),
        ("arrays above the limit", arrays(129)),
        ("objects within the limit", objects(100)),
        ("many arrays", arrays(bytes / 2)),
        ("arrays without end", "[".repeat(bytes)),
        ("many objects", objects(bytes / 6)),
        ("objects without end", "{\"a\":".repeat(bytes / 5)),
        ("arrays and objects", mixed(bytes / 8)),
        (
            "arrays and objects without end",
            "[{\"a\":".repeat(bytes / 6),
        ),
        ("JSON in JSON", quoted(bytes / 4)),
        ("a huge exponent", "1e400".to_owned()),
        (
            "a huge negative exponent",
            "-1e-999999999999999999999".to_owned(),
        ),
        ("a long number", "9".repeat(bytes)),
        ("a long fraction", format!("0.{}1", "0".repeat(bytes))),
        ("2 to the 64", "18446744073709551616".to_owned()),
        ("half a surrogate", r#""\ud800""#.to_owned()),
        (
            "surrogates the wrong way round",
            r#""\udc00\ud800""#.to_owned(),
        ),
        ("an escaped NUL", r#""a\u0000b""#.to_owned()),
        ("a NUL", "\"a\0b\"".to_owned()),
        ("a long text", json!("x".repeat(bytes)).to_string()),
        ("a long key", json!({ "k".repeat(bytes): 1 }).to_string()),
        (
            "many escapes without end",
            format!("\"{}", "\\u0041".repeat(bytes / 6)),
        ),
    ];
    let not_utf_8 = [
        ("no UTF-8", b"\"\xff\"".to_vec()),
        ("a character cut off", b"\"\xf0\x9f\x98\"".to_vec()),
        ("a surrogate in UTF-8", b"\"\xed\xa0\x80\"".to_vec()),
    ];
    written
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .chain(not_utf_8)
        .collect()
}

/// Returns whether a body is one JSON value in UTF-8, which the server accepts whatever it
/// contains; everything else must be refused.
pub fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok()
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// Returns the template with the text in the place of `@`.
pub fn within(template: &str, text: &[u8]) -> Vec<u8> {
    let (before, after) = template.split_once('@').unwrap();
    [before.as_bytes(), text, after.as_bytes()].concat()
}

/// GraphQL documents that nest to this depth.
pub fn documents(depth: usize) -> Vec<(&'static str, String)> {
    let around =
        |open: &str, inner: &str, close: &str| open.repeat(depth) + inner + &close.repeat(depth);
    let list = around("[", "1", "]");
    let object = around("{a:", "1", "}");
    let mixed = around("[{a:", "1", "}]");
    let fragments: String = (0..depth)
        .map(|number| format!(" fragment f{number} on Query{{...f{}}}", number + 1))
        .collect();
    vec![
        ("selections", around("{a", "", "}")),
        ("selections without end", "{a".repeat(depth)),
        ("inline fragments", around("{...", "{a}", "}")),
        (
            "inline fragments on a type",
            around("{...on Query", "{__typename}", "}"),
        ),
        (
            "inline fragments with directives",
            around("{...@skip(if:false)", "{__typename}", "}"),
        ),
        (
            "fragments",
            format!("{{...f0}}{fragments} fragment f{depth} on Query{{__typename}}"),
        ),
        ("lists", format!("{{a(b:{list})}}")),
        ("lists without end", format!("{{a(b:{}", "[".repeat(depth))),
        ("objects", format!("{{a(b:{object})}}")),
        ("lists and objects", format!("{{a(b:{mixed})}}")),
        (
            "a list where an id is wanted",
            format!("{{conversations(uid:{list}){{version}}}}"),
        ),
        (
            "an object where an input is wanted",
            format!("{{conversationList(uid:\"ann\",filter:{object}){{totalCount}}}}"),
        ),
        (
            "a list in a directive",
            format!("{{__typename @skip(if:{list})}}"),
        ),
        (
            "an object in a directive",
            format!("query @a(b:{object}){{__typename @c(d:{object})}}"),
        ),
        (
            "a type",
            format!(
                "query($a:{}){{unreadSummary(uid:$a){{total}}}}",
                around("[", "ID", "]")
            ),
        ),
        (
            "a type and its default",
            format!(
                "query($a:{}={list}){{nodes(ids:$a){{id}}}}",
                around("[", "Int", "]")
            ),
        ),
        (
            "a default",
            format!(
                "query($a:ChannelInput={object}){{conversation(uid:\"ann\",channel:$a){{id}}}}"
            ),
        ),
        ("parentheses", format!("{{a{}", "(".repeat(depth))),
        (
            "braces in a string",
            format!("{{unreadSummary(uid:\"{}\"){{total}}}}", "{".repeat(depth)),
        ),
    ]
}
