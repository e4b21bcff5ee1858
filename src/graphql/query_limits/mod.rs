//! Limits on documents, checked before anything traverses them: the executor's own limits follow
//! every expansion of a fragment, which a document of a kilobyte can multiply into billions, and
//! validation reports every mistake.
//!
//! `lexer.rs` and `escapes.rs` work on the text before it is parsed; `complexity.rs` works on the
//! parsed document, with the facts about the schema in `schema_info.rs`.

mod complexity;
mod cost;
mod escapes;
mod lexer;
mod schema_info;
mod variable_size;

use async_graphql::ServerError;
use async_graphql::parser::types::ExecutableDocument;

use self::complexity::CostCalculator;
use self::escapes::replace_escapes;
use self::lexer::scan;
pub(super) use self::schema_info::Nullability;
use self::schema_info::{FRESH_LIST_READ_COST, LIST_READ_COST, SCHEMA, innermost_type};
use crate::config::Limits;
use crate::error::Error;

/// Maximum nesting of brackets: the parser is recursive.
const MAX_BRACKET_DEPTH: usize = 200;
/// Maximum length of a name: errors repeat names, some of them once for every field.
const MAX_NAME_BYTES: usize = 128;
/// Maximum number of arguments on one field or directive (the schema has at most seven): validation
/// compares the arguments of all fields with the same name.
const MAX_ARGUMENTS: usize = 16;

/// A document within the limits.
#[derive(Debug)]
pub(super) struct CheckedDocument {
    pub(super) document: ExecutableDocument,
    /// True if the document reads the schema.
    pub(super) introspects: bool,
}

/// Parses a document and checks it against the limits; `variables` are the values sent with it.
///
/// # Errors
/// [`Error::TooComplex`] if the document exceeds a limit; `Ok(Err(…))` with the parser's error for
/// invalid GraphQL.
pub(super) fn parse_and_check(
    document: &str,
    variables: Option<&serde_json::Map<String, serde_json::Value>>,
    limits: &Limits,
) -> Result<Result<CheckedDocument, async_graphql::parser::Error>, Error> {
    if document.len() > limits.document_bytes {
        return Err(too_complex(format!(
            "the document must be at most {} bytes long",
            limits.document_bytes
        )));
    }
    let stats = scan(document);
    if stats.max_depth > MAX_BRACKET_DEPTH {
        return Err(too_deep(limits));
    }
    if stats.longest_name > MAX_NAME_BYTES {
        return Err(too_complex(format!(
            "names and numbers in the document must be at most {MAX_NAME_BYTES} bytes long"
        )));
    }
    at_most("tokens", stats.tokens, limits.document_tokens)?;
    let parsed = match replace_escapes(document).and_then(async_graphql::parser::parse_query) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(error)),
    };
    let cost = CostCalculator::of(&parsed, variables, limits).map_err(|_| too_deep(limits))?;
    if cost.depth > limits.document_depth {
        return Err(too_deep(limits));
    }
    if cost.arguments > MAX_ARGUMENTS {
        return Err(too_complex(format!(
            "the document must have at most {MAX_ARGUMENTS} arguments on one field"
        )));
    }
    at_most(
        "fields, arguments and variables, fragments counted",
        cost.fields,
        limits.document_fields,
    )?;
    at_most("aliases", cost.aliases, limits.document_aliases)?;
    at_most("directives", cost.directives, limits.document_directives)?;
    at_most("variables", cost.variables, limits.document_variables)?;
    at_most(
        "fields at the root of an operation",
        cost.root_fields,
        limits.document_root_fields,
    )?;
    if cost.complexity > limits.document_complexity {
        return Err(too_complex(format!(
            "the document may ask for {} values, entries of pages and rows read for them included, \
             and must ask for at most {}: take smaller pages or fewer fields (a user's list costs \
             {LIST_READ_COST} by itself, {FRESH_LIST_READ_COST} beside a mutation; a message, or \
             an entry of a list in the arguments, costs 1)",
            cost.complexity, limits.document_complexity
        )));
    }
    // A variable that is used once, in a fragment, counts twice.
    let copied = limits.body_bytes.saturating_mul(2);
    if cost.copied > copied {
        return Err(too_complex(format!(
            "the document must use at most {copied} bytes of variables, each as often as it is used"
        )));
    }
    Ok(Ok(CheckedDocument {
        document: parsed,
        introspects: cost.introspects,
    }))
}

/// Parses a document of the operator's manifest: only the limit of the parser applies.
///
/// # Errors
/// Returns the problem of the document.
pub(super) fn parse_trusted(document: &str) -> Result<ExecutableDocument, String> {
    if scan(document).max_depth > MAX_BRACKET_DEPTH {
        return Err(format!("its brackets nest deeper than {MAX_BRACKET_DEPTH}"));
    }
    replace_escapes(document)
        .and_then(async_graphql::parser::parse_query)
        .map_err(|error| error.to_string())
}

/// Returns an error for a variable of an unknown type: async-graphql 7.2.1 panics at a default
/// value of a list of an unknown type.
pub(super) fn find_unknown_type(document: &ExecutableDocument) -> Option<ServerError> {
    let mut variables = document
        .operations
        .iter()
        .flat_map(|(_, operation)| &operation.node.variable_definitions);
    variables.find_map(|variable| {
        let given = &variable.node.var_type;
        let name = innermost_type(&given.node);
        (!SCHEMA.has_type(name))
            .then(|| ServerError::new(format!("Unknown type \"{name}\""), Some(given.pos)))
    })
}

/// Returns the nullability of a root field, or `None` for an unknown name: clients can invent
/// names.
pub(super) fn root_nullability(name: &str) -> Option<Nullability> {
    let info = ["Query", "Mutation", "Subscription"]
        .iter()
        .find_map(|root| SCHEMA.field(root, name));
    info.map(|info| info.nullability)
}

fn too_complex(text: String) -> Error {
    Error::TooComplex(text.into())
}

fn at_most(what: &str, number: usize, limit: usize) -> Result<(), Error> {
    if number > limit {
        return Err(too_complex(format!(
            "the document must have at most {limit} {what}"
        )));
    }
    Ok(())
}

fn too_deep(limits: &Limits) -> Error {
    too_complex(format!(
        "the document must not nest deeper than {}",
        limits.document_depth
    ))
}

#[cfg(test)]
mod tests;
