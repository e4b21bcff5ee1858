//! Runs an operation: finds its document, parses, checks and executes it. The transports (`http`,
//! `sse` and `websocket`) read requests and write responses.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use async_graphql::{Request, Response, ServerError, Value, Variables};
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};

use super::empty_selections::mark_empty_selections;
use super::error::{GraphqlError, log_errors};
use super::field_order::FieldOrder;
use super::loaders::Loaders;
use super::metrics::{OperationMetrics, chosen_operation};
use super::null_propagation::propagate_nulls;
use super::operation_context::OperationContext;
use super::persisted::PersistedQuery;
use super::query_limits;
use super::raw_json;
use super::variables::apply_defaults;
use crate::auth::Caller;
use crate::error::Error;
use crate::graphql::GraphqlState;

/// A GraphQL request as received.
#[derive(Debug, Default, Deserialize)]
pub(super) struct GraphqlRequest {
    pub(super) query: Option<String>,
    #[serde(default)]
    pub(super) variables: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, rename = "operationName")]
    pub(super) operation_name: Option<String>,
    #[serde(default)]
    pub(super) extensions: Option<RequestExtensions>,
}

/// The extensions that the server reads; clients may send others.
#[derive(Debug, Deserialize)]
pub(super) struct RequestExtensions {
    #[serde(rename = "persistedQuery")]
    persisted_query: Option<PersistedQuery>,
}

/// The caller, and the server state that its operation works on.
#[derive(Clone)]
pub(super) struct RequestContext {
    pub(super) state: GraphqlState,
    pub(super) caller: Caller,
    /// Correlates errors with the log.
    pub(super) request_id: String,
}

/// The operations that a transport can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransportCapabilities {
    /// GET: queries only.
    Queries,
    /// POST: operations with a single response.
    SingleResponse,
    /// GET with server-sent events: queries and subscriptions.
    QueriesAndStreams,
    /// POST with server-sent events, and WebSocket: all operations.
    Everything,
}

/// The result of an operation, before the transport serialises it.
pub(super) struct ExecutionResult {
    pub(super) status: StatusCode,
    pub(super) response: Response,
    /// True if execution started. Otherwise, the response has no `data`, not even null.
    pub(super) executed: bool,
}

/// A response with errors only.
#[derive(Serialize)]
struct ErrorBody<'a> {
    errors: &'a [ServerError],
}

impl ExecutionResult {
    pub(super) fn not_executed(status: StatusCode, response: Response) -> Self {
        Self {
            status,
            response,
            executed: false,
        }
    }

    pub(super) fn from_error(error: &Error) -> Self {
        Self::not_executed(error.kind().status, response_from_error(error))
    }

    /// Serialises the response as JSON.
    pub(super) fn body(&self) -> Vec<u8> {
        if self.executed {
            return raw_json::serialize_response(&self.response);
        }
        serde_json::to_vec(&ErrorBody {
            errors: &self.response.errors,
        })
        .unwrap_or_default()
    }
}

/// An operation that passed all checks.
pub(super) struct PreparedOperation {
    operation_name: Option<String>,
    variables: Variables,
    text: Arc<str>,
    checked: query_limits::CheckedDocument,
    is_mutation: bool,
    /// True if the operation is a subscription.
    pub(super) is_subscription: bool,
}

/// Finds, parses and checks the document of a request.
pub(super) fn prepare(
    state: &GraphqlState,
    request: GraphqlRequest,
    capabilities: TransportCapabilities,
) -> Result<PreparedOperation, Box<ExecutionResult>> {
    let refused = |error: Error| Box::new(ExecutionResult::from_error(&error));
    let persisted_query = request
        .extensions
        .as_ref()
        .and_then(|extensions| extensions.persisted_query.as_ref());
    let found = state
        .persisted
        .find(request.query.as_deref(), persisted_query)
        .map_err(refused)?;
    let text = Arc::clone(&found.text);
    let checked = match query_limits::parse_and_check(
        &text,
        request.variables.as_ref(),
        &state.app.settings.limits,
    ) {
        Ok(Ok(checked)) => checked,
        Ok(Err(error)) => return Err(invalid(error.into(), "GRAPHQL_PARSE_FAILED")),
        Err(error) => return Err(refused(error)),
    };
    let name = request.operation_name.as_deref();
    let is_any = |kind: OperationType| {
        checked
            .document
            .operations
            .iter()
            .any(|(operation, definition)| {
                let chosen = name.is_none() || operation.map(async_graphql::Name::as_str) == name;
                chosen && definition.node.ty == kind
            })
    };
    let (is_mutation, is_subscription) = (
        is_any(OperationType::Mutation),
        is_any(OperationType::Subscription),
    );
    if is_mutation
        && matches!(
            capabilities,
            TransportCapabilities::Queries | TransportCapabilities::QueriesAndStreams
        )
    {
        let response = bad_request("GET is for queries: use POST");
        return Err(Box::new(ExecutionResult::not_executed(
            StatusCode::METHOD_NOT_ALLOWED,
            response,
        )));
    }
    if is_subscription
        && matches!(
            capabilities,
            TransportCapabilities::Queries | TransportCapabilities::SingleResponse
        )
    {
        let text =
            "a subscription needs a WebSocket (graphql-transport-ws), or Accept: text/event-stream";
        return Err(refused(Error::BadRequest(text.into())));
    }
    if let Some(error) = query_limits::find_unknown_type(&checked.document) {
        return Err(invalid(error, "GRAPHQL_VALIDATION_FAILED"));
    }
    if checked.introspects && !state.app.settings.graphql.introspection {
        return Err(refused(Error::Forbidden(
            "introspection is off on this server".into(),
        )));
    }
    state.persisted.cache(found);
    let GraphqlRequest {
        variables,
        operation_name,
        ..
    } = request;
    let mut variables = variables
        .map(serde_json::Value::Object)
        .map(Variables::from_json)
        .unwrap_or_default();
    apply_defaults(&checked.document, operation_name.as_deref(), &mut variables)
        .map_err(|error| invalid(*error, "BAD_USER_INPUT"))?;
    Ok(PreparedOperation {
        operation_name,
        variables,
        text,
        checked,
        is_mutation,
        is_subscription,
    })
}

impl PreparedOperation {
    /// Runs a query or a mutation and returns its result.
    pub(super) async fn run(self, context: &RequestContext) -> ExecutionResult {
        let is_mutation = self.is_mutation;
        let (request, mut running) = self.start(context);
        if is_mutation && let Some(refused) = running.check_mutation_rate(context) {
            return refused;
        }
        running.finish(context.state.schema.execute(request).await)
    }

    /// Runs a subscription and returns a result for each event; for queries and mutations the
    /// stream has one result.
    pub(super) fn stream(
        self,
        context: &RequestContext,
    ) -> impl Stream<Item = ExecutionResult> + Send + use<> {
        let (is_mutation, is_subscription) = (self.is_mutation, self.is_subscription);
        let (request, mut running) = self.start(context);
        if is_subscription
            && (running.metrics.root.len() != 1 || running.metrics.has_root_directives)
        {
            let text = "a subscription must have exactly one field at its root, without @skip and @include";
            let error = ServerError::new(text, None);
            return futures_util::stream::iter([*invalid(error, "GRAPHQL_VALIDATION_FAILED")])
                .left_stream();
        }
        if is_mutation && let Some(refused) = running.check_mutation_rate(context) {
            return futures_util::stream::iter([refused]).left_stream();
        }
        context
            .state
            .schema
            .execute_stream(request)
            .map(move |response| running.finish(response))
            .right_stream()
    }

    fn start(mut self, context: &RequestContext) -> (Request, RunningOperation) {
        let metrics =
            OperationMetrics::start(&self.checked.document, self.operation_name.as_deref());
        let RequestContext {
            state,
            caller,
            request_id,
        } = context;
        let field_order = chosen_operation(&self.checked.document, self.operation_name.as_deref())
            .map(|(_, operation)| {
                let max_selections = state.app.settings.limits.document_fields;
                let set = &operation.selection_set.node;
                FieldOrder::of(&self.checked.document, set, max_selections)
            })
            .unwrap_or_default();
        mark_empty_selections(&mut self.checked.document);
        let operation = Arc::new(OperationContext::new(
            state.app.core.clone(),
            metrics.root.iter().map(|(_, field)| field.as_str()),
        ));
        let loader = Loaders::loader(
            state.app.core.clone(),
            caller.clone(),
            Arc::clone(&operation),
        );
        let request = Request::new(&*self.text).variables(self.variables);
        let mut request = request.data(loader).data(operation).data(caller.clone());
        request.operation_name = self.operation_name;
        request.set_parsed_query(self.checked.document);
        let slow = state.app.settings.graphql.slow_operation_ms;
        let slow = (slow > 0).then(|| Duration::from_millis(slow));
        (
            request,
            RunningOperation {
                metrics,
                field_order,
                is_recorded: false,
                text: self.text,
                request_id: request_id.clone(),
                slow,
            },
        )
    }
}

/// An operation during its execution.
struct RunningOperation {
    metrics: OperationMetrics,
    field_order: FieldOrder,
    /// Set after the first result: of a subscription only that one is recorded.
    is_recorded: bool,
    text: Arc<str>,
    request_id: String,
    slow: Option<Duration>,
}

impl RunningOperation {
    /// Counts each mutation of a user against the rate limit. The first was counted with the
    /// request.
    fn check_mutation_rate(&self, context: &RequestContext) -> Option<ExecutionResult> {
        let counted = context.state.app.rate_limiter.check_user_operations(
            context.caller.user()?,
            self.metrics.root.len().saturating_sub(1),
        );
        counted
            .err()
            .map(|error| ExecutionResult::from_error(&error))
    }

    fn finish(&mut self, mut response: Response) -> ExecutionResult {
        // Errors from before execution have neither a path nor one of the server's codes.
        let executed = response.errors.is_empty()
            || response.errors.iter().any(|error| !error.path.is_empty());
        log_errors(&response.errors);
        if executed {
            propagate_nulls(&mut response, &self.metrics.root);
            self.field_order.apply(&mut response.data);
        }
        for error in &mut response.errors {
            set_code(
                error,
                if error.path.is_empty() {
                    "GRAPHQL_VALIDATION_FAILED"
                } else {
                    "BAD_USER_INPUT"
                },
            );
            if code(error) == Some("INTERNAL_SERVER_ERROR") {
                error
                    .extensions
                    .get_or_insert_default()
                    .set("requestId", self.request_id.as_str());
            }
        }
        if !std::mem::replace(&mut self.is_recorded, true) {
            self.metrics
                .finish(&self.text, &response.errors, executed, self.slow);
        }
        ExecutionResult {
            status: if executed {
                StatusCode::OK
            } else {
                StatusCode::BAD_REQUEST
            },
            response,
            executed,
        }
    }
}

fn invalid(mut error: ServerError, code: &str) -> Box<ExecutionResult> {
    set_code(&mut error, code);
    Box::new(ExecutionResult::not_executed(
        StatusCode::BAD_REQUEST,
        Response::from_errors(vec![error]),
    ))
}

pub(super) fn code(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        Value::String(code) => Some(code),
        _ => None,
    }
}

fn set_code(error: &mut ServerError, code: &str) {
    let extensions = error.extensions.get_or_insert_default();
    if extensions.get("code").is_none() {
        extensions.set("code", code);
    }
}

pub(super) fn bad_request(text: &'static str) -> Response {
    response_from_error(&Error::BadRequest(text.into()))
}

pub(super) fn response_from_error(error: &Error) -> Response {
    let error = async_graphql::Error::from(GraphqlError::from(error.clone()));
    let mut error = error.into_server_error(async_graphql::Pos::default());
    // The error is about the request, not about a position in the document.
    error.locations.clear();
    Response::from_errors(vec![error])
}
