//! Where async-graphql 7.2.1 departs from the specification in variables: it takes null for a type
//! that has none, it skips fields without looking at defaults, and a variable that is missing is an
//! error only where it is used.

use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{ErrorExtensionValues, ServerError, Value, Variables};

/// Gives every variable of the chosen operation its value, or its default where the client left it
/// out.
///
/// # Errors
/// For the first one whose type has no null and that has no value.
pub(super) fn complete(
    document: &ExecutableDocument,
    chosen: Option<&str>,
    variables: &mut Variables,
) -> Result<(), Box<ServerError>> {
    let mut operations = document.operations.iter();
    // An operation that does not exist is refused later.
    let found = operations
        .find(|(name, _)| chosen.is_none_or(|chosen| name.is_some_and(|name| name == chosen)));
    let Some((_, operation)) = found else {
        return Ok(());
    };
    for definition in &operation.node.variable_definitions {
        let (name, wanted) = (&definition.node.name.node, &definition.node.var_type.node);
        let problem = match (variables.get(name), &definition.node.default_value) {
            (Some(Value::Null), _) if !wanted.nullable => "must not be null",
            (None, None) if !wanted.nullable => "must be given",
            (None, Some(default)) => {
                variables.insert(name.clone(), default.node.clone());
                continue;
            }
            _ => continue,
        };
        let mut error = ServerError::new(
            format!("${name} of type {wanted} {problem}"),
            Some(definition.pos),
        );
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("argument", format!("${name}"));
        error.extensions = Some(extensions);
        return Err(Box::new(error));
    }
    Ok(())
}
