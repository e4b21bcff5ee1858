//! Health checks and metrics.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::legacy::{ErrorResponse, JsonResponse};
use crate::state::AppState;
use crate::store::StoreError;
use crate::telemetry;
use crate::telemetry::text_with_sources;
use crate::wukongim::dto::HealthDto;

/// Returns the routes. They are never refused under overload, and need no token.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(health))
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
}

/// Checks that the process is alive, in the form of WuKongIM.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "getHealth",
    responses((
        status = 200,
        description = "success",
        body = HealthDto,
        content_type = "application/json; charset=utf-8"
    )),
    security()
)]
async fn health() -> JsonResponse<HealthDto> {
    JsonResponse(HealthDto { status: "ok" })
}

/// Checks that the process is alive.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "getLiveness",
    responses((
        status = 200,
        description = "success",
        body = String,
        content_type = "text/plain; charset=utf-8"
    )),
    security()
)]
async fn livez() -> &'static str {
    "ok\n"
}

/// Checks that the server is ready.
///
/// The database is reachable and accepts writes, its migrations are applied, and no shutdown has
/// begun. Further lines of the body name servers to which webhooks cannot be forwarded at present.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    responses(
        (
            status = 200,
            description = "success",
            body = String,
            content_type = "text/plain; charset=utf-8"
        ),
        (status = 503, description = "not ready; the body has the reason"),
    ),
    security()
)]
async fn readyz(
    State(app): State<AppState>,
) -> Result<String, (StatusCode, [(header::HeaderName, &'static str); 1], String)> {
    match check(&app).await {
        Ok(()) => {
            let connections = app.core.base.store.reduced_connections();
            let mut text = connections.map_or_else(
                || "ready\n".to_owned(),
                |(allowed, most)| {
                    format!(
                        "ready, with {allowed} of {most} connections: the database allows no more\n"
                    )
                },
            );
            for outage in app.forwarding.outages() {
                text += &(outage + "\n");
            }
            // Lists and history are served all the same.
            if app.core.proxy.as_ref().is_some_and(|proxy| proxy.is_away()) {
                text += "the WuKongIM at proxy.wukongim_url does not answer\n";
            }
            Ok(text)
        }
        Err(reason) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
            format!("{reason}\n"),
        )),
    }
}

async fn check(app: &AppState) -> Result<(), String> {
    if app.draining.is_cancelled() || app.shutdown.is_cancelled() {
        return Err("shutting down".to_owned());
    }
    let unable = |what: &'static str| {
        move |error: StoreError| {
            app.readiness.failed(&text_with_sources(&error));
            what.to_owned()
        }
    };
    let migrations = app
        .core
        .base
        .store
        .migration_status()
        .await
        .map_err(unable("the database cannot be reached"))?;
    match migrations.iter().find(|migration| !migration.applied) {
        Some(migration) => Err(format!("the migration {} is not applied", migration.name)),
        None => {
            let result = app.core.base.store.check().await;
            result.map_err(unable("the database takes no writes"))?;
            app.readiness.worked();
            Ok(())
        }
    }
}

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    responses((
        status = 200,
        description = "success",
        body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8"
    )),
    security()
)]
async fn metrics(State(app): State<AppState>) -> impl IntoResponse {
    metrics::gauge!(crate::metrics::CACHE_BYTES)
        .set(app.core.messages.recent_messages.bytes() as f64);
    metrics::gauge!(crate::metrics::LOG_LINES_DROPPED).set(telemetry::dropped_log_lines() as f64);
    if let Some(proxy) = &app.core.proxy {
        metrics::gauge!(crate::metrics::PROXY_REQUESTS_RUNNING).set(proxy.running() as f64);
    }
    let budgets = &app.budgets;
    metrics::gauge!(crate::metrics::HELD_BYTES).set(budgets.memory.used() as f64);
    metrics::gauge!(crate::metrics::HTTP_REQUESTS_RUNNING).set(budgets.requests.used() as f64);
    metrics::gauge!(crate::metrics::OPEN_CONNECTIONS).set(budgets.connections.used() as f64);
    let text = telemetry::render_metrics() + &crate::graphql::operation_stats::render();
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

/// Responds to unknown paths.
pub async fn not_found() -> ErrorResponse {
    ErrorResponse(crate::error::Error::NotFound("page"))
}

/// Responds to a method that the path does not support.
pub async fn method_not_allowed() -> ErrorResponse {
    ErrorResponse(crate::error::Error::MethodNotAllowed)
}
