//! Works around two deviations of async-graphql 7.2.1.
//!
//! A selection can turn out empty: all of it is skipped, or it consists of fragments on other
//! types. The specification asks for an empty object there, and async-graphql returns null. A
//! marker field that no client can name keeps the object; [`super::raw_json`] leaves the marker out
//! of the response.
//!
//! async-graphql also ignores variables in the directives of `__typename`, but handles them on an
//! inline fragment, so such a field is wrapped in one.

use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, Field, InlineFragment, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned};

/// The response key of the marker field. It cannot clash: no name in a document contains a space.
pub(super) const MARKER: &str = " ";

/// Adds the marker to every selection that may become empty. The recursion is safe because the
/// depth of the document has been checked.
pub(super) fn mark_empty_selections(document: &mut ExecutableDocument) {
    match &mut document.operations {
        DocumentOperations::Single(operation) => {
            mark_selection_set(&mut operation.node.selection_set.node);
        }
        DocumentOperations::Multiple(operations) => {
            for operation in operations.values_mut() {
                mark_selection_set(&mut operation.node.selection_set.node);
            }
        }
    }
    for fragment in document.fragments.values_mut() {
        mark_selection_set(&mut fragment.node.selection_set.node);
    }
}

fn mark_selection_set(set: &mut SelectionSet) {
    for selection in &mut set.items {
        match &mut selection.node {
            Selection::Field(field) if field.node.name.node == "__typename" => {
                let directives = std::mem::take(&mut field.node.directives);
                if !directives.is_empty() {
                    let position = field.pos;
                    let field = Positioned::new(Selection::Field(field.clone()), position);
                    let selection_set =
                        Positioned::new(SelectionSet { items: vec![field] }, position);
                    let fragment = InlineFragment {
                        type_condition: None,
                        directives,
                        selection_set,
                    };
                    selection.node = Selection::InlineFragment(Positioned::new(fragment, position));
                }
            }
            Selection::Field(field) => {
                let set = &mut field.node.selection_set;
                mark_selection_set(&mut set.node);
                let is_sure = |selection: &Positioned<Selection>| match &selection.node {
                    Selection::Field(field) => field.node.directives.is_empty(),
                    Selection::FragmentSpread(_) | Selection::InlineFragment(_) => false,
                };
                if !set.node.items.is_empty() && !set.node.items.iter().any(is_sure) {
                    let marker = set.position_node(Selection::Field(set.position_node(marker())));
                    set.node.items.push(marker);
                }
            }
            Selection::InlineFragment(fragment) => {
                mark_selection_set(&mut fragment.node.selection_set.node)
            }
            Selection::FragmentSpread(_) => {}
        }
    }
}

fn marker() -> Field {
    let position = async_graphql::Pos::default();
    Field {
        alias: Some(Positioned::new(Name::new(MARKER), position)),
        name: Positioned::new(Name::new("__typename"), position),
        arguments: Vec::new(),
        directives: Vec::new(),
        selection_set: Positioned::default(),
    }
}
