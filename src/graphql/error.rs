//! Maps errors to GraphQL errors with `extensions.code`, by the one table of error kinds.

use std::sync::Arc;

use async_graphql::{ErrorExtensions, ServerError};

use crate::error::Error;
use crate::model::InvalidValue;

/// A resolver's result. Only [`Error`] and [`InvalidValue`] convert into its error type: `?` on any
/// other error does not compile, so the text of a library's error can never reach a client.
pub type Result<T> = std::result::Result<T, GraphqlError>;

/// An [`Error`] on its way to a GraphQL response. It does not implement `Display`, which keeps
/// async-graphql's blanket conversion away.
#[derive(Clone, Debug)]
pub struct GraphqlError {
    error: Error,
    /// The argument that contains the field of the error: `input`, `input.channel`, or empty.
    argument: &'static str,
}

impl From<Error> for GraphqlError {
    fn from(error: Error) -> Self {
        Self {
            error,
            argument: "",
        }
    }
}

impl From<InvalidValue> for GraphqlError {
    fn from(error: InvalidValue) -> Self {
        Error::from(error).into()
    }
}

/// The result of a root field: null for absent objects, and null beside an error.
pub type RootResult<T> = Result<Option<T>>;

/// Adds to an error the argument that contains its field.
pub(super) trait InArgument<T> {
    /// Sets the path of the argument, such as `input.channel`.
    fn in_argument(self, argument: &'static str) -> Result<T>;
}

impl<T, E: Into<GraphqlError>> InArgument<T> for std::result::Result<T, E> {
    fn in_argument(self, argument: &'static str) -> Result<T> {
        self.map_err(|error| GraphqlError {
            argument,
            ..error.into()
        })
    }
}

impl From<GraphqlError> for async_graphql::Error {
    fn from(GraphqlError { error, argument }: GraphqlError) -> Self {
        let (text, path) = match &error {
            Error::BadInput { field, problem } => {
                let path = argument_path(argument, field);
                (format!("{path} {problem}"), Some(path))
            }
            other => (other.to_string(), None),
        };
        let mut converted = async_graphql::Error::new(text).extend_with(|_, extensions| {
            extensions.set("code", error.kind().code);
            if let Some(path) = path {
                extensions.set("argument", path);
            }
            if let Some(seconds) = error.retry_after() {
                extensions.set("retryAfter", seconds);
            }
        });
        converted.source = Some(Arc::new(error));
        converted
    }
}

/// Logs what the errors of a response hide from clients. Called once, when the operation has ended.
pub(super) fn log_errors(errors: &[ServerError]) {
    for error in errors {
        if let Some(error) = error.source::<Error>() {
            error.log();
        }
    }
}

/// Returns the path of a field in the arguments, such as `input.channel.channelType`.
fn argument_path(argument: &str, field: &str) -> String {
    let field = match field {
        // The name of this field on the POST routes.
        "subscribers" => "uids".to_owned(),
        other => camel_case(other),
    };
    let in_channel =
        ["channelId", "channelType"].contains(&field.as_str()) && !argument.ends_with("channel");
    let parts = [argument, if in_channel { "channel" } else { "" }, &field];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(".")
}

/// Converts `channel_type` to `channelType`.
pub(super) fn camel_case(name: &str) -> String {
    let mut upper = false;
    name.chars()
        .filter_map(|letter| {
            if letter == '_' {
                upper = true;
                return None;
            }
            Some(if std::mem::take(&mut upper) {
                letter.to_ascii_uppercase()
            } else {
                letter
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use async_graphql::Pos;

    use super::*;
    use crate::store::StoreError;
    use crate::telemetry::test_log::capture_log;

    #[test]
    fn errors_are_logged_with_the_response_and_not_by_the_conversion() {
        let (log, _guard) = capture_log();
        let error = Error::Store(StoreError::Internal("no such table".into()));
        let error = async_graphql::Error::from(GraphqlError::from(error));
        let error = error.into_server_error(Pos::default());
        assert_eq!(log.text(), "");
        assert!(!serde_json::to_string(&error).unwrap().contains("table"));
        log_errors(&[error, ServerError::new("does not parse", None)]);
        let text = log.text();
        assert_eq!(text.matches("no such table").count(), 1, "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn errors_have_the_argument_path_and_the_code_of_the_table() {
        let error: async_graphql::Error =
            GraphqlError::from(Error::bad_input("page_size", "must be positive")).into();
        assert_eq!(error.message, "pageSize must be positive");
        let extensions = serde_json::to_value(error.extensions.unwrap()).unwrap();
        assert_eq!(
            extensions,
            serde_json::json!({"code": "BAD_USER_INPUT", "argument": "pageSize"})
        );

        for (at, field, expected) in [
            ("input.channel", "channel_type", "input.channel.channelType"),
            ("input", "channel_type", "input.channel.channelType"),
            ("channel", "channel_id", "channel.channelId"),
            ("", "channel_id", "channel.channelId"),
            ("input", "subscribers", "input.uids"),
            ("input", "uid", "input.uid"),
        ] {
            let error = Err::<(), _>(Error::bad_input(field, "is wrong"))
                .in_argument(at)
                .unwrap_err();
            assert_eq!(
                async_graphql::Error::from(error).message,
                format!("{expected} is wrong"),
                "{field} in {at:?}"
            );
        }
    }
}
