mod complexity;

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
    assert!(verdict_within("{...f} fragment f on T {...g} fragment g on T {a}", &limits).is_ok());
    assert!(
        verdict_within(
            "{...f} fragment f on T {...g} fragment g on T {a{b}}",
            &limits
        )
        .is_err()
    );
    let rules: [fn(usize) -> usize; 2] = [|number| number + 1, |number| (number + 1) % 2000];
    for (name, next) in ["a chain", "a circle"].into_iter().zip(rules) {
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
                .contains("nest deeper than 20"),
            "{name}"
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
            async_graphql::parser::parse_query(format!("query ($a: {given} = [1]) {{a}}")).unwrap();
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
