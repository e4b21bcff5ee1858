//! Wrong values, and the fields in which they were found.

use std::fmt;
use std::ops::RangeInclusive;

use crate::error::Error;

/// A wrong value.
#[derive(Debug)]
pub(super) struct InvalidValue {
    /// The names of the fields on the way to the value, joined with dots; empty for the value
    /// itself.
    field: String,
    problem: Problem,
}

#[derive(Debug)]
pub(super) enum Problem {
    NotString,
    NotArray,
    NotObject,
    NotInteger,
    OutOfRange(RangeInclusive<i64>),
    Other(String),
}

impl InvalidValue {
    /// Returns the error for the value that contains this one in a field.
    pub(super) fn in_field(mut self, name: &str) -> Self {
        if !self.field.is_empty() {
            self.field.insert(0, '.');
        }
        self.field.insert_str(0, name);
        self
    }

    /// Returns the error for the array that contains this value. Elements are not named, so the
    /// text is about the array.
    pub(super) fn in_array(mut self) -> Self {
        if self.field.is_empty() {
            self.problem = match self.problem {
                Problem::NotString => Problem::Other("must be an array of strings".to_owned()),
                Problem::OutOfRange(range) => Problem::Other(format!(
                    "must be an array of numbers between {} and {}",
                    range.start(),
                    range.end()
                )),
                other => other,
            };
        }
        self
    }

    /// Returns the error for a caller. `whole` is the name of the decoded value, `prefix` that
    /// before the names of its fields.
    pub(super) fn into_error(self, whole: &'static str, prefix: Option<&str>) -> Error {
        let problem = self.problem.to_string();
        match (self.field.is_empty(), prefix) {
            (true, _) => Error::bad_input(whole, problem),
            (false, None) => Error::bad_input(self.field, problem),
            (false, Some(prefix)) => Error::bad_input(format!("{prefix}.{}", self.field), problem),
        }
    }
}

impl From<Problem> for InvalidValue {
    fn from(problem: Problem) -> Self {
        Self {
            field: String::new(),
            problem,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotString => f.write_str("must be a string"),
            Self::NotArray => f.write_str("must be an array"),
            Self::NotObject => f.write_str("must be a JSON object"),
            Self::NotInteger => f.write_str("must be a whole number"),
            Self::OutOfRange(range) if *range == (i64::MIN..=i64::MAX) => {
                f.write_str("must be a whole number of at most 64 bits")
            }
            Self::OutOfRange(range) => write!(
                f,
                "must be a whole number between {} and {}",
                range.start(),
                range.end()
            ),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

impl std::error::Error for InvalidValue {}

impl serde::de::Error for InvalidValue {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Problem::Other(text.to_string()).into()
    }
}
