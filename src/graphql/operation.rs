//! An operation on its way through: found, parsed, checked, run. How it came and how it is answered
//! is its transport's: `http`, `events` and `socket`.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use async_graphql::{Request, Response as Answer, ServerError, Value, Variables};
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};

use super::conform::conform;
use super::error::GraphqlError;
use super::guard;
use super::loaders::Batches;
use super::observed::Observed;
use super::persisted::Named;
use super::selections::keep_objects;
use super::variables::complete;
use super::work::Work;
use super::written;
use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;

/// An operation as it comes in.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Incoming {
    pub(super) query: Option<String>,
    #[serde(default)]
    pub(super) variables: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, rename = "operationName")]
    pub(super) operation_name: Option<String>,
    #[serde(default)]
    pub(super) extensions: Option<Extensions>,
}

/// Those that we know; others are the client's own.
#[derive(Debug, Deserialize)]
pub(super) struct Extensions {
    #[serde(rename = "persistedQuery")]
    persisted_query: Option<Named>,
}

/// Who asks whom.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) app: App,
    pub(super) caller: Caller,
    /// To find it in the log.
    pub(super) request_id: String,
}

/// What a transport can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// GET: what changes nothing.
    Queries,
    /// One answer.
    Answers,
    /// Queries and subscriptions: GET with events.
    QueriesAndEvents,
    /// Everything.
    Events,
}

/// What to answer with, before it is written in the form that the client takes.
pub(super) struct Outcome {
    pub(super) status: StatusCode,
    pub(super) answer: Answer,
    /// Whether anything ran: otherwise there is no data, not even null.
    pub(super) ran: bool,
}

/// Errors without data.
#[derive(Serialize)]
struct Errors<'a> {
    errors: &'a [ServerError],
}

impl Outcome {
    pub(super) fn not_run(status: StatusCode, answer: Answer) -> Self {
        Self {
            status,
            answer,
            ran: false,
        }
    }

    pub(super) fn refused(error: &Error) -> Self {
        Self::not_run(error.kind().status, from_error(error))
    }

    /// As JSON.
    pub(super) fn body(&self) -> Vec<u8> {
        if self.ran {
            return written::body(&self.answer);
        }
        serde_json::to_vec(&Errors {
            errors: &self.answer.errors,
        })
        .unwrap_or_default()
    }
}

/// An operation that may run.
pub(super) struct Prepared {
    operation_name: Option<String>,
    variables: Variables,
    text: Arc<str>,
    guarded: guard::Guarded,
    mutates: bool,
    /// Whether it is a subscription.
    pub(super) subscribes: bool,
}

/// Finds, parses and checks the document.
pub(super) fn prepare(
    app: &App,
    incoming: Incoming,
    carries: Carries,
) -> Result<Prepared, Box<Outcome>> {
    let refused = |error: Error| Box::new(Outcome::refused(&error));
    let named = incoming
        .extensions
        .as_ref()
        .and_then(|extensions| extensions.persisted_query.as_ref());
    let found = app
        .persisted
        .find(incoming.query.as_deref(), named)
        .map_err(refused)?;
    let text = Arc::clone(&found.text);
    let guarded = match guard::parse(&text, incoming.variables.as_ref(), &app.settings.limits) {
        Ok(Ok(guarded)) => guarded,
        Ok(Err(error)) => return Err(invalid(error.into(), "GRAPHQL_PARSE_FAILED")),
        Err(error) => return Err(refused(error)),
    };
    let name = incoming.operation_name.as_deref();
    let is_any = |kind: OperationType| {
        guarded
            .document
            .operations
            .iter()
            .any(|(operation, definition)| {
                let chosen = name.is_none() || operation.map(async_graphql::Name::as_str) == name;
                chosen && definition.node.ty == kind
            })
    };
    let (mutates, subscribes) = (
        is_any(OperationType::Mutation),
        is_any(OperationType::Subscription),
    );
    if mutates && matches!(carries, Carries::Queries | Carries::QueriesAndEvents) {
        let answer = bad_request("GET is for queries: use POST");
        return Err(Box::new(Outcome::not_run(
            StatusCode::METHOD_NOT_ALLOWED,
            answer,
        )));
    }
    if subscribes && matches!(carries, Carries::Queries | Carries::Answers) {
        let text =
            "a subscription needs a WebSocket (graphql-transport-ws), or Accept: text/event-stream";
        return Err(refused(Error::BadRequest(text.into())));
    }
    if let Some(error) = guard::unknown_type(&guarded.document) {
        return Err(invalid(error, "GRAPHQL_VALIDATION_FAILED"));
    }
    if guarded.introspects && !app.settings.graphql.introspection {
        return Err(refused(Error::Forbidden(
            "introspection is off on this server".into(),
        )));
    }
    app.persisted.keep(found);
    let Incoming {
        variables,
        operation_name,
        ..
    } = incoming;
    let mut variables = variables
        .map(serde_json::Value::Object)
        .map(Variables::from_json)
        .unwrap_or_default();
    complete(&guarded.document, operation_name.as_deref(), &mut variables)
        .map_err(|error| invalid(*error, "BAD_USER_INPUT"))?;
    Ok(Prepared {
        operation_name,
        variables,
        text,
        guarded,
        mutates,
        subscribes,
    })
}

impl Prepared {
    /// The one answer of a query or a mutation.
    pub(super) async fn run(self, asking: &Asking) -> Outcome {
        let mutates = self.mutates;
        let (request, mut running) = self.begin(asking);
        if mutates && let Some(refused) = running.count(asking) {
            return refused;
        }
        running.outcome(asking.app.schema.execute(request).await)
    }

    /// The answers of a subscription, each when there is something to tell; of anything else the
    /// one.
    pub(super) fn stream(self, asking: &Asking) -> impl Stream<Item = Outcome> + Send + use<> {
        let (mutates, subscribes) = (self.mutates, self.subscribes);
        let (request, mut running) = self.begin(asking);
        if subscribes && (running.observed.root.len() != 1 || running.observed.has_root_directives)
        {
            let text = "a subscription must have exactly one field at its root, without @skip and @include";
            let error = ServerError::new(text, None);
            return futures_util::stream::iter([*invalid(error, "GRAPHQL_VALIDATION_FAILED")])
                .left_stream();
        }
        if mutates && let Some(refused) = running.count(asking) {
            return futures_util::stream::iter([refused]).left_stream();
        }
        asking
            .app
            .schema
            .execute_stream(request)
            .map(move |answer| running.outcome(answer))
            .right_stream()
    }

    fn begin(mut self, asking: &Asking) -> (Request, Running) {
        let observed = Observed::begin(&self.guarded.document, self.operation_name.as_deref());
        keep_objects(&mut self.guarded.document);
        let Asking {
            app,
            caller,
            request_id,
        } = asking;
        let work = Arc::new(Work::new(
            app.core.clone(),
            observed.root.iter().map(|(_, field)| field.as_str()),
        ));
        let loader = Batches::loader(app.core.clone(), caller.clone(), Arc::clone(&work));
        let request = Request::new(&*self.text).variables(self.variables);
        let mut request = request.data(loader).data(work).data(caller.clone());
        request.operation_name = self.operation_name;
        request.set_parsed_query(self.guarded.document);
        let slow = app.settings.graphql.slow_milliseconds;
        let slow = (slow > 0).then(|| Duration::from_millis(slow));
        (
            request,
            Running {
                observed,
                is_measured: false,
                text: self.text,
                request_id: request_id.clone(),
                slow,
            },
        )
    }
}

/// An operation that runs.
struct Running {
    observed: Observed,
    /// What is measured of a subscription is its first answer.
    is_measured: bool,
    text: Arc<str>,
    request_id: String,
    slow: Option<Duration>,
}

impl Running {
    /// Counts each of a user's mutations as a request; the first one was counted with the request
    /// that brought it.
    fn count(&self, asking: &Asking) -> Option<Outcome> {
        let counted = asking.app.rates.check_user_for(
            asking.caller.user()?,
            self.observed.root.len().saturating_sub(1),
        );
        counted.err().map(|error| Outcome::refused(&error))
    }

    fn outcome(&mut self, mut answer: Answer) -> Outcome {
        // What failed before a resolver ran has neither a path nor a code of ours.
        let ran =
            answer.errors.is_empty() || answer.errors.iter().any(|error| !error.path.is_empty());
        if ran {
            conform(&mut answer, &self.observed.root);
        }
        for error in &mut answer.errors {
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
        if !std::mem::replace(&mut self.is_measured, true) {
            self.observed
                .end(&self.text, &answer.errors, ran, self.slow);
        }
        Outcome {
            status: if ran {
                StatusCode::OK
            } else {
                StatusCode::BAD_REQUEST
            },
            answer,
            ran,
        }
    }
}

fn invalid(mut error: ServerError, code: &str) -> Box<Outcome> {
    set_code(&mut error, code);
    Box::new(Outcome::not_run(
        StatusCode::BAD_REQUEST,
        Answer::from_errors(vec![error]),
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

pub(super) fn bad_request(text: &'static str) -> Answer {
    from_error(&Error::BadRequest(text.into()))
}

pub(super) fn from_error(error: &Error) -> Answer {
    let error = async_graphql::Error::from(GraphqlError::from(error.clone()));
    let mut error = error.into_server_error(async_graphql::Pos::default());
    // It is about the request, not about a place in the document.
    error.locations.clear();
    Answer::from_errors(vec![error])
}
