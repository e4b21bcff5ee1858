//! What a document may cost, decided before anything walks it: the executor's own limits walk every expansion of a fragment,
//! which a document of a kilobyte can multiply into billions.

use std::collections::HashMap;

use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql::{Name, Positioned};

use crate::config::Limits;
use crate::error::Error;

/// How deep brackets may nest at all: the parser calls itself for each.
const BRACKETS: usize = 200;

/// Parses a document that is within the limits.
///
/// # Errors
/// [`Error::ResourceExhausted`] past a limit; `Ok(Err(…))` with the parser's error for what is no GraphQL.
pub(super) fn parse(document: &str, limits: &Limits) -> Result<Result<ExecutableDocument, async_graphql::parser::Error>, Error> {
    if document.len() > limits.document_bytes {
        return Err(exhausted(format!("the document must be at most {} bytes long", limits.document_bytes)));
    }
    if deepest_bracket(document) > BRACKETS {
        return Err(exhausted(format!("the document must not nest deeper than {}", limits.document_depth)));
    }
    let parsed = match async_graphql::parser::parse_query(document) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(error)),
    };
    let mut costs = Costs { document: &parsed, fragments: HashMap::new() };
    for (_, operation) in parsed.operations.iter() {
        let cost = costs.of(&operation.node.selection_set);
        if cost.depth > limits.document_depth {
            return Err(exhausted(format!("the document must not nest deeper than {}", limits.document_depth)));
        }
        if cost.fields > limits.document_fields {
            return Err(exhausted(format!(
                "the document must have at most {} fields, fragments counted",
                limits.document_fields
            )));
        }
    }
    Ok(Ok(parsed))
}

fn exhausted(text: String) -> Error {
    Error::ResourceExhausted(text.into())
}

/// The deepest nesting of brackets, strings and comments left out.
fn deepest_bracket(document: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let bytes = document.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' | b'(' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b'#' => at += bytes[at..].iter().take_while(|byte| **byte != b'\n').count(),
            b'"' => at = end_of_string(bytes, at),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Where the string that begins at `start` ends.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let block = bytes[start..].starts_with(b"\"\"\"");
    let mut at = start + if block { 3 } else { 1 };
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += if block && bytes[at..].starts_with(b"\\\"\"\"") { 3 } else { usize::from(!block) },
            b'"' if !block => return at,
            b'"' if bytes[at..].starts_with(b"\"\"\"") => return at + 2,
            b'\n' if !block => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

#[derive(Clone, Copy, Default)]
struct Cost {
    /// Fields, spreads and directives.
    fields: usize,
    depth: usize,
}

/// Costs of selection sets; a fragment's is computed once, however often it is spread.
struct Costs<'a> {
    document: &'a ExecutableDocument,
    /// `None` while a fragment is being computed: a cycle costs nothing here and is refused by validation.
    fragments: HashMap<&'a Name, Option<Cost>>,
}

impl<'a> Costs<'a> {
    fn of(&mut self, set: &'a Positioned<SelectionSet>) -> Cost {
        let mut total = Cost::default();
        for selection in &set.node.items {
            let (inner, deeper, directives) = match &selection.node {
                Selection::Field(field) => (self.of(&field.node.selection_set), 1, field.node.directives.len()),
                Selection::InlineFragment(inline) => (self.of(&inline.node.selection_set), 0, inline.node.directives.len()),
                Selection::FragmentSpread(spread) => {
                    (self.fragment(&spread.node.fragment_name.node), 0, spread.node.directives.len())
                }
            };
            total.fields = total.fields.saturating_add(inner.fields).saturating_add(1 + directives);
            total.depth = total.depth.max(inner.depth + deeper);
        }
        total
    }

    fn fragment(&mut self, name: &Name) -> Cost {
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else { return Cost::default() };
        if let Some(known) = self.fragments.get(name) {
            return known.unwrap_or_default();
        }
        self.fragments.insert(name, None);
        let cost = self.of(&fragment.node.selection_set);
        self.fragments.insert(name, Some(cost));
        cost
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    fn verdict(document: &str) -> Result<(), String> {
        let limits = Limits { document_bytes: 2000, document_depth: 3, document_fields: 5, ..Limits::default() };
        match parse(document, &limits) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn limits_hold_at_and_one_past_their_border() {
        assert!(verdict("{a{b{c}}}").is_ok());
        assert!(verdict("{a{b{c{d}}}}").unwrap_err().contains("nest deeper than 3"));
        assert!(verdict("{a b c d e}").is_ok());
        assert!(verdict("{a b c d e f}").unwrap_err().contains("at most 5 fields"));
        assert!(verdict(&format!("{{a}}{}", " ".repeat(1997))).is_ok());
        assert!(verdict(&format!("{{a}}{}", " ".repeat(1998))).unwrap_err().contains("at most 2000 bytes"));
    }

    #[test]
    fn directives_and_spreads_count() {
        assert!(verdict("{a @x @x @x @x}").is_ok());
        assert!(verdict("{a @x @x @x @x @x}").is_err());
        assert!(verdict("{...f ...f} fragment f on T {a}").is_ok());
        assert!(verdict("{...f ...f} fragment f on T {a b}").is_err());
    }

    #[test]
    fn a_bomb_of_fragments_is_refused_without_being_walked() {
        let mut bomb = String::from("{...f0}");
        for level in 0..25 {
            let _ = write!(bomb, "fragment f{level} on T {{...f{0} ...f{0}}} ", level + 1);
        }
        bomb.push_str("fragment f25 on T {a}");
        assert!(verdict(&bomb).unwrap_err().contains("at most 5 fields"));
    }

    #[test]
    fn cycles_end() {
        assert!(verdict("{...f} fragment f on T {...f}").is_ok());
    }

    #[test]
    fn brackets_that_nobody_closes_do_not_reach_the_parser() {
        assert!(verdict(&"{a".repeat(900)).unwrap_err().contains("nest deeper"));
        assert!(verdict(&"[".repeat(1900)).unwrap_err().contains("nest deeper"));
    }

    #[test]
    fn brackets_in_strings_and_comments_are_text() {
        let strings = format!("{{a(x: \"{0}\\\"{0}\") # {0}\n b}}", "{".repeat(300));
        assert_eq!(deepest_bracket(&strings), 2);
        assert_eq!(deepest_bracket("{a(x: \"\"\"{{ \\\"\"\" {{ \" \"\"\")}"), 2);
    }

    proptest! {
        #[test]
        fn no_document_panics(document in "[ -~\\n]{0,300}") {
            let _ = verdict(&document);
        }
    }
}
