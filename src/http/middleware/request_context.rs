//! The context of every request: its time limit, log line and metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::cors::allow_origins;
use super::{Interface, REQUEST_ID};
use crate::error::Error;
use crate::http::{CorsPolicy, open_mode};
use crate::state::AppState;

/// Gives the request its time limit, and records it in the log and the metrics. An error response
/// contains its [`Error`] as an extension, whose details go to the log only.
pub(crate) async fn request_context<I: Interface>(
    State((state, cors)): State<(AppState, Arc<CorsPolicy>)>,
    request: Request,
    next: Next,
) -> Response {
    let open_mode_check = open_mode::check_host(request.version(), request.headers())
        .and_then(|()| open_mode::check(&state.settings, request.method(), request.headers()));
    if request.method() == Method::OPTIONS && open_mode_check.is_ok() {
        let mut response = StatusCode::NO_CONTENT.into_response();
        allow_origins::<I>(&state, &cors, request.headers(), response.headers_mut());
        return response;
    }
    let started = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>();
    // Calls that are passed on have time limits of their own: their bodies may take long.
    let is_passed_on = matched.is_none() && state.core.proxy.is_some();
    let route = match matched {
        Some(path) => path.as_str().to_owned(),
        None if is_passed_on => "proxied".to_owned(),
        None => "unmatched".to_owned(),
    };
    let headers = request.headers().clone();
    let id = headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let span = tracing::info_span!("request", id, method = %method, route);
    let result = match open_mode_check {
        Ok(()) if is_passed_on => Ok(next.run(request).instrument(span.clone()).await),
        Ok(()) => {
            let limit = Duration::from_secs(state.settings.limits.request_timeout_seconds);
            tokio::time::timeout(limit, next.run(request))
                .instrument(span.clone())
                .await
                .map_err(|_| Error::Timeout)
        }
        Err(error) => Err(error),
    };
    let mut response = result.unwrap_or_else(|error| I::refuse(&headers, error));
    allow_origins::<I>(&state, &cors, &headers, response.headers_mut());

    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    let labels = [
        ("route", route.clone()),
        ("method", method_label(&method)),
        ("status", status.to_string()),
    ];
    metrics::counter!(crate::metrics::HTTP_REQUESTS_TOTAL, &labels).increment(1);
    metrics::histogram!(crate::metrics::HTTP_REQUEST_DURATION_SECONDS, "route" => route)
        .record(elapsed.as_secs_f64());
    let error = response.extensions_mut().remove::<Error>();
    span.in_scope(|| {
        if let Some(error) = error {
            error.log();
        }
        tracing::debug!(
            status,
            milliseconds = elapsed.as_secs_f64() * 1000.0,
            "answered"
        )
    });
    response
}

/// Returns a bounded set of labels: clients may invent methods.
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
