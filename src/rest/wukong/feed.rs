//! What a running `WuKongIM` sends and asks: webhooks, and questions about members. It can send no
//! header, so that its secret is a part of the path; a service may bring its token instead.

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::super::legacy::{Answer, DONE, Fields, Refusal};
use super::datasource::answer;
use super::webhook::deliver;
use crate::app::App;
use crate::auth::{Action, Auth, Caller};
use crate::error::Error;
use crate::http::read_body;

/// The routes at the root.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/webhook", post(open_webhook))
        .route("/webhook/{secret}", post(secret_webhook))
        .route("/datasource", post(open_datasource))
        .route("/datasource/{secret}", post(secret_datasource))
}

async fn open_webhook(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    webhook(&app, &feeder(&app, None, &parts).await?, &parts, body).await
}

async fn secret_webhook(
    State(app): State<App>,
    secret: Secret,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    webhook(
        &app,
        &feeder(&app, Some(secret), &parts).await?,
        &parts,
        body,
    )
    .await
}

async fn open_datasource(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    datasource(&app, &feeder(&app, None, &parts).await?, body).await
}

async fn secret_datasource(
    State(app): State<App>,
    secret: Secret,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    datasource(&app, &feeder(&app, Some(secret), &parts).await?, body).await
}

/// The last part of a path; what is not even text is no secret.
type Secret = Result<Path<String>, PathRejection>;

/// Who feeds or asks us: a `WuKongIM`, which can send no header, so that its secret is a part of
/// the path; or a service.
async fn feeder(app: &App, secret: Option<Secret>, parts: &Parts) -> Result<Caller, Error> {
    let address = || app.rates.address(&parts.extensions, &parts.headers);
    let Some(secret) = secret else {
        if app.auth.webhooks_are_secret() {
            return Err(Error::NotFound("page"));
        }
        return app.admit(Auth::credential(&parts.headers), address()).await;
    };
    let secret = secret.map(|Path(secret)| secret).unwrap_or_default();
    match app.auth.authenticate_webhook(&secret) {
        Ok(feeder) => {
            app.met_service(address());
            Ok(feeder)
        }
        Err(error) => {
            // Guesses are slowed down.
            app.rates.check_address(address())?;
            Err(error)
        }
    }
}

async fn datasource(app: &App, caller: &Caller, body: Body) -> Result<Response, Refusal> {
    caller.check(Action::FeedMessages)?;
    let body = read_body(body, app.settings.limits.body_bytes, &app.settings.limits).await?;
    Ok(Answer(answer(&app.core, &Fields::parse(&body)?).await?).into_response())
}

async fn webhook(
    app: &App,
    caller: &Caller,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refusal> {
    caller.check(Action::FeedMessages)?;
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
    deliver(&app.core, &event, &body).await?;
    Ok(DONE.into_response())
}
