//! The server: its state, its routes, its start and its end.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use crate::auth::{Auth, Caller, ServiceAddresses};
use crate::border::{authenticate, make_room, observe, panicked, panicked_in_graphql};
use crate::budget::Budgets;
use crate::channel::write_removals;
use crate::clock::{Clock, Ids};
use crate::config::{ConfigError, Settings};
use crate::core::Core;
use crate::datasource::{self, Asker};
use crate::error::Error;
use crate::graphql::persisted::Persisted;
use crate::graphql::{self, AppSchema};
use crate::http;
use crate::live::{self, Connections, Feeds};
use crate::rates::Rates;
use crate::rest::{health, openapi, wukong};
use crate::store::{Store, StoreError};
use crate::{telemetry, web};

/// What every handler can reach. A clone is the same one.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What an [`App`] is made of.
pub struct Parts {
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
    pub(crate) auth: Arc<Auth>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) connections: Connections,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) budgets: Budgets,
    pub(crate) services: ServiceAddresses,
    /// Until [`App::attend`] takes it.
    asker: Mutex<Option<Asker>>,
}

impl App {
    /// The state of a server.
    ///
    /// # Errors
    /// A `graphql.manifest` or a key file that cannot be read.
    pub fn new(
        settings: Settings,
        store: Store,
        clock: Clock,
        ids: Ids,
    ) -> Result<Self, ConfigError> {
        let core = Arc::new(Core::new(store, clock, ids, &settings));
        let live = &settings.live;
        let mut asker = None;
        if !settings.ingest.datasource_url.reveal().is_empty() {
            let (datasource, asking) =
                datasource::datasource(settings.ingest.datasource_url.reveal())?;
            let _ = core.datasource.set(datasource);
            asker = Some(asking);
        }
        // Half of the connections to the database are for requests.
        let looks = settings.database.max_connections as usize / 2;
        let feeds = Arc::new(Feeds::new(
            Arc::clone(&core),
            Duration::from_millis(live.coalesce_milliseconds),
            looks,
        ));
        let schema = graphql::schema(Arc::clone(&core), Arc::clone(&feeds));
        let budgets = Budgets::new(&settings.limits);
        let persisted = Arc::new(Persisted::new(&settings.graphql)?);
        let (auth, rates) = (
            Arc::new(Auth::new(&settings)?),
            Arc::new(Rates::new(&settings)),
        );
        let connections = Connections::new(&settings.limits);
        Ok(Self(Arc::new(Parts {
            core,
            schema,
            settings: Arc::new(settings),
            shutdown: CancellationToken::new(),
            persisted,
            auth,
            rates,
            connections,
            feeds,
            budgets,
            services: ServiceAddresses::default(),
            asker: Mutex::new(asker),
        })))
    }

    /// Finds out who brings this credential from this address, and whether they may ask just now.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::KeysUnavailable`], [`Error::TooMany`].
    pub(crate) async fn admit(
        &self,
        credential: Option<&[u8]>,
        address: Option<IpAddr>,
    ) -> Result<Caller, Error> {
        if self.auth.is_service(credential) {
            self.met_service(address);
            return Ok(Caller::Service);
        }
        // Before a token is looked at: that costs more than to refuse it.
        self.rates.check_address(address)?;
        let caller = self.auth.authenticate(credential).await?;
        if let Some(uid) = caller.user() {
            self.rates.check_user(uid)?;
        }
        Ok(caller)
    }

    /// A service came from this address, with its token or secret; on an open server everybody is
    /// one.
    pub(crate) fn met_service(&self, address: Option<IpAddr>) {
        if let Some(address) = address.filter(|_| !self.settings.auth.is_open()) {
            self.services.add(address);
        }
    }

    /// The work beside requests, for as long as the server runs: looking after subscribers, other
    /// servers, and removals of many.
    pub async fn attend(self) {
        let live = &self.settings.live;
        let others = live::attend(
            Arc::clone(&self.core.bus),
            live.clone(),
            self.core.ids.request_id(),
        );
        let asking = async {
            let asker = self
                .asker
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(asker) = asker {
                asker.run(Arc::clone(&self.core)).await;
            }
        };
        let poll = self.feeds.poll(Duration::from_secs(live.poll_seconds));
        let removing = write_removals(&self.core);
        tokio::join!(
            poll,
            others,
            forget_rates(&self.rates),
            asking,
            self.auth.fetch_keys(),
            removing
        );
    }

    /// Waits until all subscribers are gone, after [`Parts::shutdown`].
    pub async fn gone(&self) {
        self.connections.gone().await;
    }

    /// All routes.
    pub fn router(self) -> Router {
        self.router_of(wukong::routes(), graphql::http::routes())
    }

    /// All routes, those of the two interfaces given.
    fn router_of(self, legacy_routes: Router<App>, graphql_routes: Router<App>) -> Router {
        let graphql_routes = graphql_routes.layer(CatchPanicLayer::custom(panicked_in_graphql));
        let guarded = legacy_routes
            .merge(graphql_routes)
            .layer(middleware::from_fn_with_state(self.clone(), authenticate));
        let working = guarded
            .merge(wukong::feed::routes())
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

/// Connects to `database.url`.
///
/// # Errors
/// [`ConfigError`] for a URL that is none, [`StoreError`] for a database file that cannot be
/// opened.
pub async fn connect(settings: &Settings) -> anyhow::Result<Store> {
    let mut database = settings.database.clone();
    // A request that ran out of time leaves no statement running for longer than the request may
    // take.
    database.statement_seconds = database
        .statement_seconds
        .min(settings.limits.request_seconds);
    let store = match Store::connect(&database).await {
        Err(StoreError::Broken(reason)) => {
            return Err(ConfigError(format!("database.url cannot be used: {reason}")).into());
        }
        result => result.context("the database cannot be opened")?,
    };
    store.wait(database.wait_seconds).await?;
    Ok(store)
}

/// Connects, migrates, and prepares everything that a server or an import needs.
///
/// # Errors
/// What the database says; a schema that lacks migrations when `database.migrate` is off.
pub async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    telemetry::metrics();
    let store = connect(settings).await?;
    if settings.database.migrate {
        store
            .migrate_up()
            .await
            .context("the migrations cannot be applied")?;
    } else if let Some(missing) = store
        .migration_status()
        .await?
        .into_iter()
        .find(|migration| !migration.applied)
    {
        bail!(
            "the migration {} is not applied, and database.migrate is off: run `recents migrate up`",
            missing.name
        );
    }
    Ok(store)
}

/// Why a server cannot listen where it was told to; the caller's mistake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ListenError(String);

/// Binds `server.listen`. Where nothing says who may do what everybody may do everything, so then
/// only loopback will do.
///
/// # Errors
/// [`ListenError`] for an address that is none or that needs a token; what the system says.
pub async fn bind(settings: &Settings) -> anyhow::Result<TcpListener> {
    let listen = &settings.server.listen;
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen)
        .await
        .map_err(|error| {
            ListenError(format!(
                "server.listen = {listen:?} is no address to listen on: {error}"
            ))
        })?
        .collect();
    if settings.auth.is_open() && !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err(ListenError(format!(
            "server.listen = {listen:?} is reachable from outside, but anybody may do anything: set auth.manager_token, or a key in \
             auth.jwt, first"
        ))
        .into());
    }
    TcpListener::bind(addresses.as_slice())
        .await
        .with_context(|| format!("cannot listen on {listen}"))
}

/// Serves until a signal comes, then finishes what is running. A second signal ends at once.
///
/// # Errors
/// What the system or the database says.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    let mut settings = settings;
    http::limit_connections(&mut settings);
    let listener = bind(&settings).await?;
    let grpc =
        match settings.ingest.grpc_listen.as_str() {
            "" => None,
            listen => Some(TcpListener::bind(listen).await.map_err(|error| {
                ListenError(format!("ingest.grpc_listen = {listen:?}: {error}"))
            })?),
        };
    let store = open_store(&settings).await?;
    let budget = Duration::from_secs(settings.server.shutdown_seconds);
    let app = App::new(settings, store.clone(), Clock::System, Ids::random())?;
    let shutdown = app.shutdown.clone();
    tokio::spawn(telemetry::maintain_metrics());
    tokio::spawn(app.clone().attend());
    if let Some(listener) = grpc {
        tokio::spawn(
            app.connections
                .track(wukong::grpc::serve(app.clone(), listener)),
        );
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // Nobody need be listening at the other end of stdout.
    let _ = writeln!(
        std::io::stdout(),
        "{}",
        web::greeting(listener.local_addr()?, app.core.conversations_on)
    );
    let mut server = tokio::spawn(async move {
        http::serve(app.clone(), listener).await;
        app.gone().await;
    });
    tokio::select! {
        ended = &mut server => ended?,
        () = either(&mut terminate, &mut interrupt) => {
            tracing::info!("shutting down");
            shutdown.cancel();
            tokio::select! {
                ended = tokio::time::timeout(budget, &mut server) => match ended {
                    Ok(ended) => ended?,
                    Err(_) => bail!("requests were still running after {} s", budget.as_secs()),
                },
                () = either(&mut terminate, &mut interrupt) => bail!("told twice to stop"),
            }
        }
    }
    // A connection that does not come back is the database's to close.
    if tokio::time::timeout(budget, store.close()).await.is_err() {
        tracing::warn!("a connection to the database was still in use");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Keeps the memory of rate limits bounded.
async fn forget_rates(rates: &Rates) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        rates.forget();
    }
}

async fn either(one: &mut tokio::signal::unix::Signal, other: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::{Clock, Ids};

    /// Always panics, which the compiler must not know.
    async fn panics() -> String {
        let reason = String::from("on purpose");
        assert!(reason.is_empty(), "{reason}");
        reason
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_request_in_the_form_of_its_interface() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.database.url = format!("sqlite://{}?mode=rwc", folder.path().join("db").display())
            .as_str()
            .into();
        let store = connect(&settings).await.unwrap();
        let app = App::new(settings, store, Clock::System, Ids::random()).unwrap();
        let graphql_routes = Router::new().route(graphql::http::PATH, post(panics));
        let router = app.router_of(
            Router::new().route("/conversation/sync", post(panics)),
            graphql_routes,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for _ in 0..2 {
            let response = http
                .post(format!("{url}/conversation/sync"))
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 500);
            assert_eq!(
                response.json::<Value>().await.unwrap(),
                json!({"msg": "internal error", "status": 500})
            );
            let response = http.post(format!("{url}/graphql")).send().await.unwrap();
            assert_eq!(response.status(), 500);
            let answer: Value = response.json().await.unwrap();
            assert_eq!(
                answer["errors"][0]["extensions"]["code"],
                "INTERNAL_SERVER_ERROR"
            );
            assert_eq!(
                http.get(format!("{url}/livez"))
                    .send()
                    .await
                    .unwrap()
                    .status(),
                200
            );
        }
    }
}
