//! Metrics and slow-operation logs. The cardinality of labels is bounded, because clients choose
//! the names of operations.

use std::time::{Duration, Instant};

use async_graphql::parser::types::{
    ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::{Name, PathSegment, ServerError, Value};

use super::operation_stats::{self, CompletedOperation, OTHER};
use super::persisted::hash_of;
use super::query_limits::root_nullability;

/// Maximum depth to which fragments are followed to collect the root fields.
const MAX_FRAGMENT_DEPTH: usize = 8;

/// The measurements of one operation.
#[derive(Debug)]
pub(super) struct OperationMetrics {
    name: String,
    kind: &'static str,
    /// Response keys at the root, with the names of their fields.
    pub(super) root: Vec<(String, String)>,
    /// True if any selection at the root has a directive.
    pub(super) has_root_directives: bool,
    started_at: Instant,
}

/// Returns the operation of a document that runs, with its name. `chosen` is the request's
/// `operationName`.
pub(super) fn chosen_operation<'a>(
    document: &'a ExecutableDocument,
    chosen: Option<&str>,
) -> Option<(Option<&'a Name>, &'a OperationDefinition)> {
    let mut operations = document.operations.iter();
    let (name, operation) = operations
        .find(|(name, _)| chosen.is_none_or(|chosen| name.is_some_and(|name| name == chosen)))?;
    Some((name, &operation.node))
}

impl OperationMetrics {
    /// Starts the measurement. `chosen` is the request's `operationName`.
    pub(super) fn start(document: &ExecutableDocument, chosen: Option<&str>) -> Self {
        let mut metrics = Self {
            name: String::new(),
            kind: "query",
            root: Vec::new(),
            has_root_directives: false,
            started_at: Instant::now(),
        };
        if let Some((name, operation)) = chosen_operation(document, chosen) {
            metrics.name = name.map(Name::to_string).unwrap_or_default();
            metrics.kind = match operation.ty {
                OperationType::Query => "query",
                OperationType::Mutation => "mutation",
                OperationType::Subscription => "subscription",
            };
            metrics.collect(document, &operation.selection_set.node, MAX_FRAGMENT_DEPTH);
        }
        metrics
    }

    fn collect(&mut self, document: &ExecutableDocument, set: &SelectionSet, max_depth: usize) {
        for selection in &set.items {
            self.has_root_directives |= !selection.node.directives().is_empty();
            match &selection.node {
                Selection::Field(field) => {
                    self.root.push((
                        field.node.response_key().node.to_string(),
                        field.node.name.node.to_string(),
                    ));
                }
                Selection::FragmentSpread(spread) if max_depth > 0 => {
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node)
                    {
                        self.collect(document, &fragment.node.selection_set.node, max_depth - 1);
                    }
                }
                Selection::InlineFragment(inline) if max_depth > 0 => {
                    self.collect(document, &inline.node.selection_set.node, max_depth - 1);
                }
                _ => {}
            }
        }
    }

    /// Records the end of the operation. An operation that failed validation has `executed` false
    /// and is counted under "other": its name is not trusted.
    pub(super) fn finish(
        &self,
        text: &str,
        errors: &[ServerError],
        executed: bool,
        slow: Option<Duration>,
    ) {
        let elapsed = self.started_at.elapsed();
        // Subscriptions wait for events, so their duration is not a measure of slowness.
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
        operation_stats::record(CompletedOperation {
            name: if executed { &self.name } else { OTHER },
            kind: self.kind,
            elapsed: is_timed.then_some(elapsed),
            errors: errors.collect(),
        });
        if executed && is_timed && slow.is_some_and(|slow| elapsed >= slow) {
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

    /// Returns the root field that an error came from.
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
            .filter(|field| root_nullability(field).is_some())
            .unwrap_or(OTHER)
            .to_owned()
    }
}

/// Measures the duration of a root field's resolver until it is dropped.
#[derive(Debug)]
pub(super) struct FieldTimer {
    field: String,
    started_at: Instant,
}

impl FieldTimer {
    pub(super) fn start(field: &str) -> Self {
        Self {
            field: field.to_owned(),
            started_at: Instant::now(),
        }
    }
}

impl Drop for FieldTimer {
    fn drop(&mut self) {
        let field = std::mem::take(&mut self.field);
        metrics::histogram!(crate::metrics::GRAPHQL_FIELD_SECONDS, "field" => field)
            .record(self.started_at.elapsed().as_secs_f64());
    }
}
