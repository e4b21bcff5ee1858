//! Requests of a running `WuKongIM`: webhooks, and queries about members. It cannot send headers,
//! so its secret is part of the path; a service may send its token instead.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::datasource::{DatasourceBody, answer_query, forward_query};
use super::webhook::receive_webhook;
use crate::auth::{Action, Authenticator, Caller};
use crate::error::Error;
use crate::forward::{FORWARDED, ForwardedRequest};
use crate::http::read_body;
use crate::rest::legacy::{ErrorResponse, JsonResponse, OK};
use crate::state::AppState;
use crate::wukongim::JsonObject;
use crate::wukongim::dto::{Envelope, StatusOk, WebhookBody};

/// Returns the routes for a running `WuKongIM`.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(webhook_with_token))
        .routes(routes!(webhook_with_secret))
        .routes(routes!(datasource_with_token))
        .routes(routes!(datasource_with_secret))
}

/// Messages that a WuKongIM stored.
#[utoipa::path(
    post,
    path = "/webhook",
    operation_id = "receiveWebhook",
    params(("event" = String, Query, example = "msg.notify")),
    request_body = Option<WebhookBody>,
    responses(
        (status = 200, description = "success", body = StatusOk),
        (status = 502, description = "ingest.forward_url or ingest.forward_grpc did not take it", body = Envelope),
        ErrorResponse,
    )
)]
async fn webhook_with_token(
    State(app): State<AppState>,
    request: Request,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    let (parts, body) = request.into_parts();
    let caller = authenticate_wukongim(&app, None, &parts).await?;
    webhook(&app, &caller, &parts, body).await
}

/// Messages that a WuKongIM stored, authenticated by `ingest.webhook_secret` instead of a token.
#[utoipa::path(
    post,
    path = "/webhook/{secret}",
    operation_id = "receiveWebhookWithSecret",
    params(
        ("secret" = String, Path, example = "s3cret"),
        ("event" = String, Query, example = "msg.notify"),
    ),
    request_body = Option<WebhookBody>,
    responses(
        (status = 200, description = "success", body = StatusOk),
        (status = 502, description = "ingest.forward_url or ingest.forward_grpc did not take it", body = Envelope),
        (status = 404, description = "the secret is wrong", body = Envelope),
        ErrorResponse,
    ),
    security()
)]
async fn webhook_with_secret(
    State(app): State<AppState>,
    secret: PathSecret,
    request: Request,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    let (parts, body) = request.into_parts();
    let caller = authenticate_wukongim(&app, Some(secret), &parts).await?;
    webhook(&app, &caller, &parts, body).await
}

/// Queries of a WuKongIM to its business server, answered by it, or from the members stored here.
///
/// The answer is an array of uids, or an object of flags.
#[utoipa::path(
    post,
    path = "/datasource",
    operation_id = "queryDatasource",
    request_body = DatasourceBody,
    responses(
        (status = 200, description = "success", body = serde_json::Value),
        (status = 502, description = "ingest.datasource_forward_url did not answer", body = Envelope),
        ErrorResponse,
    )
)]
async fn datasource_with_token(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let (parts, body) = request.into_parts();
    let caller = authenticate_wukongim(&app, None, &parts).await?;
    datasource(&app, &caller, &parts, body).await
}

/// Queries of a WuKongIM to its business server, answered by it, or from the members stored here.
///
/// They are authenticated by `ingest.webhook_secret` instead of a token. The answer is an array of uids, or an object of flags.
#[utoipa::path(
    post,
    path = "/datasource/{secret}",
    operation_id = "queryDatasourceWithSecret",
    params(("secret" = String, Path, example = "s3cret")),
    request_body = DatasourceBody,
    responses(
        (status = 200, description = "success", body = serde_json::Value),
        (status = 502, description = "ingest.datasource_forward_url did not answer", body = Envelope),
        (status = 404, description = "the secret is wrong", body = Envelope),
        ErrorResponse,
    ),
    security()
)]
async fn datasource_with_secret(
    State(app): State<AppState>,
    secret: PathSecret,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let (parts, body) = request.into_parts();
    let caller = authenticate_wukongim(&app, Some(secret), &parts).await?;
    datasource(&app, &caller, &parts, body).await
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
    parts: &Parts,
    body: Body,
) -> Result<Response, ErrorResponse> {
    caller.check(Action::IngestMessages)?;
    let body = read_body(body, app.settings.limits.body_bytes, &app.settings.limits).await?;
    if let Some(forwarder) = &app.forwarding.datasource {
        if parts.headers.contains_key(FORWARDED) {
            return Err(Error::ForwardedAlready("ingest.datasource_forward_url").into());
        }
        let query = parts.uri.query();
        let request = ForwardedRequest::from_http(String::new(), query, &parts.headers, body);
        return Ok(forward_query(&app.core, forwarder, &request).await?);
    }
    let query = JsonObject::parse(&body)?.decode()?;
    Ok(JsonResponse(answer_query(&app.core, query).await?).into_response())
}

async fn webhook(
    app: &AppState,
    caller: &Caller,
    parts: &Parts,
    body: Body,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
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
    let is_forwarded = parts.headers.contains_key(FORWARDED);
    let webhook = ForwardedRequest::from_http(event, parts.uri.query(), &parts.headers, body);
    receive_webhook(app, webhook, is_forwarded).await?;
    Ok(OK)
}
