//! What is measured and logged of operations. Labels are bounded: names of operations are the clients' to invent.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_graphql::parser::types::{ExecutableDocument, OperationType, Selection, SelectionSet};
use async_graphql::{Name, PathSegment, ServerError, Value};

use super::guard::root_nulls;
use super::persisted::hash_of;

/// Names of operations that have figures of their own: the first so many that the server meets.
const NAMES: usize = 200;
const OTHER: &str = "other";
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
        let found = operations.find(|(name, _)| chosen.is_none_or(|chosen| name.is_some_and(|name| name == chosen)));
        let mut observed =
            Self { name: String::new(), kind: "query", root: Vec::new(), has_root_directives: false, began: Instant::now() };
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
                    self.root.push((field.node.response_key().node.to_string(), field.node.name.node.to_string()));
                }
                Selection::FragmentSpread(spread) if deepest > 0 => {
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
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

    /// The operation was answered. One that was not valid was none: `ran` is false, and its name is nobody's.
    pub(super) fn end(&self, text: &str, errors: &[ServerError], ran: bool, slow: Option<Duration>) {
        let elapsed = self.began.elapsed();
        let operation = if ran { known(&self.name) } else { OTHER.to_owned() };
        let outcome = if errors.is_empty() { "ok" } else { "errors" };
        let labels = [("operation", operation.clone()), ("kind", self.kind.to_owned()), ("outcome", outcome.to_owned())];
        metrics::counter!("recents_graphql_operations_total", &labels).increment(1);
        metrics::histogram!("recents_graphql_operation_seconds", "operation" => operation.clone()).record(elapsed.as_secs_f64());
        for error in errors {
            let code = match error.extensions.as_ref().and_then(|extensions| extensions.get("code")) {
                Some(Value::String(code)) => code.clone(),
                _ => OTHER.to_owned(),
            };
            let labels = [("operation", operation.clone()), ("field", self.field(error)), ("code", code)];
            metrics::counter!("recents_graphql_errors_total", &labels).increment(1);
        }
        if ran && slow.is_some_and(|slow| elapsed >= slow) {
            let fields: Vec<&str> = self.root.iter().take(10).map(|(_, field)| field.as_str()).collect();
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
        let field = self.root.iter().find(|(known, _)| known == key).map(|(_, field)| field.as_str());
        field.filter(|field| root_nulls(field).is_some()).unwrap_or(OTHER).to_owned()
    }
}

fn known(name: &str) -> String {
    static KNOWN: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if name.is_empty() || known.contains(name) {
        return name.to_owned();
    }
    if known.len() < NAMES {
        known.insert(name.to_owned());
        return name.to_owned();
    }
    OTHER.to_owned()
}

/// Times a resolver of a root field until it is dropped.
#[derive(Debug)]
pub(super) struct Timed {
    field: String,
    began: Instant,
}

impl Timed {
    pub(super) fn begin(field: &str) -> Self {
        Self { field: field.to_owned(), began: Instant::now() }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let field = std::mem::take(&mut self.field);
        metrics::histogram!("recents_graphql_field_seconds", "field" => field).record(self.began.elapsed().as_secs_f64());
    }
}
