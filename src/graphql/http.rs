//! GraphQL over HTTP (the specification's draft of 2025): POST with a JSON body, GET for queries. Everything that goes wrong is an
//! answer in GraphQL's form.
//!
//! Our own handler over async-graphql's executor: the stock one of async-graphql-axum 7.2.1 runs mutations by GET, reads bodies
//! of any size, takes `text/plain`, and panics on some multipart bodies.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use async_graphql::{Request, Response as Answer, ServerError, Value, Variables};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::conform::conform;
use super::error::GraphqlError;
use super::guard;
use super::loaders::Batches;
use super::observed::Observed;
use super::persisted::Named;
use crate::app::{App, REQUEST_ID};
use crate::error::Error;
use crate::rest::legacy::read_body;

/// Where it is.
pub const PATH: &str = "/graphql";

const JSON: &str = "application/json";
const GRAPHQL_JSON: &str = "application/graphql-response+json";

/// The route.
pub fn routes() -> Router<App> {
    Router::new().route(PATH, get(by_get).post(by_post))
}

/// A request as it comes in.
#[derive(Debug, Default, Deserialize)]
struct Incoming {
    query: Option<String>,
    #[serde(default)]
    variables: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, rename = "operationName")]
    operation_name: Option<String>,
    #[serde(default)]
    extensions: Option<Extensions>,
}

/// Those that we know; others are the client's own.
#[derive(Debug, Deserialize)]
struct Extensions {
    #[serde(rename = "persistedQuery")]
    persisted_query: Option<Named>,
}

/// What to answer with, before it is written in the form that the client takes.
struct Outcome {
    status: StatusCode,
    answer: Answer,
    /// Whether anything ran: otherwise there is no data, not even null.
    ran: bool,
}

/// Errors without data.
#[derive(Serialize)]
struct Errors<'a> {
    errors: &'a [ServerError],
}

impl Outcome {
    fn not_run(status: StatusCode, answer: Answer) -> Self {
        Self { status, answer, ran: false }
    }

    fn refused(error: &Error) -> Self {
        Self::not_run(error.kind().status, from_error(error))
    }

    fn body(&self) -> Vec<u8> {
        let written =
            if self.ran { serde_json::to_vec(&self.answer) } else { serde_json::to_vec(&Errors { errors: &self.answer.errors }) };
        written.unwrap_or_default()
    }
}

/// The form of an answer, by `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `application/graphql-response+json`: the status says what happened.
    Modern,
    /// `application/json`: a well-formed request is answered with 200, as clients of that kind expect.
    Legacy,
}

impl Form {
    /// `None` when the client takes neither. Who says nothing takes `application/json`, as the specification has it for now.
    fn accepted(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::ACCEPT).iter().peekable();
        if lines.peek().is_none() {
            return Some(Self::Legacy);
        }
        let ranges = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        let mut best: Option<(Self, f32)> = None;
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                GRAPHQL_JSON => Self::Modern,
                JSON | "application/*" | "*/*" => Self::Legacy,
                _ => continue,
            };
            let mut parameters = parts.filter_map(|parameter| parameter.split_once('='));
            let quality =
                parameters.find_map(|(name, value)| name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse()));
            let quality = match quality {
                Some(Ok(quality)) => quality,
                Some(Err(_)) => 0.0,
                None => 1.0,
            };
            // The first of equals.
            if quality > 0.0 && best.is_none_or(|(_, known)| quality > known) {
                best = Some((form, quality));
            }
        }
        best.map(|(form, _)| form)
    }

    /// For answers that must be given, whatever the client takes.
    fn of(headers: &HeaderMap) -> Self {
        Self::accepted(headers).unwrap_or(Self::Legacy)
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Modern => "application/graphql-response+json; charset=utf-8",
            Self::Legacy => "application/json; charset=utf-8",
        })
    }

    fn status(self, outcome: &Outcome) -> StatusCode {
        // What is wrong with the document is no failure of the transport to who takes `application/json`.
        let about_the_document = outcome.answer.errors.iter().any(|error| {
            let code = code(error);
            code.is_some_and(|code| code.starts_with("GRAPHQL_") || code.starts_with("PERSISTED_QUERY_"))
        });
        match self {
            Self::Legacy if outcome.status == StatusCode::BAD_REQUEST && about_the_document => StatusCode::OK,
            _ => outcome.status,
        }
    }
}

async fn by_post(State(app): State<App>, headers: HeaderMap, request: axum::extract::Request) -> Response {
    let Some(form) = Form::accepted(&headers) else { return not_acceptable() };
    if let Err(text) = check_content_type(&headers) {
        return single(form, &Outcome::not_run(StatusCode::UNSUPPORTED_MEDIA_TYPE, bad_request(text)));
    }
    let body = match read_body(request.into_body(), app.settings.limits.body_bytes).await {
        Ok(body) => body,
        Err(error) => return refuse(&headers, &error),
    };
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return batch(&app, &headers, form, &body).await;
    }
    let outcome = match serde_json::from_slice::<Incoming>(&body) {
        Ok(incoming) => execute(&app, &headers, incoming, true).await,
        Err(_) => {
            let text = "the body must be a JSON object with query, and optionally variables, operationName and extensions";
            Outcome::not_run(StatusCode::BAD_REQUEST, bad_request(text))
        }
    };
    single(form, &outcome)
}

/// Only JSON, and only in UTF-8: a form or a text could be sent from any page without asking first.
fn check_content_type(headers: &HeaderMap) -> Result<(), &'static str> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().unwrap_or_default().eq_ignore_ascii_case(JSON) {
        return Err("Content-Type must be application/json");
    }
    let charset = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    match charset {
        Some((_, value)) if !["utf-8", "utf8"].contains(&value.trim().trim_matches('"').to_ascii_lowercase().as_str()) => {
            Err("Content-Type must be application/json in UTF-8")
        }
        _ => Ok(()),
    }
}

/// Operations one after the other: what one of them changes, the next one sees.
async fn batch(app: &App, headers: &HeaderMap, form: Form, body: &[u8]) -> Response {
    let limit = app.settings.limits.batch_operations;
    if limit < 2 {
        let text = "the body must be a JSON object: limits.batch_operations allows no arrays";
        return refuse(headers, &Error::BadRequest(text.into()));
    }
    let operations: Vec<Incoming> = match serde_json::from_slice(body) {
        Ok(operations) => operations,
        Err(_) => return refuse(headers, &Error::BadRequest("the body must be a JSON array of objects, each with query".into())),
    };
    if operations.is_empty() {
        return refuse(headers, &Error::BadRequest("the body must be a JSON array of at least one object".into()));
    }
    if operations.len() > limit {
        let text = format!("the body must be a JSON array of at most {limit} operations");
        return refuse(headers, &Error::ResourceExhausted(text.into()));
    }
    let mut body = Vec::from(b"[");
    for incoming in operations {
        if body.len() > 1 {
            body.push(b',');
        }
        body.append(&mut execute(app, headers, incoming, true).await.body());
    }
    body.push(b']');
    written(form, StatusCode::OK, body)
}

async fn by_get(State(app): State<App>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let Some(form) = Form::accepted(&headers) else { return not_acceptable() };
    let outcome = match from_url(&query.unwrap_or_default()) {
        Ok(incoming) => execute(&app, &headers, incoming, false).await,
        Err(error) => Outcome::refused(&error),
    };
    let status = form.status(&outcome);
    let body = outcome.body();
    // A cache of the client's own may keep an answer and must ask whether it is still so; others may not.
    let etag = outcome.answer.errors.is_empty().then(|| format!("W/\"{}\"", hex::encode(&Sha256::digest(&body)[..16])));
    let is_known = etag.as_ref().is_some_and(|etag| {
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        known.flat_map(|value| value.split(',')).any(|known| known.trim() == etag)
    });
    let mut response = if is_known { StatusCode::NOT_MODIFIED.into_response() } else { written(form, status, body) };
    let headers = response.headers_mut();
    let control = if etag.is_some() { "private, no-cache" } else { "no-store" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
    headers.insert(header::VARY, HeaderValue::from_static("accept, authorization, token"));
    if let Some(Ok(etag)) = etag.map(HeaderValue::try_from) {
        headers.insert(header::ETAG, etag);
    }
    if outcome.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn from_url(query: &str) -> Result<Incoming, Error> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let mut incoming = Incoming::default();
    for (name, value) in pairs {
        match name.as_str() {
            "query" => incoming.query = Some(value),
            "operationName" => incoming.operation_name = Some(value),
            "variables" if !value.is_empty() => {
                incoming.variables =
                    serde_json::from_str(&value).map_err(|_| Error::BadRequest("variables must be a JSON object".into()))?;
            }
            "extensions" if !value.is_empty() => {
                incoming.extensions =
                    serde_json::from_str(&value).map_err(|_| Error::BadRequest("extensions must be a JSON object".into()))?;
            }
            _ => {}
        }
    }
    Ok(incoming)
}

async fn execute(app: &App, headers: &HeaderMap, incoming: Incoming, mutations: bool) -> Outcome {
    match prepare(app, &incoming, mutations) {
        Ok((text, guarded)) => run(app, headers, incoming, &text, guarded).await,
        Err(outcome) => *outcome,
    }
}

/// Finds, parses and checks the document.
fn prepare(app: &App, incoming: &Incoming, mutations: bool) -> Result<(Arc<str>, guard::Guarded), Box<Outcome>> {
    let refused = |error: Error| Box::new(Outcome::refused(&error));
    let named = incoming.extensions.as_ref().and_then(|extensions| extensions.persisted_query.as_ref());
    let found = app.persisted.find(incoming.query.as_deref(), named).map_err(refused)?;
    let text = Arc::clone(&found.text);
    let guarded = match guard::parse(&text, incoming.variables.as_ref(), &app.settings.limits) {
        Ok(Ok(guarded)) => guarded,
        Ok(Err(error)) => return Err(invalid(error.into(), "GRAPHQL_PARSE_FAILED")),
        Err(error) => return Err(refused(error)),
    };
    let name = incoming.operation_name.as_deref();
    let mutates = guarded.document.operations.iter().any(|(operation, definition)| {
        let chosen = name.is_none() || operation.map(async_graphql::Name::as_str) == name;
        chosen && definition.node.ty != OperationType::Query
    });
    if mutates && !mutations {
        let answer = bad_request("GET is for queries: use POST");
        return Err(Box::new(Outcome::not_run(StatusCode::METHOD_NOT_ALLOWED, answer)));
    }
    if let Some(error) = guard::unknown_type(&guarded.document) {
        return Err(invalid(error, "GRAPHQL_VALIDATION_FAILED"));
    }
    if guarded.introspects && !app.settings.graphql.introspection {
        return Err(refused(Error::Forbidden("introspection is off on this server".into())));
    }
    app.persisted.keep(found);
    Ok((text, guarded))
}

async fn run(app: &App, headers: &HeaderMap, incoming: Incoming, text: &str, guarded: guard::Guarded) -> Outcome {
    let observed = Observed::begin(&guarded.document, incoming.operation_name.as_deref());
    let variables = incoming.variables.map(serde_json::Value::Object).map(Variables::from_json).unwrap_or_default();
    let mut request = Request::new(text).variables(variables).data(Batches::loader(app.core.clone()));
    request.operation_name = incoming.operation_name;
    request.set_parsed_query(guarded.document);
    let mut answer = app.schema.execute(request).await;
    // What failed before a resolver ran has neither a path nor a code of ours.
    let ran = answer.errors.is_empty() || answer.errors.iter().any(|error| !error.path.is_empty());
    if ran {
        conform(&mut answer, &observed.root);
    }
    let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    for error in &mut answer.errors {
        set_code(error, if error.path.is_empty() { "GRAPHQL_VALIDATION_FAILED" } else { "BAD_USER_INPUT" });
        if code(error) == Some("INTERNAL_SERVER_ERROR") {
            error.extensions.get_or_insert_default().set("requestId", id);
        }
    }
    let slow = app.settings.graphql.slow_milliseconds;
    observed.end(text, &answer.errors, ran, (slow > 0).then(|| Duration::from_millis(slow)));
    Outcome { status: if ran { StatusCode::OK } else { StatusCode::BAD_REQUEST }, answer, ran }
}

fn invalid(mut error: ServerError, code: &str) -> Box<Outcome> {
    set_code(&mut error, code);
    Box::new(Outcome::not_run(StatusCode::BAD_REQUEST, Answer::from_errors(vec![error])))
}

fn code(error: &ServerError) -> Option<&str> {
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

fn bad_request(text: &'static str) -> Answer {
    from_error(&Error::BadRequest(text.into()))
}

fn from_error(error: &Error) -> Answer {
    let error = async_graphql::Error::from(GraphqlError::from(error.clone()));
    let mut error = error.into_server_error(async_graphql::Pos::default());
    // It is about the request, not about a place in the document.
    error.locations.clear();
    Answer::from_errors(vec![error])
}

/// An error before execution, with its status from the table.
#[must_use]
pub fn refuse(headers: &HeaderMap, error: &Error) -> Response {
    let mut outcome = Outcome::refused(error);
    if outcome.status == StatusCode::INTERNAL_SERVER_ERROR {
        let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        for error in &mut outcome.answer.errors {
            error.extensions.get_or_insert_default().set("requestId", id);
        }
    }
    let mut response = single(Form::of(headers), &outcome);
    if error.kind().status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn not_acceptable() -> Response {
    let answer = bad_request("Accept must allow application/graphql-response+json or application/json");
    single(Form::Legacy, &Outcome::not_run(StatusCode::NOT_ACCEPTABLE, answer))
}

fn single(form: Form, outcome: &Outcome) -> Response {
    written(form, form.status(outcome), outcome.body())
}

fn written(form: Form, status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, form.content_type())], body).into_response()
}
