//! Is it alive, is it ready, how is it doing.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::legacy::{Answer, Refusal};
use crate::app::App;
use crate::store::StoreError;
use crate::telemetry;

/// `GET /health`, as `WuKongIM`.
pub async fn health() -> impl IntoResponse {
    Answer(serde_json::json!({"status": "ok"}))
}

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the database is reached and takes writes, its migrations are applied, and no
/// shutdown has begun.
///
/// # Errors
/// 503 with the reason in words.
pub async fn readyz(
    State(app): State<App>,
) -> Result<String, (StatusCode, [(header::HeaderName, &'static str); 1], String)> {
    match check(&app).await {
        Ok(()) => Ok(app.core.store.limited_connections().map_or_else(
            || "ready\n".to_owned(),
            |(allowed, most)| {
                format!(
                    "ready, with {allowed} of {most} connections: the database allows no more\n"
                )
            },
        )),
        Err(reason) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
            format!("{reason}\n"),
        )),
    }
}

async fn check(app: &App) -> Result<(), String> {
    if app.shutdown.is_cancelled() {
        return Err("shutting down".to_owned());
    }
    let unable = |what: &'static str| {
        move |error: StoreError| {
            tracing::warn!(error = %error, "not ready");
            what.to_owned()
        }
    };
    let migrations = app
        .core
        .store
        .migration_status()
        .await
        .map_err(unable("the database cannot be reached"))?;
    match migrations.iter().find(|migration| !migration.applied) {
        Some(migration) => Err(format!("the migration {} is not applied", migration.name)),
        None => app
            .core
            .store
            .check()
            .await
            .map_err(unable("the database takes no writes")),
    }
}

/// `GET /metrics` in Prometheus' text format.
pub async fn metrics(State(app): State<App>) -> impl IntoResponse {
    metrics::gauge!("recents_cache_bytes").set(app.core.newest.bytes() as f64);
    metrics::gauge!("recents_log_lines_dropped").set(telemetry::dropped_log_lines() as f64);
    let budgets = &app.budgets;
    metrics::gauge!("recents_held_bytes").set(budgets.memory.held() as f64);
    metrics::gauge!("recents_http_requests_running").set(budgets.requests.held() as f64);
    metrics::gauge!("recents_open_connections").set(budgets.connections.held() as f64);
    let text = telemetry::metrics().render() + &crate::graphql::figures::render();
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

/// What answers where there is nothing.
pub async fn not_found() -> Refusal {
    Refusal(crate::error::Error::NotFound("page"))
}

/// What answers to a method that a path does not have.
pub async fn method_not_allowed() -> Refusal {
    Refusal(crate::error::Error::MethodNotAllowed)
}
