//! Errors as GraphQL says them: from the one table, with `extensions.code`.

use async_graphql::ErrorExtensions;

use crate::error::Error;

/// A resolver's result. Only our own errors convert into its error: `?` on anything else does not
/// compile, so no text of a library can reach a caller.
pub type Result<T> = std::result::Result<T, GraphqlError>;

/// An [`Error`] on its way to a GraphQL response. It has no `Display`, which keeps async-graphql's
/// blanket conversion away.
#[derive(Clone, Debug)]
pub struct GraphqlError {
    error: Error,
    /// The argument in which the field is that the error names: `input`, `input.channel`, or
    /// nothing.
    at: &'static str,
}

impl From<Error> for GraphqlError {
    fn from(error: Error) -> Self {
        Self { error, at: "" }
    }
}

/// The result of a root field: null beside an error, and for absent things.
pub type Root<T> = Result<Option<T>>;

/// Says in which argument the field is that an error names.
pub(super) trait At<T> {
    /// `argument` as a path: `input.channel`.
    fn at(self, argument: &'static str) -> Result<T>;
}

impl<T, E: Into<GraphqlError>> At<T> for std::result::Result<T, E> {
    fn at(self, argument: &'static str) -> Result<T> {
        self.map_err(|error| GraphqlError {
            at: argument,
            ..error.into()
        })
    }
}

impl From<GraphqlError> for async_graphql::Error {
    fn from(GraphqlError { error, at }: GraphqlError) -> Self {
        error.log();
        let (text, argument) = match &error {
            Error::BadInput { field, problem } => {
                let argument = path(at, field);
                (format!("{argument} {problem}"), Some(argument))
            }
            other => (other.to_string(), None),
        };
        async_graphql::Error::new(text).extend_with(|_, extensions| {
            extensions.set("code", error.kind().code);
            if let Some(argument) = argument {
                extensions.set("argument", argument);
            }
            if let Some(seconds) = error.retry_after() {
                extensions.set("retryAfter", seconds);
            }
        })
    }
}

/// Where in the arguments a field is: `input.channel.channelType`.
fn path(at: &str, field: &str) -> String {
    let field = match field {
        // What the POST routes call so.
        "subscribers" => "uids".to_owned(),
        other => camel_case(other),
    };
    let in_channel =
        ["channelId", "channelType"].contains(&field.as_str()) && !at.ends_with("channel");
    let parts = [at, if in_channel { "channel" } else { "" }, &field];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(".")
}

/// `channel_type` → `channelType`
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
    use super::*;

    #[test]
    fn arguments_are_named_by_their_path_and_codes_come_from_the_table() {
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
                .at(at)
                .unwrap_err();
            assert_eq!(
                async_graphql::Error::from(error).message,
                format!("{expected} is wrong")
            );
        }
    }
}
