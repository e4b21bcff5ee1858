//! The server: its state, its routes, its start and its end.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, MatchedPath, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use crate::auth;
use crate::clock::{Clock, Ids};
use crate::config::{ConfigError, Settings};
use crate::core::Core;
use crate::error::Error;
use crate::graphql::persisted::Persisted;
use crate::graphql::{self, AppSchema};
use crate::overload::Room;
use crate::rest::legacy::{DONE, Refusal, read_body};
use crate::rest::wukong::webhook::deliver;
use crate::rest::{health, openapi, wukong};
use crate::store::{Store, StoreError};
use crate::{telemetry, web};

/// The request's id: given by the client, or by us; every handler finds it here, and the answer has it.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every handler can reach.
#[derive(Clone)]
pub struct App {
    /// What the use cases work with.
    pub core: Arc<Core>,
    /// The GraphQL schema.
    pub schema: AppSchema,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Cancelled when a shutdown begins.
    pub shutdown: CancellationToken,
    /// Documents that clients name by their hash.
    pub(crate) persisted: Arc<Persisted>,
    room: Room,
}

impl App {
    /// The state of a server.
    ///
    /// # Errors
    /// A `graphql.manifest` that cannot be read.
    pub fn new(settings: Settings, store: Store, clock: Clock, ids: Ids) -> Result<Self, ConfigError> {
        let core = Arc::new(Core::new(store, clock, ids, &settings));
        let schema = graphql::schema(Arc::clone(&core));
        let room = Room::new(&settings.limits);
        let persisted = Arc::new(Persisted::new(&settings.graphql)?);
        Ok(Self { core, schema, settings: Arc::new(settings), shutdown: CancellationToken::new(), persisted, room })
    }

    /// All routes.
    pub fn router(self) -> Router {
        let graphql_routes = graphql::http::routes().layer(CatchPanicLayer::custom(panicked_in_graphql));
        let guarded = wukong::routes().merge(graphql_routes).layer(middleware::from_fn_with_state(self.clone(), authenticate));
        let working = guarded
            .route("/webhook", post(open_webhook))
            .route("/webhook/{secret}", post(secret_webhook))
            .layer(middleware::from_fn_with_state(self.clone(), make_room));
        // What is left always has an answer: how it is doing is asked when it is doing badly.
        Router::new()
            .merge(working)
            .merge(web::routes())
            .route("/openapi.json", get(openapi::serve))
            .route("/health", get(health::health))
            .route("/livez", get(health::livez))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(health::metrics))
            .fallback(health::not_found)
            .method_not_allowed_fallback(health::method_not_allowed)
            .layer(CatchPanicLayer::custom(panicked))
            // For who accepts it: a list is a tenth of its size then.
            .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
            .layer(middleware::from_fn_with_state(self.clone(), observe))
            // Every handler that reads a body has a limit of its own, with its own refusal.
            .layer(DefaultBodyLimit::disable())
            .with_state(self)
    }
}

/// Gives the request its id, its time limit, its line in the log and its place in the metrics.
async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let is_graphql = request.uri().path() == graphql::http::PATH;
    if request.method() == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        allow_origins(&mut response, is_graphql);
        return response;
    }
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    let id = given.map_or_else(|| app.core.ids.request_id(), str::to_owned);

    if let Ok(id) = HeaderValue::from_str(&id) {
        request.headers_mut().insert(REQUEST_ID, id);
    }
    let headers = request.headers().clone();
    let span = tracing::info_span!("request", id, method = %method, route);
    let limit = Duration::from_secs(app.settings.limits.request_seconds);
    let answer = tracing::Instrument::instrument(tokio::time::timeout(limit, next.run(request)), span.clone()).await;
    let mut response = answer.unwrap_or_else(|_| {
        if is_graphql { graphql::http::refuse(&headers, &Error::Timeout) } else { Refusal(Error::Timeout).into_response() }
    });
    allow_origins(&mut response, is_graphql);

    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    let labels = [("route", route.clone()), ("method", method_label(&method)), ("status", status.to_string())];
    metrics::counter!("recents_http_requests_total", &labels).increment(1);
    metrics::histogram!("recents_http_seconds", "route" => route).record(elapsed.as_secs_f64());
    span.in_scope(|| tracing::debug!(status, milliseconds = elapsed.as_secs_f64() * 1000.0, "answered"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Lets a request in, or sends it away at once.
async fn make_room(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_graphql = path == graphql::http::PATH;
    let limits = &app.settings.limits;
    let limit = if path.starts_with("/webhook") { limits.webhook_body_bytes } else { limits.body_bytes };
    match app.room.enter(request.headers(), limit) {
        Ok(_place) => next.run(request).await,
        Err(error) if is_graphql => graphql::http::refuse(request.headers(), &error),
        Err(error) => Refusal(error).into_response(),
    }
}

/// Methods are the caller's to invent; labels are not.
fn method_label(method: &Method) -> String {
    let known = [Method::GET, Method::POST, Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH];
    if known.contains(method) { method.to_string() } else { "other".to_owned() }
}

/// `WuKongIM`'s routes may be called from any page, as there. GraphQL may not: its own pages have the same origin.
fn allow_origins(response: &mut Response, is_graphql: bool) {
    if is_graphql {
        return;
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
}

async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    match auth::authenticate(&app.settings, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) if request.uri().path() == graphql::http::PATH => graphql::http::refuse(request.headers(), &error),
        Err(error) => Refusal(error).into_response(),
    }
}

fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!("a request panicked");
    Refusal(Error::Store(StoreError::Broken("panic".to_owned()))).into_response()
}

/// What the client accepts is not known any more.
fn panicked_in_graphql(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!("a request panicked");
    graphql::http::refuse(&HeaderMap::new(), &Error::Store(StoreError::Broken("panic".to_owned())))
}

async fn open_webhook(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    if !app.settings.ingest.webhook_secret.reveal().is_empty() {
        return Err(Refusal(Error::NotFound("page")));
    }
    auth::authenticate(&app.settings, request.headers())?;
    webhook(&app, request).await
}

async fn secret_webhook(
    State(app): State<App>,
    secret: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    // What is not even text is not the secret.
    let secret = secret.map(|Path(secret)| secret).unwrap_or_default();
    auth::authenticate_webhook(&app.settings, &secret)?;
    webhook(&app, request).await
}

async fn webhook(app: &App, request: Request) -> Result<Response, Refusal> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(request.uri().query().unwrap_or_default()).unwrap_or_default();
    let event = pairs.into_iter().find_map(|(name, value)| (name == "event").then_some(value)).unwrap_or_default();
    let body = read_body(request.into_body(), app.settings.limits.webhook_body_bytes).await?;
    deliver(&app.core, &event, &body).await?;
    Ok(DONE.into_response())
}

/// Connects to `database.url`.
///
/// # Errors
/// [`ConfigError`] for a URL that is none, [`StoreError`] for a database file that cannot be opened.
pub async fn connect(settings: &Settings) -> anyhow::Result<Store> {
    let mut database = settings.database.clone();
    // A request that ran out of time leaves no statement running for longer than the request may take.
    database.statement_seconds = database.statement_seconds.min(settings.limits.request_seconds);
    match Store::connect(&database).await {
        Err(StoreError::Broken(reason)) => Err(ConfigError(format!("database.url cannot be used: {reason}")).into()),
        result => result.context("the database cannot be opened"),
    }
}

/// Connects, migrates, and prepares everything that a server or an import needs.
///
/// # Errors
/// What the database says; a schema that lacks migrations when `database.migrate` is off.
pub async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    telemetry::metrics();
    let store = connect(settings).await?;
    if settings.database.migrate {
        store.migrate_up().await.context("the migrations cannot be applied")?;
    } else if let Some(missing) = store.migration_status().await?.into_iter().find(|migration| !migration.applied) {
        bail!("the migration {} is not applied, and database.migrate is off: run `recents migrate up`", missing.name);
    }
    Ok(store)
}

/// Why a server cannot listen where it was told to; the caller's mistake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ListenError(String);

/// Binds `server.listen`. Without a manager token everybody may do everything, so then only loopback will do.
///
/// # Errors
/// [`ListenError`] for an address that is none or that needs a token; what the system says.
pub async fn bind(settings: &Settings) -> anyhow::Result<TcpListener> {
    let listen = &settings.server.listen;
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen)
        .await
        .map_err(|error| ListenError(format!("server.listen = {listen:?} is no address to listen on: {error}")))?
        .collect();
    if settings.auth.manager_token.reveal().is_empty() && !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err(ListenError(format!(
            "server.listen = {listen:?} is reachable from outside, but anybody may do anything: set auth.manager_token first"
        ))
        .into());
    }
    TcpListener::bind(addresses.as_slice()).await.with_context(|| format!("cannot listen on {listen}"))
}

/// Serves until a signal comes, then finishes what is running. A second signal ends at once.
///
/// # Errors
/// What the system or the database says.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    let listener = bind(&settings).await?;
    let store = open_store(&settings).await?;
    let budget = Duration::from_secs(settings.server.shutdown_seconds);
    let app = App::new(settings, store.clone(), Clock::System, Ids::random())?;
    let shutdown = app.shutdown.clone();
    tokio::spawn(telemetry::maintain_metrics());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // Nobody need be listening at the other end of stdout.
    let _ = writeln!(std::io::stdout(), "{}", web::greeting(listener.local_addr()?, app.core.conversations_on));
    let begun = shutdown.clone();
    let server = axum::serve(listener, app.router()).with_graceful_shutdown(async move { begun.cancelled().await });
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => ended??,
        () = either(&mut terminate, &mut interrupt) => {
            tracing::info!("shutting down");
            shutdown.cancel();
            tokio::select! {
                ended = tokio::time::timeout(budget, &mut server) => match ended {
                    Ok(ended) => ended??,
                    Err(_) => bail!("requests were still running after {} s", budget.as_secs()),
                },
                () = either(&mut terminate, &mut interrupt) => bail!("told twice to stop"),
            }
        }
    }
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

async fn either(one: &mut tokio::signal::unix::Signal, other: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
