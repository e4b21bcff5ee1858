//! Works around a deviation of async-graphql 7.2.1: it orders the fields of an object by the time
//! of their completion. The specification ("Serialized Map Ordering") asks for the order of the
//! document.

use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql::{Name, Value};
use async_graphql_value::indexmap::IndexMap;

/// Maximum depth of selections and fragments. Documents that are deeper are refused.
const MAX_DEPTH: usize = 32;

/// The response keys of a selection in the order of the document, each with the order of the
/// fields below it.
///
/// Fragments on other types count, too, because the order is the same for all types of an abstract
/// field. It differs from the specification only where such a fragment names the same field earlier
/// than a fragment that applies.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FieldOrder(IndexMap<Name, FieldOrder>);

impl FieldOrder {
    /// Reads the order from a selection. It follows at most `max_selections`, because a document
    /// with a cycle of fragments is refused only at its execution.
    pub(super) fn of(
        document: &ExecutableDocument,
        set: &SelectionSet,
        mut max_selections: usize,
    ) -> Self {
        let mut order = Self::default();
        order.add(document, set, MAX_DEPTH, &mut max_selections);
        order
    }

    fn add(
        &mut self,
        document: &ExecutableDocument,
        set: &SelectionSet,
        max_depth: usize,
        max_selections: &mut usize,
    ) {
        let Some(below_depth) = max_depth.checked_sub(1) else {
            return;
        };
        for selection in &set.items {
            let Some(rest) = max_selections.checked_sub(1) else {
                return;
            };
            *max_selections = rest;
            match &selection.node {
                Selection::Field(field) => {
                    let key = field.node.response_key().node.clone();
                    let set = &field.node.selection_set.node;
                    let below = self.0.entry(key).or_default();
                    below.add(document, set, below_depth, max_selections);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = document.fragments.get(name) {
                        let set = &fragment.node.selection_set.node;
                        self.add(document, set, below_depth, max_selections);
                    }
                }
                Selection::InlineFragment(inline) => {
                    let set = &inline.node.selection_set.node;
                    self.add(document, set, below_depth, max_selections);
                }
            }
        }
    }

    /// Orders the fields of a value and of the objects in it.
    pub(super) fn apply(&self, value: &mut Value) {
        // A scalar, which may be an object of JSON.
        if self.0.is_empty() {
            return;
        }
        match value {
            Value::Object(fields) => {
                let rank = |key: &Name| self.0.get_index_of(key).unwrap_or(usize::MAX);
                if !fields.keys().map(rank).is_sorted() {
                    fields.sort_by_cached_key(|key, _| rank(key));
                }
                for (key, value) in fields {
                    if let Some(order) = self.0.get(key) {
                        order.apply(value);
                    }
                }
            }
            Value::List(entries) => {
                for entry in entries {
                    self.apply(entry);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    fn order(document: &str, max_selections: usize) -> FieldOrder {
        let document = parse_query(document).unwrap();
        let (_, operation) = document.operations.iter().next().unwrap();
        FieldOrder::of(
            &document,
            &operation.node.selection_set.node,
            max_selections,
        )
    }

    fn ordered(document: &str, answer: &str) -> String {
        let mut value: Value = serde_json::from_str(answer).unwrap();
        order(document, 1000).apply(&mut value);
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn fields_on_every_level_are_in_the_order_of_the_document() {
        for (document, answer, expected) in [
            (
                "{a b c}",
                r#"{"c":1,"a":2,"b":3}"#,
                r#"{"a":2,"b":3,"c":1}"#,
            ),
            (
                "{b:x{d c} a}",
                r#"{"a":1,"b":[{"c":1,"d":2},null,{"c":3}]}"#,
                r#"{"b":[{"d":2,"c":1},null,{"c":3}],"a":1}"#,
            ),
            (
                "{...f a{d}} fragment f on Query {b ...on Query{a{c}}}",
                r#"{"a":{"d":1,"c":2},"b":3}"#,
                r#"{"b":3,"a":{"c":2,"d":1}}"#,
            ),
            // The fields of a scalar are not those of the document.
            (
                "{a b}",
                r#"{"b":{"z":1,"y":2},"a":3}"#,
                r#"{"a":3,"b":{"z":1,"y":2}}"#,
            ),
            ("{a}", r#"{" ":1,"a":2}"#, r#"{"a":2," ":1}"#),
        ] {
            assert_eq!(ordered(document, answer), expected, "{document}");
        }
    }

    #[test]
    fn cycles_of_fragments_end_at_the_maximum() {
        let cycle = "{...f} fragment f on Query {a{...f ...f} ...f ...f}";
        assert_ne!(order(cycle, 20), FieldOrder::default());
        assert_eq!(order(cycle, 0), FieldOrder::default());
    }
}
