//! The memory of parsed JSON.

/// Returns the maximum memory in bytes of a text and of the [`serde_json::Value`] that is parsed
/// from it; 0 for small texts, which are covered by the memory that every request reserves.
pub(crate) fn parsed_size(text: &[u8]) -> usize {
    const MAX_UNCOUNTED_BYTES: usize = 16 * 1024;
    // The capacity of a vector is up to twice its length.
    const ELEMENT_BYTES: usize = 2 * size_of::<serde_json::Value>();
    const FIELD_BYTES: usize =
        2 * (size_of::<serde_json::Value>() + size_of::<String>() + 2 * size_of::<usize>());
    if text.len() <= MAX_UNCOUNTED_BYTES {
        return 0;
    }
    let (mut size, mut in_string, mut is_escaped) = (2 * text.len(), false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => size += ELEMENT_BYTES,
            b':' if !in_string => size += FIELD_BYTES,
            _ => {}
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsed_values_are_never_larger_than_the_estimate() {
        let many = |part: &str| format!("[{}0]", part.repeat(40_000));
        for text in [
            many("0,"),
            many("[],"),
            many(r#"{"a":1},"#),
            many(r#"{"aaaaaaaaaaaa":{"b":0}},"#),
            many(r#""a,\"\\","#),
        ] {
            let estimate = parsed_size(text.as_bytes());
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(
                estimate >= size_of_value(&value),
                "{}: {estimate} of {}",
                &text[..20],
                size_of_value(&value)
            );
        }
    }

    /// Returns the bytes of a value on the heap.
    fn size_of_value(value: &serde_json::Value) -> usize {
        const VALUE_BYTES: usize = size_of::<serde_json::Value>();
        const ENTRY_BYTES: usize = size_of::<String>() + 2 * size_of::<usize>();
        match value {
            serde_json::Value::Array(values) => {
                values.capacity() * VALUE_BYTES + values.iter().map(size_of_value).sum::<usize>()
            }
            serde_json::Value::Object(map) => map
                .iter()
                .map(|(key, value)| VALUE_BYTES + ENTRY_BYTES + key.len() + size_of_value(value))
                .sum(),
            serde_json::Value::String(text) => text.capacity(),
            _ => 0,
        }
    }
}
