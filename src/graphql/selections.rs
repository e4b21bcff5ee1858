//! Selections of which nothing may be left: all that is in them is skipped, or stands in fragments
//! of other types. async-graphql 7.2.1 answers null for such an object, where an empty one belongs.
//! A field that no client can name keeps it an object; [`super::written`] leaves that field out of
//! the answer. It also does not see variables in the directives of `__typename`, but does in those
//! of an inline fragment.

use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, Field, InlineFragment, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned};

/// The key of that field: no name in a document has a space.
pub(super) const MARKER: &str = " ";

/// Adds the field to every selection of a field that may become empty. The depth of the document is
/// bounded already.
pub(super) fn keep_objects(document: &mut ExecutableDocument) {
    match &mut document.operations {
        DocumentOperations::Single(operation) => {
            keep_inner_objects(&mut operation.node.selection_set.node);
        }
        DocumentOperations::Multiple(operations) => {
            for operation in operations.values_mut() {
                keep_inner_objects(&mut operation.node.selection_set.node);
            }
        }
    }
    for fragment in document.fragments.values_mut() {
        keep_inner_objects(&mut fragment.node.selection_set.node);
    }
}

fn keep_inner_objects(set: &mut SelectionSet) {
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
                keep_inner_objects(&mut set.node);
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
                keep_inner_objects(&mut fragment.node.selection_set.node)
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
