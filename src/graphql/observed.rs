//! What is measured and logged of operations. Labels are bounded: names of operations are the
//! clients' to invent.

use std::time::{Duration, Instant};

use async_graphql::parser::types::{ExecutableDocument, OperationType, Selection, SelectionSet};
use async_graphql::{Name, PathSegment, ServerError, Value};

use super::figures::{self, Answered, OTHER};
use super::guard::root_nulls;
use super::persisted::hash_of;

/// How deep the root's fragments are looked into.
const DEEPEST: usize = 8;

/// An operation that is about to run.
#[derive(Debug)]
pub(super) struct Observed {
    name: String,
    kind: &'static str,
    /// Keys of the answer's root, and the fields that they stand for.
    pub(super) root: Vec<(String, String)>,
    /// Whether something in the root has a directive.
    pub(super) has_root_directives: bool,
    began: Instant,
}

impl Observed {
    /// `chosen` is the request's `operationName`.
    pub(super) fn begin(document: &ExecutableDocument, chosen: Option<&str>) -> Self {
        let mut operations = document.operations.iter();
        let found = operations
            .find(|(name, _)| chosen.is_none_or(|chosen| name.is_some_and(|name| name == chosen)));
        let mut observed = Self {
            name: String::new(),
            kind: "query",
            root: Vec::new(),
            has_root_directives: false,
            began: Instant::now(),
        };
        if let Some((name, operation)) = found {
            observed.name = name.map(Name::to_string).unwrap_or_default();
            observed.kind = match operation.node.ty {
                OperationType::Query => "query",
                OperationType::Mutation => "mutation",
                OperationType::Subscription => "subscription",
            };
            observed.collect(document, &operation.node.selection_set.node, DEEPEST);
        }
        observed
    }

    fn collect(&mut self, document: &ExecutableDocument, set: &SelectionSet, deepest: usize) {
        for selection in &set.items {
            self.has_root_directives |= !selection.node.directives().is_empty();
            match &selection.node {
                Selection::Field(field) => {
                    self.root.push((
                        field.node.response_key().node.to_string(),
                        field.node.name.node.to_string(),
                    ));
                }
                Selection::FragmentSpread(spread) if deepest > 0 => {
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node)
                    {
                        self.collect(document, &fragment.node.selection_set.node, deepest - 1);
                    }
                }
                Selection::InlineFragment(inline) if deepest > 0 => {
                    self.collect(document, &inline.node.selection_set.node, deepest - 1);
                }
                _ => {}
            }
        }
    }

    /// The operation was answered. One that was not valid was none: `ran` is false, and its name is
    /// nobody's.
    pub(super) fn end(
        &self,
        text: &str,
        errors: &[ServerError],
        ran: bool,
        slow: Option<Duration>,
    ) {
        let elapsed = self.began.elapsed();
        // A subscription waits until there is something to tell: that is no slowness.
        let is_timed = self.kind != "subscription";
        let errors = errors.iter().map(|error| {
            let code = match error
                .extensions
                .as_ref()
                .and_then(|extensions| extensions.get("code"))
            {
                Some(Value::String(code)) => code.clone(),
                _ => OTHER.to_owned(),
            };
            (self.field(error), code)
        });
        figures::count(Answered {
            name: if ran { &self.name } else { OTHER },
            kind: self.kind,
            elapsed: is_timed.then_some(elapsed),
            errors: errors.collect(),
        });
        if ran && is_timed && slow.is_some_and(|slow| elapsed >= slow) {
            let fields: Vec<&str> = self
                .root
                .iter()
                .take(10)
                .map(|(_, field)| field.as_str())
                .collect();
            tracing::warn!(
                operation = self.name,
                kind = self.kind,
                fields = fields.join(" "),
                document = hash_of(text),
                milliseconds = elapsed.as_secs_f64() * 1000.0,
                "a slow operation"
            );
        }
    }

    /// The root field that an error came from.
    fn field(&self, error: &ServerError) -> String {
        let key = match error.path.first() {
            Some(PathSegment::Field(key)) => key,
            _ => return String::new(),
        };
        let field = self
            .root
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, field)| field.as_str());
        field
            .filter(|field| root_nulls(field).is_some())
            .unwrap_or(OTHER)
            .to_owned()
    }
}

/// Times a resolver of a root field until it is dropped.
#[derive(Debug)]
pub(super) struct Timed {
    field: String,
    began: Instant,
}

impl Timed {
    pub(super) fn begin(field: &str) -> Self {
        Self {
            field: field.to_owned(),
            began: Instant::now(),
        }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let field = std::mem::take(&mut self.field);
        metrics::histogram!("recents_graphql_field_seconds", "field" => field)
            .record(self.began.elapsed().as_secs_f64());
    }
}
