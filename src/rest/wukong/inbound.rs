//! Requests of a running `WuKongIM`: webhooks, and queries about members. It cannot send headers,
//! so its secret is part of the path; a service may send its token instead.

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::datasource::answer_query;
use super::webhook::handle_webhook;
use crate::auth::{Action, Authenticator, Caller};
use crate::error::Error;
use crate::http::read_body;
use crate::rest::legacy::{ErrorResponse, JsonResponse, OK};
use crate::state::AppState;
use crate::wukongim::LegacyBody;

/// Returns the routes for a running `WuKongIM`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/webhook", post(webhook_with_token))
        .route("/webhook/{secret}", post(webhook_with_secret))
        .route("/datasource", post(datasource_with_token))
        .route("/datasource/{secret}", post(datasource_with_secret))
}

async fn webhook_with_token(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let (parts, body) = request.into_parts();
    webhook(
        &app,
        &authenticate_wukongim(&app, None, &parts).await?,
        &parts,
        body,
    )
    .await
}

async fn webhook_with_secret(
    State(app): State<AppState>,
    secret: PathSecret,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let (parts, body) = request.into_parts();
    webhook(
        &app,
        &authenticate_wukongim(&app, Some(secret), &parts).await?,
        &parts,
        body,
    )
    .await
}

async fn datasource_with_token(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let (parts, body) = request.into_parts();
    datasource(
        &app,
        &authenticate_wukongim(&app, None, &parts).await?,
        body,
    )
    .await
}

async fn datasource_with_secret(
    State(app): State<AppState>,
    secret: PathSecret,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let (parts, body) = request.into_parts();
    datasource(
        &app,
        &authenticate_wukongim(&app, Some(secret), &parts).await?,
        body,
    )
    .await
}

/// The last segment of a path; a segment that is not UTF-8 never matches the secret.
type PathSecret = Result<Path<String>, PathRejection>;

/// Authenticates a `WuKongIM` by the secret in the path, or a service by its token.
async fn authenticate_wukongim(
    app: &AppState,
    secret: Option<PathSecret>,
    parts: &Parts,
) -> Result<Caller, Error> {
    let address = || {
        app.rate_limiter
            .client_ip(&parts.extensions, &parts.headers)
    };
    let Some(secret) = secret else {
        if app.authenticator.has_webhook_secret() {
            return Err(Error::NotFound("page"));
        }
        return app
            .authenticate_and_rate_limit(Authenticator::credential(&parts.headers), address())
            .await;
    };
    let secret = secret.map(|Path(secret)| secret).unwrap_or_default();
    match app.authenticator.authenticate_webhook(&secret) {
        Ok(caller) => {
            app.record_service_address(address());
            Ok(caller)
        }
        Err(error) => {
            // Wrong secrets count against the address, which slows down guessing.
            app.rate_limiter.check_address(address())?;
            Err(error)
        }
    }
}

async fn datasource(
    app: &AppState,
    caller: &Caller,
    body: Body,
) -> Result<Response, ErrorResponse> {
    caller.check(Action::IngestMessages)?;
    let body = read_body(body, app.settings.limits.body_bytes, &app.settings.limits).await?;
    Ok(JsonResponse(answer_query(&app.core, &LegacyBody::parse(&body)?).await?).into_response())
}

async fn webhook(
    app: &AppState,
    caller: &Caller,
    parts: &Parts,
    body: Body,
) -> Result<Response, ErrorResponse> {
    caller.check(Action::IngestMessages)?;
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(parts.uri.query().unwrap_or_default()).unwrap_or_default();
    let event = pairs
        .into_iter()
        .find_map(|(name, value)| (name == "event").then_some(value))
        .unwrap_or_default();
    let body = read_body(
        body,
        app.settings.limits.webhook_body_bytes,
        &app.settings.limits,
    )
    .await?;
    handle_webhook(&app.core, &event, &body).await?;
    Ok(OK.into_response())
}
