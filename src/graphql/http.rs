//! GraphQL over HTTP (the specification's draft of 2025): POST with a JSON body, GET for queries.
//! Everything that goes wrong is an answer in GraphQL's form.
//!
//! Our own handler over async-graphql's executor: the stock one of async-graphql-axum 7.2.1 runs
//! mutations by GET, reads bodies of any size, takes `text/plain`, and panics on some multipart
//! bodies.

use axum::Router;
use axum::extract::{FromRequestParts, Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::operation::{Asking, Carries, Incoming, Outcome, bad_request, code, prepare};
use super::{events, socket};
use crate::app::App;
use crate::auth::Caller;
use crate::border::REQUEST_ID;
use crate::budget::{hold, parsed_size};
use crate::error::Error;
use crate::http::read_body;

/// Where it is.
pub const PATH: &str = "/graphql";

const JSON: &str = "application/json";
const GRAPHQL_JSON: &str = "application/graphql-response+json";

/// The route.
pub fn routes() -> Router<App> {
    Router::new().route(PATH, get(by_get).post(by_post))
}

/// The form of an answer, by `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `application/graphql-response+json`: the status says what happened.
    Modern,
    /// `application/json`: a well-formed request is answered with 200, as clients of that kind
    /// expect.
    Legacy,
}

impl Form {
    /// `None` when the client takes neither. Who says nothing takes `application/json`, as the
    /// specification has it for now.
    fn accepted(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::ACCEPT).iter().peekable();
        if lines.peek().is_none() {
            return Some(Self::Legacy);
        }
        let ranges = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        let mut best: Option<(Self, f32)> = None;
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_str()
            {
                GRAPHQL_JSON => Self::Modern,
                JSON | "application/*" | "*/*" => Self::Legacy,
                _ => continue,
            };
            let mut parameters = parts.filter_map(|parameter| parameter.split_once('='));
            let quality = parameters.find_map(|(name, value)| {
                name.trim()
                    .eq_ignore_ascii_case("q")
                    .then(|| value.trim().parse())
            });
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
        // What is wrong with the document or its variables is no failure of the transport to who
        // takes `application/json`.
        let about_the_document = outcome.answer.errors.iter().any(|error| {
            let named = code(error).is_some_and(|code| {
                code.starts_with("GRAPHQL_") || code.starts_with("PERSISTED_QUERY_")
            });
            named || !error.locations.is_empty()
        });
        match self {
            Self::Legacy if outcome.status == StatusCode::BAD_REQUEST && about_the_document => {
                StatusCode::OK
            }
            _ => outcome.status,
        }
    }
}

async fn by_post(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let (form, takes_events) = (Form::accepted(&headers), events::are_taken(&headers));
    if form.is_none() && !takes_events {
        return not_acceptable();
    }
    if let Err(text) = check_content_type(&headers) {
        let outcome = Outcome::not_run(StatusCode::UNSUPPORTED_MEDIA_TYPE, bad_request(text));
        return single(form.unwrap_or(Form::Legacy), &outcome);
    }
    let address = app.rates.address(request.extensions(), &headers);
    let body = match read_body(
        request.into_body(),
        app.settings.limits.body_bytes,
        &app.settings.limits,
    )
    .await
    {
        Ok(body) => body,
        Err(error) => return refuse(&headers, &error),
    };
    if let Err(error) = hold(parsed_size(&body)) {
        return refuse(&headers, &error);
    }
    let asking = asking(app, caller, &headers);
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return batch(&asking, &headers, form.unwrap_or(Form::Legacy), &body).await;
    }
    let Ok(incoming) = serde_json::from_slice::<Incoming>(&body) else {
        let text = "the body must be a JSON object with query, and optionally variables, operationName and extensions";
        return single(
            form.unwrap_or(Form::Legacy),
            &Outcome::not_run(StatusCode::BAD_REQUEST, bad_request(text)),
        );
    };
    let carries = if takes_events {
        Carries::Events
    } else {
        Carries::Answers
    };
    match (prepare(&asking.app, incoming, carries), form) {
        (Ok(prepared), Some(form)) if !prepared.subscribes => {
            single(form, &prepared.run(&asking).await)
        }
        (Err(outcome), Some(form)) => single(form, &outcome),
        (prepared, _) => events::answer(
            &asking,
            address,
            &headers,
            prepared.map_err(|outcome| *outcome),
        ),
    }
}

fn asking(app: App, caller: Caller, headers: &HeaderMap) -> Asking {
    let request_id = headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    Asking {
        app,
        caller,
        request_id,
    }
}

/// Only JSON, and only in UTF-8: a form or a text could be sent from any page without asking first.
fn check_content_type(headers: &HeaderMap) -> Result<(), &'static str> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().unwrap_or_default().eq_ignore_ascii_case(JSON) {
        return Err("Content-Type must be application/json");
    }
    let charset = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    match charset {
        Some((_, value))
            if !["utf-8", "utf8"]
                .contains(&value.trim().trim_matches('"').to_ascii_lowercase().as_str()) =>
        {
            Err("Content-Type must be application/json in UTF-8")
        }
        _ => Ok(()),
    }
}

/// Operations one after the other: what one of them changes, the next one sees.
async fn batch(asking: &Asking, headers: &HeaderMap, form: Form, body: &[u8]) -> Response {
    let limit = asking.app.settings.limits.batch_operations;
    if limit < 2 {
        let text = "the body must be a JSON object: limits.batch_operations allows no arrays";
        return refuse(headers, &Error::BadRequest(text.into()));
    }
    let operations: Vec<Incoming> = match serde_json::from_slice(body) {
        Ok(operations) => operations,
        Err(_) => {
            return refuse(
                headers,
                &Error::BadRequest(
                    "the body must be a JSON array of objects, each with query".into(),
                ),
            );
        }
    };
    if operations.is_empty() {
        return refuse(
            headers,
            &Error::BadRequest("the body must be a JSON array of at least one object".into()),
        );
    }
    if operations.len() > limit {
        let text = format!("the body must be a JSON array of at most {limit} operations");
        return refuse(headers, &Error::TooComplex(text.into()));
    }
    if let Some(uid) = asking.caller.user() {
        // The first was counted with the request that brought it.
        let counted = asking.app.rates.check_user_for(uid, operations.len() - 1);
        if let Err(error) = counted {
            return refuse(headers, &error);
        }
    }
    let mut body = Vec::from(b"[");
    for incoming in operations {
        if body.len() > 1 {
            body.push(b',');
        }
        let outcome = match prepare(&asking.app, incoming, Carries::Answers) {
            Ok(prepared) => prepared.run(asking).await,
            Err(outcome) => *outcome,
        };
        body.append(&mut outcome.body());
    }
    body.push(b']');
    written(form, StatusCode::OK, body)
}

async fn by_get(State(app): State<App>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().cloned();
    let headers = std::mem::take(&mut parts.headers);
    if socket::is_wanted(&headers) {
        parts.headers.clone_from(&headers);
        return match WebSocketUpgrade::from_request_parts(&mut parts, &app).await {
            Ok(upgrade) => socket::serve(app, caller, &parts, upgrade),
            Err(rejection) => {
                let text =
                    "the request is no WebSocket's: it lacks a header that the protocol asks for";
                single(
                    Form::of(&headers),
                    &Outcome::not_run(rejection.status(), bad_request(text)),
                )
            }
        };
    }
    // Without one only a WebSocket comes so far.
    let Some(caller) = caller else {
        return refuse(&headers, &Error::Unauthenticated("a token is required"));
    };
    let (form, takes_events) = (Form::accepted(&headers), events::are_taken(&headers));
    if form.is_none() && !takes_events {
        return not_acceptable();
    }
    let address = app.rates.address(&parts.extensions, &headers);
    let asking = asking(app, caller, &headers);
    let carries = if takes_events {
        Carries::QueriesAndEvents
    } else {
        Carries::Queries
    };
    let prepared = match from_url(parts.uri.query().unwrap_or_default()) {
        Ok(incoming) => prepare(&asking.app, incoming, carries).map_err(|outcome| *outcome),
        Err(error) => Err(Outcome::refused(&error)),
    };
    match (prepared, form) {
        (Ok(prepared), Some(form)) if !prepared.subscribes => {
            got(&headers, form, &prepared.run(&asking).await)
        }
        (Err(outcome), Some(form)) => got(&headers, form, &outcome),
        (prepared, _) => events::answer(&asking, address, &headers, prepared),
    }
}

/// What a GET is answered with.
fn got(headers: &HeaderMap, form: Form, outcome: &Outcome) -> Response {
    let status = form.status(outcome);
    let body = outcome.body();
    // A cache of the client's own may keep an answer and must ask whether it is still so; others
    // may not.
    let etag = outcome
        .answer
        .errors
        .is_empty()
        .then(|| format!("W/\"{}\"", hex::encode(&Sha256::digest(&body)[..16])));
    let is_known = etag.as_ref().is_some_and(|etag| {
        let known = headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok());
        known
            .flat_map(|value| value.split(','))
            .any(|known| known.trim() == etag)
    });
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        written(form, status, body)
    };
    let headers = response.headers_mut();
    let control = if etag.is_some() {
        "private, no-cache"
    } else {
        "no-store"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
    headers.insert(
        header::VARY,
        HeaderValue::from_static("accept, authorization, token"),
    );
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
                incoming.variables = serde_json::from_str(&value)
                    .map_err(|_| Error::BadRequest("variables must be a JSON object".into()))?;
            }
            "extensions" if !value.is_empty() => {
                incoming.extensions = serde_json::from_str(&value)
                    .map_err(|_| Error::BadRequest("extensions must be a JSON object".into()))?;
            }
            _ => {}
        }
    }
    Ok(incoming)
}

/// An error before execution, with its status from the table.
#[must_use]
pub(crate) fn refuse(headers: &HeaderMap, error: &Error) -> Response {
    let mut outcome = Outcome::refused(error);
    if outcome.status == StatusCode::INTERNAL_SERVER_ERROR {
        let id = headers
            .get(REQUEST_ID)
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        for error in &mut outcome.answer.errors {
            error
                .extensions
                .get_or_insert_default()
                .set("requestId", id);
        }
    }
    let mut response = single(Form::of(headers), &outcome);
    if let Some(seconds) = error.retry_after() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    if outcome.status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn not_acceptable() -> Response {
    let answer =
        bad_request("Accept must allow application/graphql-response+json or application/json");
    single(
        Form::Legacy,
        &Outcome::not_run(StatusCode::NOT_ACCEPTABLE, answer),
    )
}

fn single(form: Form, outcome: &Outcome) -> Response {
    written(form, form.status(outcome), outcome.body())
}

fn written(form: Form, status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, form.content_type())], body).into_response()
}
