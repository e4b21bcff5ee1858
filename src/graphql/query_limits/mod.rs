//! Limits on documents, checked before anything traverses them: the executor's own limits follow
//! every expansion of a fragment, which a document of a kilobyte can multiply into billions, and
//! validation reports every mistake.
//!
//! `lexer.rs` and `escapes.rs` work on the text before it is parsed; `complexity.rs` works on the
//! parsed document, with the facts about the schema in `schema_info.rs`.

mod complexity;
mod escapes;
mod lexer;
mod schema_info;

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
    /// Whether the document reads the schema.
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
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn verdict_within(document: &str, limits: &Limits) -> Result<(), String> {
        match parse_and_check(document, None, limits) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn verdict(document: &str) -> Result<(), String> {
        verdict_within(
            document,
            &Limits {
                document_bytes: 2000,
                document_depth: 3,
                document_fields: 5,
                ..Limits::default()
            },
        )
    }

    #[test]
    fn limits_hold_at_the_boundary_and_one_above() {
        assert!(verdict("{a{b{c}}}").is_ok());
        assert!(
            verdict("{a{b{c{d}}}}")
                .unwrap_err()
                .contains("nest deeper than 3")
        );
        assert!(verdict("{a b c d e}").is_ok());
        assert!(
            verdict("{a b c d e f}")
                .unwrap_err()
                .contains("at most 5 fields")
        );
        assert!(verdict(&format!("{{a}}{}", " ".repeat(1997))).is_ok());
        assert!(
            verdict(&format!("{{a}}{}", " ".repeat(1998)))
                .unwrap_err()
                .contains("at most 2000 bytes")
        );
        let named = |length: usize| {
            verdict(&format!(
                "{{{}(b: \"{}\")}}",
                "a".repeat(length),
                "c".repeat(200)
            ))
        };
        assert!(named(128).is_ok());
        assert!(named(129).unwrap_err().contains("at most 128 bytes"));
    }

    #[test]
    fn further_limits_hold_at_the_boundary_and_one_above() {
        let aliased = |number: usize| {
            (0..number).fold(String::new(), |text, index| format!("{text} a{index}: b"))
        };
        type Case<'a> = (Limits, &'a dyn Fn(usize) -> String, &'a str);
        let cases: [Case<'_>; 6] = [
            (
                Limits {
                    document_tokens: 7,
                    ..Limits::default()
                },
                &|n| format!("{{{}}}", "a ".repeat(n - 2)),
                "at most 7 tokens",
            ),
            (
                Limits {
                    document_aliases: 7,
                    ..Limits::default()
                },
                &|n| format!("{{{}}}", aliased(n)),
                "at most 7 aliases",
            ),
            (
                Limits {
                    document_directives: 7,
                    ..Limits::default()
                },
                &|n| format!("{{a {}}}", "@x ".repeat(n)),
                "at most 7 directives",
            ),
            (
                Limits {
                    document_root_fields: 7,
                    ..Limits::default()
                },
                &|n| format!("{{{}}}", "a ".repeat(n)),
                "at most 7 fields at the root",
            ),
            (
                Limits {
                    document_variables: 7,
                    ..Limits::default()
                },
                &|n| {
                    format!(
                        "query ({}) {{a}}",
                        (0..n).fold(String::new(), |text, index| format!(
                            "{text} $v{index}: Int"
                        ))
                    )
                },
                "at most 7 variables",
            ),
            (
                Limits {
                    document_complexity: 7,
                    ..Limits::default()
                },
                &|n| format!("{{messages(first: 2) {{nodes}} {}}}", "x ".repeat(n - 5)),
                "must ask for at most 7",
            ),
        ];
        for (limits, document, text) in cases {
            assert_eq!(verdict_within(&document(7), &limits), Ok(()), "{text}");
            let error = verdict_within(&document(8), &limits).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        // A fragment counts as often as it is spread.
        let limits = Limits {
            document_root_fields: 7,
            document_aliases: 4,
            ..Limits::default()
        };
        assert!(verdict_within("{...f ...f ...f a} fragment f on Query {x: a b}", &limits).is_ok());
        assert!(
            verdict_within("{...f ...f ...f a a} fragment f on Query {b b}", &limits)
                .unwrap_err()
                .contains("root")
        );
        assert!(
            verdict_within("{...f ...f ...f ...f} fragment f on Query {x: a}", &limits)
                .unwrap_err()
                .contains("aliases")
        );
    }

    #[test]
    fn pages_multiply_the_cost_of_their_entries() {
        let complexity = |document: &str, variables: serde_json::Value| {
            let parsed = async_graphql::parser::parse_query(document).unwrap();
            CostCalculator::of(&parsed, variables.as_object(), &Limits::default())
                .unwrap()
                .complexity
        };
        for (document, variables, expected) in [
            (
                "{conversationList(first: 50) {nodes {id unread}}}",
                json!({}),
                LIST_READ_COST + 50 * 3 + 1,
            ),
            (
                "{conversationList(last: 3) {nodes {recents(last: 4) {id}}}}",
                json!({}),
                LIST_READ_COST + 3 * (4 + 4 + 1 + 1) + 1,
            ),
            (
                "{conversationList {nodes {id}}}",
                json!({}),
                LIST_READ_COST + 20 * 2 + 1,
            ),
            (
                "query ($n: Int) {messages(first: $n) {nodes {id}}}",
                json!({"n": 7}),
                7 * 3 + 1,
            ),
            (
                "query ($n: Int = 9) {messages(first: $n) {nodes {id}}}",
                json!({}),
                9 * 3 + 1,
            ),
            (
                "query ($n: Int = 9) {messages(first: $n) {nodes {id}}}",
                json!({"n": null}),
                20 * 3 + 1,
            ),
            (
                "{conversations {version}}",
                json!({}),
                LIST_READ_COST + 100 + 1,
            ),
            (
                "{conversations(first: 2, msgCount: 30) {conversations {recents {id}}}}",
                json!({}),
                LIST_READ_COST + 2 * (30 + 30 + 1 + 1) + 1,
            ),
            ("{nodes(ids: [1, 2, 3]) {id}}", json!({}), 3 + 3 + 3 + 1),
            (
                "query ($ids: [ID!]!) {nodes(ids: $ids) {...f}} fragment f on Node {id}",
                json!({"ids": [1, 2]}),
                2 + 2 + 2 + 1,
            ),
            (
                "{a: unreadSummary {total} b: unreadSummary {total}}",
                json!({}),
                2 * (LIST_READ_COST + 2),
            ),
            // A number out of range is refused by the resolver and reads nothing.
            ("{messages(first: -1) {nodes {id}}}", json!({}), 1),
            (
                "{messages(first: 1000) {nodes {id}}}",
                json!({}),
                1000 * 3 + 1,
            ),
            ("{messages(first: 1001) {nodes {id}}}", json!({}), 1),
            (
                "{conversationList(first: 2) {nodes {recents(last: 501) {id}}}}",
                json!({}),
                LIST_READ_COST + 2 * 2 + 1,
            ),
            (
                "{conversations(first: 2, msgCount: 501) {conversations {recents {id}}}}",
                json!({}),
                LIST_READ_COST + 2 * (20 + 20 + 1 + 1) + 1,
            ),
            (
                "{messages(first: 99999999999999999999999) {nodes {id}}}",
                json!({}),
                1,
            ),
            (
                "query A {conversationList(first: 9) {totalCount}} query B {unreadSummary {total}}",
                json!({}),
                LIST_READ_COST + 10,
            ),
            // Lists in arguments count wherever they are.
            (
                "{conversations(first: 0, lastMsgSeqs: \"a:1:1|b:1:1\") {version}}",
                json!({}),
                LIST_READ_COST + 2 + 1,
            ),
            (
                "query ($l: String) {conversations(first: 0, lastMsgSeqs: $l) {version}}",
                json!({"l": "a|b|c"}),
                LIST_READ_COST + 3 + 1,
            ),
            (
                "query ($l: [Int!]) {conversations(first: 0, excludeChannelTypes: $l) {version}}",
                json!({"l": [1, 2]}),
                LIST_READ_COST + 2 + 1,
            ),
            (
                "mutation ($i: I!) {addMembers(input: $i) {channel {id}}}",
                json!({"i": {"uids": ["a", "b", "c"]}}),
                3 + 2 + 1,
            ),
            (
                "mutation ($u: [ID!]!) {addMembers(input: {uids: $u}) {channel {id}}}",
                json!({"u": ["a", "b"]}),
                2 + 2 + 1,
            ),
            (
                "mutation {setUnread(input: {}) {unreadSummary {total}}}",
                json!({}),
                FRESH_LIST_READ_COST + 2 + 1,
            ),
            (
                "mutation {markAllRead(input: {}) {unreadSummary {total}}}",
                json!({}),
                2 * FRESH_LIST_READ_COST + 2 + 1,
            ),
            (
                "{conversationList(first: 5) {nodes {lastMessage {id}}}}",
                json!({}),
                LIST_READ_COST + 5 * (2 + 1 + 1) + 1,
            ),
        ] {
            assert_eq!(complexity(document, variables), expected, "{document}");
        }
        let nested = "{__schema{types".to_owned()
            + &"{fields{type".repeat(8)
            + "{name}"
            + &"}}".repeat(8)
            + "}}";
        assert!(complexity(&nested, json!({})) > Limits::default().document_complexity);
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
        let arguments = |number: usize| {
            verdict_within(
                &format!("{{a({})}}", "b: 1 ".repeat(number)),
                &Limits::default(),
            )
        };
        assert!(arguments(16).is_ok());
        assert!(arguments(17).unwrap_err().contains("at most 16 arguments"));
    }

    #[test]
    fn variable_costs_its_bytes_at_each_use() {
        let variables = json!({"v": "x".repeat(98)});
        let limits = Limits {
            body_bytes: 100,
            ..Limits::default()
        };
        let refused =
            |document: &str| parse_and_check(document, variables.as_object(), &limits).is_err();
        assert!(!refused("{a(b: [$v $v])}"));
        assert!(!refused("{...f} fragment f on T {a(b: $v)}"));
        assert!(refused("{a(b: [$v $v $v])}"));
        assert!(refused("{...f ...f} fragment f on T {a(b: $v)}"));
    }

    #[test]
    fn unused_operations_and_fragments_count() {
        assert!(verdict("query A {a b} query B {a b c}").is_ok());
        assert!(verdict("query A {a b c} query B {a b c}").is_err());
        assert!(verdict("{a} fragment f on T {a b c d}").is_ok());
        assert!(verdict("{a} fragment f on T {a b c d e}").is_err());
    }

    #[test]
    fn fragment_bomb_is_refused_without_being_expanded() {
        let bomb = |levels: usize| {
            let mut bomb = String::from("{...f0}");
            for level in 0..levels {
                let _ = write!(
                    bomb,
                    "fragment f{level} on T {{...f{0} ...f{0}}} ",
                    level + 1
                );
            }
            bomb + &format!("fragment f{levels} on T {{a}}")
        };
        let limits = Limits {
            document_depth: 30,
            ..Limits::default()
        };
        assert!(
            verdict_within(&bomb(25), &limits)
                .unwrap_err()
                .contains("at most 1000 fields")
        );
        assert!(
            verdict_within(&bomb(250), &limits)
                .unwrap_err()
                .contains("nest deeper than 30")
        );
        let inline = "{...".repeat(16) + "{a}" + &"}".repeat(16);
        assert!(
            verdict_within(&inline, &limits)
                .unwrap_err()
                .contains("at most 1000 fields")
        );
    }

    #[test]
    fn depth_of_a_fragment_chain_is_its_length() {
        let limits = Limits {
            document_depth: 3,
            ..Limits::default()
        };
        assert!(
            verdict_within("{...f} fragment f on T {...g} fragment g on T {a}", &limits).is_ok()
        );
        assert!(
            verdict_within(
                "{...f} fragment f on T {...g} fragment g on T {a{b}}",
                &limits
            )
            .is_err()
        );
        let rules: [fn(usize) -> usize; 2] = [|number| number + 1, |number| (number + 1) % 2000];
        for next in rules {
            let chain: String = (0..2000)
                .map(|number| format!("fragment f{number} on T{{...f{}}}", next(number)))
                .collect();
            let limits = Limits {
                document_tokens: 100_000,
                ..Limits::default()
            };
            assert!(
                verdict_within(&format!("{{a}}{chain}"), &limits)
                    .unwrap_err()
                    .contains("nest deeper than 20")
            );
        }
    }

    #[test]
    fn fragment_cycle_terminates() {
        assert!(verdict("{...f} fragment f on T {...f}").is_ok());
    }

    #[test]
    fn unclosed_brackets_do_not_reach_the_parser() {
        assert!(
            verdict(&"{a".repeat(900))
                .unwrap_err()
                .contains("nest deeper")
        );
        assert!(
            verdict(&"[".repeat(1900))
                .unwrap_err()
                .contains("nest deeper")
        );
    }

    #[test]
    fn unknown_variable_types_are_found() {
        let unknown = |given: &str| {
            let document =
                async_graphql::parser::parse_query(format!("query ($a: {given} = [1]) {{a}}"))
                    .unwrap();
            find_unknown_type(&document).map(|error| error.message)
        };
        for given in [
            "Int",
            "[Float]",
            "[[ID!]!]!",
            "Boolean",
            "String",
            "[ChannelInput!]",
            "UInt53!",
            "JSON",
            "[Query]",
        ] {
            assert_eq!(unknown(given), None, "{given}");
        }
        for given in ["Nope", "[Nope]", "[[Nope!]!]!", "[version]"] {
            assert!(
                unknown(given).is_some_and(|text| text.starts_with("Unknown type")),
                "{given}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_documents_do_not_panic(document in "[ -~\\n\\r]{0,300}") {
            let _ = verdict(&document);
        }
    }
}
