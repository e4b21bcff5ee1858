//! The memory that parsed JSON takes.

/// Bytes that [`serde_json::Value`] takes at most for a text, and the text. Small texts are carried
/// by their request.
pub(crate) fn parsed_size(text: &[u8]) -> usize {
    const SMALL: usize = 16 * 1024;
    // Vectors have up to twice the room that they need.
    const ELEMENT: usize = 2 * size_of::<serde_json::Value>();
    const FIELD: usize =
        2 * (size_of::<serde_json::Value>() + size_of::<String>() + 2 * size_of::<usize>());
    if text.len() <= SMALL {
        return 0;
    }
    let (mut size, mut in_string, mut is_escaped) = (2 * text.len(), false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => size += ELEMENT,
            b':' if !in_string => size += FIELD,
            _ => {}
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_text_are_never_larger_than_what_is_counted() {
        let many = |part: &str| format!("[{}0]", part.repeat(40_000));
        for text in [
            many("0,"),
            many("[],"),
            many(r#"{"a":1},"#),
            many(r#"{"aaaaaaaaaaaa":{"b":0}},"#),
            many(r#""a,\"\\","#),
        ] {
            let counted = parsed_size(text.as_bytes());
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(
                counted >= size_of_value(&value),
                "{}: {counted} of {}",
                &text[..20],
                size_of_value(&value)
            );
        }
    }

    /// Bytes that a value has on the heap.
    fn size_of_value(value: &serde_json::Value) -> usize {
        const VALUE: usize = size_of::<serde_json::Value>();
        const PLACE: usize = size_of::<String>() + 2 * size_of::<usize>();
        match value {
            serde_json::Value::Array(values) => {
                values.capacity() * VALUE + values.iter().map(size_of_value).sum::<usize>()
            }
            serde_json::Value::Object(map) => map
                .iter()
                .map(|(key, value)| VALUE + PLACE + key.len() + size_of_value(value))
                .sum(),
            serde_json::Value::String(text) => text.capacity(),
            _ => 0,
        }
    }
}
