//! Works around three deviations of async-graphql 7.2.1 in variables: it accepts null for non-null
//! types, it skips fields without looking at defaults, and it reports a missing variable only where
//! the variable is used.

use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{ErrorExtensionValues, ServerError, Value, Variables};

/// Sets the default of every variable of the chosen operation that the client omitted.
///
/// # Errors
/// Returns an error for the first non-null variable without a value.
pub(super) fn apply_defaults(
    document: &ExecutableDocument,
    chosen: Option<&str>,
    variables: &mut Variables,
) -> Result<(), Box<ServerError>> {
    let mut operations = document.operations.iter();
    // An operation that does not exist is refused during execution.
    let found = operations
        .find(|(name, _)| chosen.is_none_or(|chosen| name.is_some_and(|name| name == chosen)));
    let Some((_, operation)) = found else {
        return Ok(());
    };
    for definition in &operation.node.variable_definitions {
        let (name, expected) = (&definition.node.name.node, &definition.node.var_type.node);
        let problem = match (variables.get(name), &definition.node.default_value) {
            (Some(Value::Null), _) if !expected.nullable => "must not be null",
            (None, None) if !expected.nullable => "must be given",
            (None, Some(default)) => {
                variables.insert(name.clone(), default.node.clone());
                continue;
            }
            _ => continue,
        };
        let mut error = ServerError::new(
            format!("${name} of type {expected} {problem}"),
            Some(definition.pos),
        );
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("argument", format!("${name}"));
        error.extensions = Some(extensions);
        return Err(Box::new(error));
    }
    Ok(())
}
