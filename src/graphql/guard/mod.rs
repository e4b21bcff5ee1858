//! What a document may cost, decided before anything walks it: the executor's own limits walk every
//! expansion of a fragment, which a document of a kilobyte can multiply into billions, and
//! validation reports every mistake that there is.
//!
//! `text.rs` and `escapes.rs` look at the text before the parser does, `cost.rs` at what was
//! parsed, with what `shapes.rs` knows of the schema.

mod cost;
mod escapes;
mod shapes;
mod text;

use async_graphql::ServerError;
use async_graphql::parser::types::ExecutableDocument;

use self::cost::Costs;
use self::escapes::replace_escapes;
pub(super) use self::shapes::Nulls;
use self::shapes::{LIST, OWN_LIST, SHAPES, innermost};
use self::text::measure;
use crate::config::Limits;
use crate::error::Error;

/// How deep brackets may nest at all: the parser calls itself for each.
const BRACKETS: usize = 200;
/// Bytes of a name: errors repeat names, some of them once for every field.
const NAME_BYTES: usize = 128;
/// Arguments of one field or directive, of which ours have seven at most: validation compares those
/// of all fields of one name.
const ARGUMENTS: usize = 16;

/// What a document within the limits is.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) document: ExecutableDocument,
    /// Whether it asks for the schema.
    pub(super) introspects: bool,
}

/// Parses a document that is within the limits; `variables` are what comes with it.
///
/// # Errors
/// [`Error::TooComplex`] past a limit; `Ok(Err(…))` with the parser's error for what is no GraphQL.
pub(super) fn parse(
    document: &str,
    variables: Option<&serde_json::Map<String, serde_json::Value>>,
    limits: &Limits,
) -> Result<Result<Guarded, async_graphql::parser::Error>, Error> {
    if document.len() > limits.document_bytes {
        return Err(exhausted(format!(
            "the document must be at most {} bytes long",
            limits.document_bytes
        )));
    }
    let measured = measure(document);
    if measured.deepest > BRACKETS {
        return Err(nests_too_deep(limits));
    }
    if measured.longest > NAME_BYTES {
        return Err(exhausted(format!(
            "names and numbers in the document must be at most {NAME_BYTES} bytes long"
        )));
    }
    at_most("tokens", measured.tokens, limits.document_tokens)?;
    let parsed = match replace_escapes(document).and_then(async_graphql::parser::parse_query) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(error)),
    };
    let cost = Costs::of(&parsed, variables, limits).map_err(|_| nests_too_deep(limits))?;
    if cost.depth > limits.document_depth {
        return Err(nests_too_deep(limits));
    }
    if cost.arguments > ARGUMENTS {
        return Err(exhausted(format!(
            "the document must have at most {ARGUMENTS} arguments on one field"
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
        return Err(exhausted(format!(
            "the document may ask for {} values, entries of pages and what is read for them counted, and must ask for at most {}: take \
             smaller pages or fewer fields (a user's list costs {LIST} by itself, {OWN_LIST} beside a mutation, a message or an entry of a \
             list that is given 1)",
            cost.complexity, limits.document_complexity
        )));
    }
    // One that is used once, in a fragment, counts twice.
    let copied = limits.body_bytes.saturating_mul(2);
    if cost.copied > copied {
        return Err(exhausted(format!(
            "the document must use at most {copied} bytes of variables, each as often as it is used"
        )));
    }
    Ok(Ok(Guarded {
        document: parsed,
        introspects: cost.introspects,
    }))
}

/// Parses a document of the operator's own: no limit applies but that of the parser.
///
/// # Errors
/// The problem of the document.
pub(super) fn parse_listed(document: &str) -> Result<ExecutableDocument, String> {
    if measure(document).deepest > BRACKETS {
        return Err(format!("its brackets nest deeper than {BRACKETS}"));
    }
    replace_escapes(document)
        .and_then(async_graphql::parser::parse_query)
        .map_err(|error| error.to_string())
}

/// What is wrong when a variable is of a type that there is not: async-graphql 7.2.1 panics at a
/// default value of a list of one.
pub(super) fn unknown_type(document: &ExecutableDocument) -> Option<ServerError> {
    let mut variables = document
        .operations
        .iter()
        .flat_map(|(_, operation)| &operation.node.variable_definitions);
    variables.find_map(|variable| {
        let given = &variable.node.var_type;
        let name = innermost(&given.node);
        (!SHAPES.has_type(name))
            .then(|| ServerError::new(format!("Unknown type \"{name}\""), Some(given.pos)))
    })
}

/// Where a field of a root may be null; `None` when no root has it: names that nobody knows are the
/// caller's to invent.
pub(super) fn root_nulls(name: &str) -> Option<Nulls> {
    let shape = ["Query", "Mutation", "Subscription"]
        .iter()
        .find_map(|root| SHAPES.field(root, name));
    shape.map(|shape| shape.nulls)
}

fn exhausted(text: String) -> Error {
    Error::TooComplex(text.into())
}

fn at_most(what: &str, number: usize, limit: usize) -> Result<(), Error> {
    if number > limit {
        return Err(exhausted(format!(
            "the document must have at most {limit} {what}"
        )));
    }
    Ok(())
}

fn nests_too_deep(limits: &Limits) -> Error {
    exhausted(format!(
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
        match parse(document, None, limits) {
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
    fn limits_hold_at_and_one_past_their_border() {
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
    fn every_other_limit_holds_at_and_one_past_its_border() {
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
        // As often as a fragment is spread.
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
    fn pages_multiply_what_is_in_them() {
        let complexity = |document: &str, variables: serde_json::Value| {
            let parsed = async_graphql::parser::parse_query(document).unwrap();
            Costs::of(&parsed, variables.as_object(), &Limits::default())
                .unwrap()
                .complexity
        };
        for (document, variables, expected) in [
            (
                "{conversationList(first: 50) {nodes {id unread}}}",
                json!({}),
                LIST + 50 * 3 + 1,
            ),
            (
                "{conversationList(last: 3) {nodes {recents(last: 4) {id}}}}",
                json!({}),
                LIST + 3 * (4 + 4 + 1 + 1) + 1,
            ),
            (
                "{conversationList {nodes {id}}}",
                json!({}),
                LIST + 20 * 2 + 1,
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
            ("{conversations {version}}", json!({}), LIST + 100 + 1),
            (
                "{conversations(first: 2, msgCount: 30) {conversations {recents {id}}}}",
                json!({}),
                LIST + 2 * (30 + 30 + 1 + 1) + 1,
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
                2 * (LIST + 2),
            ),
            // What is out of range is refused at its place: it reads nothing.
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
                LIST + 2 * 2 + 1,
            ),
            (
                "{conversations(first: 2, msgCount: 501) {conversations {recents {id}}}}",
                json!({}),
                LIST + 2 * (20 + 20 + 1 + 1) + 1,
            ),
            (
                "{messages(first: 99999999999999999999999) {nodes {id}}}",
                json!({}),
                1,
            ),
            (
                "query A {conversationList(first: 9) {totalCount}} query B {unreadSummary {total}}",
                json!({}),
                LIST + 10,
            ),
            // What is given counts, wherever it stands.
            (
                "{conversations(first: 0, lastMsgSeqs: \"a:1:1|b:1:1\") {version}}",
                json!({}),
                LIST + 2 + 1,
            ),
            (
                "query ($l: String) {conversations(first: 0, lastMsgSeqs: $l) {version}}",
                json!({"l": "a|b|c"}),
                LIST + 3 + 1,
            ),
            (
                "query ($l: [Int!]) {conversations(first: 0, excludeChannelTypes: $l) {version}}",
                json!({"l": [1, 2]}),
                LIST + 2 + 1,
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
                OWN_LIST + 2 + 1,
            ),
            (
                "mutation {markAllRead(input: {}) {unreadSummary {total}}}",
                json!({}),
                2 * OWN_LIST + 2 + 1,
            ),
            (
                "{conversationList(first: 5) {nodes {lastMessage {id}}}}",
                json!({}),
                LIST + 5 * (2 + 1 + 1) + 1,
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
    fn a_variable_costs_its_bytes_wherever_it_is_used() {
        let variables = json!({"v": "x".repeat(98)});
        let limits = Limits {
            body_bytes: 100,
            ..Limits::default()
        };
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
    fn fragments_in_a_chain_are_as_deep_as_it_is_long() {
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
    fn cycles_end() {
        assert!(verdict("{...f} fragment f on T {...f}").is_ok());
    }

    #[test]
    fn brackets_that_nobody_closes_do_not_reach_the_parser() {
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
    fn variables_are_of_types_that_there_are() {
        let unknown = |given: &str| {
            let document =
                async_graphql::parser::parse_query(format!("query ($a: {given} = [1]) {{a}}"))
                    .unwrap();
            unknown_type(&document).map(|error| error.message)
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
        fn no_document_panics(document in "[ -~\\n\\r]{0,300}") {
            let _ = verdict(&document);
        }
    }
}
