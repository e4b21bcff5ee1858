//! The error of values that come from outside.

use std::borrow::Cow;

/// A value that does not satisfy the rules of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidValue {
    /// Name of the field in the legacy interface.
    pub field: &'static str,
    /// The problem, as the rest of a sentence that begins with the field.
    pub problem: Cow<'static, str>,
}

impl InvalidValue {
    /// Creates an error for `field`.
    pub(super) fn new(field: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}
