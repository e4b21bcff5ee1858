//! What every request passes through on its way in and out: its id, time limit, log line and
//! metrics; room; who is calling; headers.

use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::auth::{Auth, Caller};
use crate::budget::{Holder, Reservation};
use crate::error::Error;
use crate::graphql;
use crate::http;
use crate::open_mode;
use crate::rest::legacy::Refusal;
use crate::store::StoreError;

/// The request's id: given by the client, or by us; every handler finds it here, and the answer has
/// it.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn is_graphql(path: &str) -> bool {
    path == graphql::http::PATH
}

/// An error in the form of the interface that was called.
fn refuse(path: &str, headers: &HeaderMap, error: Error) -> Response {
    if is_graphql(path) {
        graphql::http::refuse(headers, &error)
    } else {
        Refusal(error).into_response()
    }
}

/// Gives the request its id, its time limit, its line in the log and its place in the metrics.
pub(crate) async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let is_welcome = open_mode::check_host(request.version(), request.headers())
        .and_then(|()| open_mode::check(&app.settings, request.method(), request.headers()));
    if request.method() == Method::OPTIONS && is_welcome.is_ok() {
        let mut response = StatusCode::NO_CONTENT.into_response();
        allow_origins(&app, &mut response, &path, origin);
        return response;
    }
    let started = Instant::now();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| {
            (1..=64).contains(&id.len())
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
    let id = given.map_or_else(|| app.core.ids.request_id(), str::to_owned);

    if let Ok(id) = HeaderValue::from_str(&id) {
        request.headers_mut().insert(REQUEST_ID, id);
    }
    let headers = request.headers().clone();
    let span = tracing::info_span!("request", id, method = %method, route);
    let limit = Duration::from_secs(app.settings.limits.request_seconds);
    let answer = match is_welcome {
        Ok(()) => {
            let answer = tokio::time::timeout(limit, next.run(request));
            tracing::Instrument::instrument(answer, span.clone())
                .await
                .map_err(|_| Error::Timeout)
        }
        Err(error) => Err(error),
    };
    let mut response = answer.unwrap_or_else(|error| refuse(&path, &headers, error));
    allow_origins(&app, &mut response, &path, origin);
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response.headers_mut().insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));

    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    let labels = [
        ("route", route.clone()),
        ("method", method_label(&method)),
        ("status", status.to_string()),
    ];
    metrics::counter!("recents_http_requests_total", &labels).increment(1);
    metrics::histogram!("recents_http_seconds", "route" => route).record(elapsed.as_secs_f64());
    span.in_scope(|| {
        tracing::debug!(
            status,
            milliseconds = elapsed.as_secs_f64() * 1000.0,
            "answered"
        )
    });
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Methods are the caller's to invent; labels are not.
fn method_label(method: &Method) -> String {
    let known = [
        Method::GET,
        Method::POST,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
    ];
    if known.contains(method) {
        method.to_string()
    } else {
        "other".to_owned()
    }
}

/// Headers that a page may send. `*` would not allow `Authorization`.
const SENT: &str = "authorization, content-type, accept, token, x-request-id";

/// `WuKongIM`'s routes may be called from any page, as there: a page has no token that a browser
/// adds by itself. GraphQL, and everything on an open server, where no token is needed, may be
/// called from the pages in `server.cors_origins`, and from the server's own.
fn allow_origins(app: &App, response: &mut Response, path: &str, origin: Option<HeaderValue>) {
    let headers = response.headers_mut();
    if is_graphql(path) || app.settings.auth.is_open() {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = origin.filter(|origin| {
            app.settings
                .server
                .cors_origins
                .iter()
                .any(|known| origin == known)
        }) else {
            return;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, OPTIONS"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(SENT),
        );
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("x-request-id, retry-after"),
        );
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("600"),
        );
        return;
    }
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(SENT),
    );
}

/// Lets a request in, or sends it away at once, before its body is read.
pub(crate) async fn make_room(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let headers = request.headers();
    let address = app.rates.address(request.extensions(), headers);
    let is_service = app.auth.is_service(Auth::credential(headers)) || is_of_feeder(&app, &path);
    let holder = Holder {
        is_service,
        address,
        uid: None,
    };
    let reservation = match app.budgets.admit(holder) {
        Ok(reservation) => reservation,
        Err(error) => return refuse(&path, headers, error),
    };
    let accepted = headers.get(header::ACCEPT).cloned();
    request.extensions_mut().insert(reservation.clone());
    let (parts, body) = reservation
        .clone()
        .scope(next.run(request))
        .await
        .into_parts();
    reservation.leave();
    match http::counted(&reservation, body) {
        Ok(body) => Response::from_parts(parts, body),
        Err(error) => refuse(
            &path,
            &accepted
                .map(|accepted| (header::ACCEPT, accepted))
                .into_iter()
                .collect(),
            error,
        ),
    }
}

/// True if a request comes to a path that only a feeder knows.
fn is_of_feeder(app: &App, path: &str) -> bool {
    let secret = path
        .strip_prefix("/webhook/")
        .or_else(|| path.strip_prefix("/datasource/"));
    secret.is_some_and(|secret| app.auth.authenticate_webhook(secret).is_ok())
}

/// Finds out who is calling; handlers take it as a [`Caller`].
pub(crate) async fn authenticate(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    let credential = Auth::credential(request.headers());
    // A WebSocket may say it in its first message.
    if credential.is_none()
        && graphql::socket::is_wanted(request.headers())
        && is_graphql(request.uri().path())
    {
        return next.run(request).await;
    }
    let address = app.rates.address(request.extensions(), request.headers());
    match app.admit(credential, address).await {
        Ok(caller) => {
            if let Some((uid, reservation)) =
                caller.user().zip(request.extensions().get::<Reservation>())
                && let Err(error) = reservation.identify(uid.as_str())
            {
                return refuse(request.uri().path(), request.headers(), error);
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => refuse(request.uri().path(), request.headers(), error),
    }
}

/// Whoever `authenticate` found; without it nobody gets in.
impl FromRequestParts<App> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        parts
            .extensions
            .get()
            .cloned()
            .ok_or(Refusal(Error::Unauthenticated("a token is required")))
    }
}

pub(crate) fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!("a request panicked");
    Refusal(Error::Store(StoreError::Broken("panic".to_owned()))).into_response()
}

/// What the client accepts is not known any more.
pub(crate) fn panicked_in_graphql(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!("a request panicked");
    graphql::http::refuse(
        &HeaderMap::new(),
        &Error::Store(StoreError::Broken("panic".to_owned())),
    )
}
