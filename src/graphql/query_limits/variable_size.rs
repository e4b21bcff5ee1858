//! The size of the values of variables.

/// The size of a variable's value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VariableSize {
    pub(super) bytes: usize,
    /// Number of entries of its lists, including nested lists.
    pub(super) entries: usize,
    /// Number of parts of a text separated by `|`.
    pub(super) parts: usize,
}

impl VariableSize {
    pub(super) fn of(value: &serde_json::Value) -> Self {
        let mut size = Self {
            bytes: value.to_string().len(),
            entries: 0,
            parts: value.as_str().map_or(0, parts),
        };
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            match value {
                serde_json::Value::Array(values) => {
                    size.entries += values.len();
                    open.extend(values);
                }
                serde_json::Value::Object(values) => open.extend(values.values()),
                _ => {}
            }
        }
        size
    }
}

/// Counts the entries of a `lastMsgSeqs`.
pub(super) fn parts(text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        text.matches('|').count() + 1
    }
}
