//! Errors as GraphQL says them: from the one table, with `extensions.code`.

use async_graphql::ErrorExtensions;

use crate::error::Error;

/// A resolver's result. Only our own errors convert into its error: `?` on anything else does not compile, so no text of a
/// library can reach a caller.
pub type Result<T> = std::result::Result<T, GraphqlError>;

/// An [`Error`] on its way to a GraphQL response. It has no `Display`, which keeps async-graphql's blanket conversion away.
#[derive(Clone, Debug)]
pub struct GraphqlError(pub Error);

impl From<Error> for GraphqlError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<GraphqlError> for async_graphql::Error {
    fn from(GraphqlError(error): GraphqlError) -> Self {
        error.log();
        let (text, field) = match &error {
            Error::BadInput { field, problem } => {
                let field = camel_case(field);
                (format!("{field} {problem}"), Some(field))
            }
            other => (other.to_string(), None),
        };
        async_graphql::Error::new(text).extend_with(|_, extensions| {
            extensions.set("code", error.kind().code);
            if let Some(field) = field {
                extensions.set("field", field);
            }
        })
    }
}

/// `channel_type` → `channelType`
fn camel_case(name: &str) -> String {
    let mut upper = false;
    name.chars()
        .filter_map(|letter| {
            if letter == '_' {
                upper = true;
                return None;
            }
            Some(if std::mem::take(&mut upper) { letter.to_ascii_uppercase() } else { letter })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_in_camel_case_and_codes_come_from_the_table() {
        let error: async_graphql::Error = GraphqlError(Error::bad_input("channel_type", "must be between 1 and 255")).into();
        assert_eq!(error.message, "channelType must be between 1 and 255");
        let extensions = serde_json::to_value(error.extensions.unwrap()).unwrap();
        assert_eq!(extensions, serde_json::json!({"code": "BAD_USER_INPUT", "field": "channelType"}));
    }
}
