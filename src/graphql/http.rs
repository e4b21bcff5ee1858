//! GraphQL over HTTP: POST with a JSON body, GET for queries. Everything that goes wrong is an answer in GraphQL's form.
//!
//! Our own handler over async-graphql's executor: the stock one of async-graphql-axum 7.2.1 runs mutations by GET, reads bodies
//! of any size, takes `text/plain`, and panics on some multipart bodies.

use async_graphql::parser::types::OperationType;
use async_graphql::{Request, Response as Answer, ServerError, Variables};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use super::error::GraphqlError;
use super::guard;
use super::loaders::RecentsLoader;
use crate::app::App;
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
#[derive(Deserialize)]
struct Incoming {
    query: Option<String>,
    #[serde(default)]
    variables: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, rename = "operationName")]
    operation_name: Option<String>,
}

async fn by_post(State(app): State<App>, headers: HeaderMap, request: axum::extract::Request) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(JSON) {
        return answer(&headers, StatusCode::UNSUPPORTED_MEDIA_TYPE, &bad_request("Content-Type must be application/json"));
    }
    let body = match read_body(request.into_body(), app.settings.limits.body_bytes).await {
        Ok(body) => body,
        Err(error) => return refuse(&headers, &error),
    };
    match serde_json::from_slice::<Incoming>(&body) {
        Ok(incoming) => execute(&app, &headers, incoming, true).await,
        Err(_) => {
            let text = "the body must be a JSON object with query, and optionally variables and operationName";
            answer(&headers, StatusCode::BAD_REQUEST, &bad_request(text))
        }
    }
}

async fn by_get(State(app): State<App>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let mut incoming = Incoming { query: None, variables: None, operation_name: None };
    for (name, value) in url_pairs(&query.unwrap_or_default()) {
        match name.as_str() {
            "query" => incoming.query = Some(value),
            "operationName" => incoming.operation_name = Some(value),
            "variables" if !value.is_empty() => match serde_json::from_str(&value) {
                Ok(variables) => incoming.variables = variables,
                Err(_) => {
                    return answer(&headers, StatusCode::BAD_REQUEST, &bad_request("variables must be a JSON object"));
                }
            },
            _ => {}
        }
    }
    execute(&app, &headers, incoming, false).await
}

fn url_pairs(query: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(query).unwrap_or_default()
}

async fn execute(app: &App, headers: &HeaderMap, incoming: Incoming, mutations: bool) -> Response {
    let Some(query) = incoming.query.filter(|query| !query.trim().is_empty()) else {
        return answer(headers, StatusCode::BAD_REQUEST, &bad_request("query must be given"));
    };
    let document = match guard::parse(&query, incoming.variables.as_ref(), &app.settings.limits) {
        Ok(Ok(document)) => document,
        Ok(Err(error)) => return invalid(headers, error.into(), "GRAPHQL_PARSE_FAILED"),
        Err(error) => return refuse(headers, &error),
    };
    if let Some(error) = guard::unknown_type(&document) {
        return invalid(headers, error, "GRAPHQL_VALIDATION_FAILED");
    }
    let name = incoming.operation_name.as_deref();
    let mutates = document.operations.iter().any(|(operation, definition)| {
        let chosen = name.is_none() || operation.map(async_graphql::Name::as_str) == name;
        chosen && definition.node.ty != OperationType::Query
    });
    if mutates && !mutations {
        let mut response = answer(headers, StatusCode::METHOD_NOT_ALLOWED, &bad_request("GET is for queries: use POST"));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let variables = incoming.variables.map(serde_json::Value::Object).map(Variables::from_json).unwrap_or_default();
    let mut request = Request::new(query).variables(variables).data(RecentsLoader::new(app.core.clone()));
    request.operation_name = incoming.operation_name;
    request.set_parsed_query(document);
    let mut result = app.schema.execute(request).await;
    // What failed before a resolver ran has neither a path nor a code of ours.
    let executed = result.errors.is_empty() || result.errors.iter().any(|error| !error.path.is_empty());
    for error in &mut result.errors {
        let code = if error.path.is_empty() { "GRAPHQL_VALIDATION_FAILED" } else { "BAD_USER_INPUT" };
        set_code(error, code);
    }
    answer(headers, if executed { StatusCode::OK } else { StatusCode::BAD_REQUEST }, &result)
}

fn invalid(headers: &HeaderMap, mut error: ServerError, code: &str) -> Response {
    set_code(&mut error, code);
    answer(headers, StatusCode::BAD_REQUEST, &Answer::from_errors(vec![error]))
}

fn set_code(error: &mut ServerError, code: &str) {
    let extensions = error.extensions.get_or_insert_default();
    if extensions.get("code").is_none() {
        extensions.set("code", code);
    }
}

fn bad_request(text: &str) -> Answer {
    from_error(&Error::BadRequest(text.to_owned().into()))
}

fn from_error(error: &Error) -> Answer {
    let error = async_graphql::Error::from(GraphqlError(error.clone()));
    let mut error = error.into_server_error(async_graphql::Pos::default());
    // It is about the request, not about a place in the document.
    error.locations.clear();
    Answer::from_errors(vec![error])
}

/// An error before execution, with its status from the table.
#[must_use]
pub fn refuse(headers: &HeaderMap, error: &Error) -> Response {
    let mut response = answer(headers, error.kind().status, &from_error(error));
    if error.kind().status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Who asks for `application/graphql-response+json` gets it with the status that says what happened; with `application/json`, a
/// request that is well-formed JSON is answered with 200, as clients of that kind expect.
fn answer(headers: &HeaderMap, status: StatusCode, result: &Answer) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let modern = accept.contains(GRAPHQL_JSON);
    let is_graphql = result.errors.iter().any(|error| {
        let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
        matches!(code, Some(async_graphql::Value::String(code)) if code.starts_with("GRAPHQL_"))
    });
    let status = if status == StatusCode::BAD_REQUEST && is_graphql && !modern { StatusCode::OK } else { status };
    let content_type =
        if modern { "application/graphql-response+json; charset=utf-8" } else { "application/json; charset=utf-8" };
    let body = serde_json::to_vec(result).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}
