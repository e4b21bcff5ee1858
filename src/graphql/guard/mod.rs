//! What a document may cost, decided before anything walks it: the executor's own limits walk every expansion of a fragment,
//! which a document of a kilobyte can multiply into billions, and validation reports every mistake that there is.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::LazyLock;

use async_graphql::parser::types::{
    BaseType, Directive, ExecutableDocument, OperationDefinition, Selection, SelectionSet, Type, TypeSystemDefinition,
};
use async_graphql::{Name, Positioned, ServerError, Value};

use crate::config::Limits;
use crate::error::Error;

/// How deep brackets may nest at all: the parser calls itself for each.
const BRACKETS: usize = 200;
/// Bytes of a name: errors repeat names, some of them once for every field.
const NAME_BYTES: usize = 128;
/// Arguments of one field or directive, of which ours have seven at most: validation compares those of all fields of one name.
const ARGUMENTS: usize = 16;
const THREE_QUOTES: &[u8] = b"\"\"\"";

/// The types that there are. async-graphql 7.2.1 panics at a default value of a list of another one.
static TYPES: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let schema = async_graphql::parser::parse_schema(super::sdl()).map(|schema| schema.definitions).unwrap_or_default();
    let defined = schema.into_iter().filter_map(|definition| match definition {
        TypeSystemDefinition::Type(definition) => Some(definition.node.name.node.to_string()),
        TypeSystemDefinition::Schema(_) | TypeSystemDefinition::Directive(_) => None,
    });
    defined.chain(["Boolean", "Float", "ID", "Int", "String"].map(str::to_owned)).collect()
});

/// Parses a document that is within the limits; `variables` are what comes with it.
///
/// # Errors
/// [`Error::ResourceExhausted`] past a limit; `Ok(Err(…))` with the parser's error for what is no GraphQL.
pub(super) fn parse(
    document: &str,
    variables: Option<&serde_json::Map<String, serde_json::Value>>,
    limits: &Limits,
) -> Result<Result<ExecutableDocument, async_graphql::parser::Error>, Error> {
    if document.len() > limits.document_bytes {
        return Err(exhausted(format!("the document must be at most {} bytes long", limits.document_bytes)));
    }
    let (deepest, longest) = measure(document);
    if deepest > BRACKETS {
        return Err(nests_too_deep(limits));
    }
    if longest > NAME_BYTES {
        return Err(exhausted(format!("names and numbers in the document must be at most {NAME_BYTES} bytes long")));
    }
    let parsed = match async_graphql::parser::parse_query(document) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(error)),
    };
    let sizes = variables.into_iter().flatten().map(|(name, value)| (name.as_str(), value.to_string().len())).collect();
    let cost = Costs { document: &parsed, limits, sizes, fragments: HashMap::new() }.total()?;
    if cost.depth > limits.document_depth {
        return Err(nests_too_deep(limits));
    }
    if cost.fields > limits.document_fields {
        return Err(exhausted(format!(
            "the document must have at most {} fields, arguments and variables, fragments counted",
            limits.document_fields
        )));
    }
    // One that is used once, in a fragment, counts twice.
    let copied = limits.body_bytes.saturating_mul(2);
    if cost.copied > copied {
        return Err(exhausted(format!("the document must use at most {copied} bytes of variables, each as often as it is used")));
    }
    Ok(Ok(parsed))
}

/// What is wrong when a variable is of a type that there is not.
pub(super) fn unknown_type(document: &ExecutableDocument) -> Option<ServerError> {
    let mut variables = document.operations.iter().flat_map(|(_, operation)| &operation.node.variable_definitions);
    variables.find_map(|variable| {
        let given = &variable.node.var_type;
        let name = innermost(&given.node);
        (!TYPES.contains(name.as_str())).then(|| ServerError::new(format!("Unknown type \"{name}\""), Some(given.pos)))
    })
}

fn innermost(given: &Type) -> &Name {
    match &given.base {
        BaseType::Named(name) => name,
        BaseType::List(inner) => innermost(inner),
    }
}

fn exhausted(text: String) -> Error {
    Error::ResourceExhausted(text.into())
}

fn nests_too_deep(limits: &Limits) -> Error {
    exhausted(format!("the document must not nest deeper than {}", limits.document_depth))
}

/// The deepest nesting of brackets and the longest name or number, strings and comments left out.
fn measure(document: &str) -> (usize, usize) {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut name, mut longest) = (0, 0);
    // When one block string is not closed, none after it is: they would all be searched to the end.
    let mut blocks_close = true;
    let bytes = document.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        name = if byte.is_ascii_alphanumeric() || *byte == b'_' { name + 1 } else { 0 };
        longest = longest.max(name);
        match byte {
            b'{' | b'[' | b'(' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b'#' => at += bytes[at..].iter().take_while(|byte| !matches!(byte, b'\n' | b'\r')).count(),
            b'"' if blocks_close && bytes[at..].starts_with(THREE_QUOTES) => {
                if let Some(end) = end_of_block(bytes, at) {
                    at = end;
                } else {
                    // Two are an empty string, and the third begins another.
                    blocks_close = false;
                    at += 1;
                }
            }
            b'"' => at = end_of_string(bytes, at),
            _ => {}
        }
        at += 1;
    }
    (deepest, longest)
}

/// Where the block string that begins at `start` ends, if it does.
fn end_of_block(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + THREE_QUOTES.len();
    while at < bytes.len() {
        if bytes[at..].starts_with(THREE_QUOTES) {
            return Some(at + 2);
        }
        at += if bytes[at..].starts_with(b"\\\"\"\"") { 4 } else { 1 };
    }
    None
}

/// Where the string that begins at `start` ends. One that is not closed ends with its line, and there the parser gives up.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' | b'\n' | b'\r' => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

#[derive(Clone, Copy, Default)]
struct Cost {
    /// Fields, spreads, directives, arguments, and variables.
    fields: usize,
    /// Every field, spread and inline fragment is a level.
    depth: usize,
    /// Bytes of the values of variables: wherever one is used, its value is copied.
    copied: usize,
}

impl Cost {
    const ONE: Self = Self { fields: 1, depth: 0, copied: 0 };

    /// Of both, side by side.
    fn and(self, other: Self) -> Self {
        Self {
            fields: self.fields.saturating_add(other.fields),
            depth: self.depth.max(other.depth),
            copied: self.copied.saturating_add(other.copied),
        }
    }
}

/// Costs of the parts of a document; a fragment's is computed once, however often it is spread.
struct Costs<'a> {
    document: &'a ExecutableDocument,
    limits: &'a Limits,
    /// Bytes of each variable's value.
    sizes: HashMap<&'a str, usize>,
    /// `None` while a fragment is being computed: a cycle costs nothing here and is refused by validation.
    fragments: HashMap<&'a Name, Option<Cost>>,
}

impl<'a> Costs<'a> {
    /// Of all operations, and of all fragments by themselves: validation looks also at those that nobody runs or spreads.
    fn total(mut self) -> Result<Cost, Error> {
        let document = self.document;
        let mut total = Cost::default();
        for name in document.fragments.keys() {
            total = total.and(self.fragment(name, 1)?);
        }
        for (_, operation) in document.operations.iter() {
            total = total.and(self.operation(&operation.node)?);
        }
        Ok(total)
    }

    fn operation(&mut self, operation: &'a OperationDefinition) -> Result<Cost, Error> {
        let mut total = self.of(&operation.selection_set, 1)?.and(self.directives(&operation.directives)?);
        for variable in &operation.variable_definitions {
            total = total.and(Cost::ONE).and(self.directives(&variable.node.directives)?);
        }
        Ok(total)
    }

    fn fragment(&mut self, name: &Name, level: usize) -> Result<Cost, Error> {
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else { return Ok(Cost::default()) };
        if let Some(known) = self.fragments.get(name) {
            return Ok(known.unwrap_or_default());
        }
        self.fragments.insert(name, None);
        let cost = self.of(&fragment.node.selection_set, level)?.and(self.directives(&fragment.node.directives)?);
        self.fragments.insert(name, Some(cost));
        Ok(cost)
    }

    /// Of a selection set whose selections are on this level. None is entered that is too deep: here, too, a call is a level.
    fn of(&mut self, set: &'a Positioned<SelectionSet>, level: usize) -> Result<Cost, Error> {
        let mut total = Cost::default();
        for selection in &set.node.items {
            if level > self.limits.document_depth {
                return Err(nests_too_deep(self.limits));
            }
            let mut cost = match &selection.node {
                Selection::Field(field) => {
                    let own = Directive { name: field.node.name.clone(), arguments: field.node.arguments.clone() };
                    self.of(&field.node.selection_set, level + 1)?.and(self.directive(own)?)
                }
                // Validation compares what is in it also with what is beside it, and that again on every level.
                Selection::InlineFragment(inline) => {
                    let inner = self.of(&inline.node.selection_set, level + 1)?;
                    inner.and(inner).and(Cost::ONE)
                }
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node, level + 1)?.and(Cost::ONE),
            };
            cost.depth += 1;
            total = total.and(cost).and(self.directives(selection.node.directives())?);
        }
        Ok(total)
    }

    fn directives(&self, directives: &[Positioned<Directive>]) -> Result<Cost, Error> {
        let mut total = Cost::default();
        for directive in directives {
            total = total.and(self.directive(directive.node.clone())?);
        }
        Ok(total)
    }

    /// A name with arguments: a directive, or a field but for what is selected in it.
    fn directive(&self, directive: Directive) -> Result<Cost, Error> {
        if directive.arguments.len() > ARGUMENTS {
            return Err(exhausted(format!("the document must have at most {ARGUMENTS} arguments on one field")));
        }
        let mut cost = Cost { fields: 1 + directive.arguments.len(), ..Cost::default() };
        for (_, value) in directive.arguments {
            // async-graphql shows variables only to who replaces them.
            let _ = value.node.into_const_with(|name| {
                cost.fields += 1;
                cost.copied = cost.copied.saturating_add(self.sizes.get(name.as_str()).copied().unwrap_or_default());
                Ok::<_, Infallible>(Value::Null)
            });
        }
        Ok(cost)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn verdict_within(document: &str, limits: &Limits) -> Result<(), String> {
        match parse(document, None, limits) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn verdict(document: &str) -> Result<(), String> {
        verdict_within(document, &Limits { document_bytes: 2000, document_depth: 3, document_fields: 5, ..Limits::default() })
    }

    #[test]
    fn limits_hold_at_and_one_past_their_border() {
        assert!(verdict("{a{b{c}}}").is_ok());
        assert!(verdict("{a{b{c{d}}}}").unwrap_err().contains("nest deeper than 3"));
        assert!(verdict("{a b c d e}").is_ok());
        assert!(verdict("{a b c d e f}").unwrap_err().contains("at most 5 fields"));
        assert!(verdict(&format!("{{a}}{}", " ".repeat(1997))).is_ok());
        assert!(verdict(&format!("{{a}}{}", " ".repeat(1998))).unwrap_err().contains("at most 2000 bytes"));
        let named = |length: usize| verdict(&format!("{{{}(b: \"{}\")}}", "a".repeat(length), "c".repeat(200)));
        assert!(named(128).is_ok());
        assert!(named(129).unwrap_err().contains("at most 128 bytes"));
    }

    #[test]
    fn directives_and_spreads_count() {
        assert!(verdict("{a @x @x @x @x}").is_ok());
        assert!(verdict("{a @x @x @x @x @x}").is_err());
        assert!(verdict("query @x @x @x @x {a}").is_ok());
        assert!(verdict("query @x @x @x @x @x {a}").is_err());
        assert!(verdict("{...f ...f} fragment f on T {a}").is_ok());
        assert!(verdict("{...f ...f} fragment f on T {a b}").is_err());
    }

    #[test]
    fn arguments_and_variables_count() {
        assert!(verdict("{a(b: [1 2 3 4 5 6]) c(d: {e: 1})}").is_ok());
        assert!(verdict("{a(b: 1) c(d: 1) e(f: 1)}").is_err());
        assert!(verdict("query ($a: T $b: T $c: T $d: T) {a}").is_ok());
        assert!(verdict("query ($a: T $b: T $c: T $d: T $e: T) {a}").is_err());
        assert!(verdict("{a(b: [$c {d: $e}]) f}").is_ok());
        assert!(verdict("{a(b: [$c {d: $e}]) f g}").is_err());
        let arguments = |number: usize| verdict_within(&format!("{{a({})}}", "b: 1 ".repeat(number)), &Limits::default());
        assert!(arguments(16).is_ok());
        assert!(arguments(17).unwrap_err().contains("at most 16 arguments"));
    }

    #[test]
    fn a_variable_costs_its_bytes_wherever_it_is_used() {
        let variables = json!({"v": "x".repeat(98)});
        let limits = Limits { body_bytes: 100, ..Limits::default() };
        let refused = |document: &str| parse(document, variables.as_object(), &limits).is_err();
        assert!(!refused("{a(b: [$v $v])}"));
        assert!(!refused("{...f} fragment f on T {a(b: $v)}"));
        assert!(refused("{a(b: [$v $v $v])}"));
        assert!(refused("{...f ...f} fragment f on T {a(b: $v)}"));
    }

    #[test]
    fn what_nobody_runs_or_spreads_counts() {
        assert!(verdict("query A {a b} query B {a b c}").is_ok());
        assert!(verdict("query A {a b c} query B {a b c}").is_err());
        assert!(verdict("{a} fragment f on T {a b c d}").is_ok());
        assert!(verdict("{a} fragment f on T {a b c d e}").is_err());
    }

    #[test]
    fn a_bomb_of_fragments_is_refused_without_being_walked() {
        let bomb = |levels: usize| {
            let mut bomb = String::from("{...f0}");
            for level in 0..levels {
                let _ = write!(bomb, "fragment f{level} on T {{...f{0} ...f{0}}} ", level + 1);
            }
            bomb + &format!("fragment f{levels} on T {{a}}")
        };
        let limits = Limits { document_depth: 30, ..Limits::default() };
        assert!(verdict_within(&bomb(25), &limits).unwrap_err().contains("at most 1000 fields"));
        assert!(verdict_within(&bomb(250), &limits).unwrap_err().contains("nest deeper than 30"));
        let inline = "{...".repeat(16) + "{a}" + &"}".repeat(16);
        assert!(verdict_within(&inline, &limits).unwrap_err().contains("at most 1000 fields"));
    }

    #[test]
    fn fragments_in_a_chain_are_as_deep_as_it_is_long() {
        let limits = Limits { document_depth: 3, ..Limits::default() };
        assert!(verdict_within("{...f} fragment f on T {...g} fragment g on T {a}", &limits).is_ok());
        assert!(verdict_within("{...f} fragment f on T {...g} fragment g on T {a{b}}", &limits).is_err());
        let rules: [fn(usize) -> usize; 2] = [|number| number + 1, |number| (number + 1) % 2000];
        for next in rules {
            let chain: String = (0..2000).map(|number| format!("fragment f{number} on T{{...f{}}}", next(number))).collect();
            assert!(verdict_within(&format!("{{a}}{chain}"), &Limits::default()).unwrap_err().contains("nest deeper than 20"));
        }
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
        assert_eq!(measure(&strings).0, 2);
        assert_eq!(measure("{a(x: \"\"\"{{ \\\"\"\" {{ \" \"\"\")}").0, 2);
    }

    #[test]
    fn strings_and_comments_end_where_the_parser_ends_them() {
        for document in ["# {\r{{", "# {\n{{", "\"{\r{{", "\"\"\" \"{{", "\"\"\"\"\" \"{{", "\"\"\" \" # {\n\"\"{{"] {
            assert_eq!(measure(document).0, 2, "{document:?}");
        }
    }

    #[test]
    fn variables_are_of_types_that_there_are() {
        let unknown = |given: &str| {
            let document = async_graphql::parser::parse_query(format!("query ($a: {given} = [1]) {{a}}")).unwrap();
            unknown_type(&document).map(|error| error.message)
        };
        for given in ["Int", "[Float]", "[[ID!]!]!", "Boolean", "String", "[ChannelInput!]", "UInt53!", "JSON", "[Query]"] {
            assert_eq!(unknown(given), None, "{given}");
        }
        for given in ["Nope", "[Nope]", "[[Nope!]!]!", "[version]"] {
            assert!(unknown(given).is_some_and(|text| text.starts_with("Unknown type")), "{given}");
        }
    }

    proptest! {
        #[test]
        fn no_document_panics(document in "[ -~\\n\\r]{0,300}") {
            let _ = verdict(&document);
        }
    }
}
