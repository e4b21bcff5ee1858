//! Starts the server, and shuts it down on SIGTERM or SIGINT. SIGHUP is ignored.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::background::BackgroundTasks;
use super::database::open_store;
use super::pages::startup_banner;
use super::router::router;
use crate::clock::{Clock, IdGenerator};
use crate::config::{ConfigError, Settings};
use crate::graphql::GraphqlState;
use crate::repair::RepairWorker;
use crate::rest::wukong;
use crate::state::AppState;
use crate::store::Store;
use crate::{http, telemetry};

const SECOND_SIGNAL: &str = "second signal received, aborting";

/// An address that the server cannot, or must not, listen on; a mistake in the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ListenError(String);

/// A server that is ready to take connections.
#[derive(Clone)]
pub struct Server {
    /// The state that every handler receives.
    pub state: AppState,
    /// The state of the handlers of GraphQL.
    pub(super) graphql: GraphqlState,
}

/// Builds a server and its background tasks.
///
/// # Errors
/// A `graphql.persisted_operations_file` or a key file that cannot be read.
pub fn assemble(
    settings: Settings,
    store: Store,
    clock: Clock,
    ids: IdGenerator,
) -> Result<(Server, BackgroundTasks), ConfigError> {
    let (state, member_lookup_worker) = AppState::new(
        settings,
        store,
        clock,
        ids,
        crate::wukongim::dto::write_message,
    )?;
    let repair_worker = RepairWorker::new(Arc::clone(&state.core), &state.settings.ingest)?;
    let background = BackgroundTasks::new(state.clone(), member_lookup_worker, repair_worker);
    let graphql = GraphqlState::new(state.clone())?;
    Ok((Server { state, graphql }, background))
}

/// Binds `server.listen`. Without authentication every caller may do everything, so the server then
/// listens on loopback only.
///
/// # Errors
/// [`ListenError`] for a malformed address, or one that needs authentication; errors of the system.
pub async fn bind(settings: &Settings) -> anyhow::Result<TcpListener> {
    let listen = &settings.server.listen;
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen)
        .await
        .map_err(|error| {
            ListenError(format!(
                "server.listen = {listen:?} is not an address to listen on: {error}"
            ))
        })?
        .collect();
    if settings.auth.is_open() && !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err(ListenError(format!(
            "refusing to listen on {listen:?} without authentication (server.listen): set \
             auth.manager_token or a key in auth.jwt, or listen on loopback"
        ))
        .into());
    }
    TcpListener::bind(addresses.as_slice())
        .await
        .with_context(|| format!("cannot listen on {listen}"))
}

/// Binds `ingest.grpc_listen`, if it is set.
async fn bind_grpc(settings: &Settings) -> anyhow::Result<Option<TcpListener>> {
    let listen = settings.ingest.grpc_listen.as_str();
    if listen.is_empty() {
        return Ok(None);
    }
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| ListenError(format!("ingest.grpc_listen = {listen:?}: {error}")))?;
    Ok(Some(listener))
}

/// Accepts connections until a shutdown begins.
pub async fn serve(server: Server, listener: TcpListener) {
    http::serve(server.state.clone(), router(server), listener).await;
}

/// Runs a server until SIGTERM or SIGINT, then shuts it down in phases. After SIGTERM it is not
/// ready any more, but takes requests for another `server.drain_seconds`. Then it stops accepting
/// connections and waits for running requests, at most `server.shutdown_timeout_seconds`. In the end it
/// closes the database. A second signal aborts the wait.
///
/// # Errors
/// Errors of the system or the database; requests that were still running in the end.
pub async fn run(mut settings: Settings) -> anyhow::Result<()> {
    ignore_hangups()?;
    http::limit_connections(&mut settings);
    let listener = bind(&settings).await?;
    let grpc_listener = bind_grpc(&settings).await?;
    let store = open_store(&settings).await?;
    let drain = Duration::from_secs(settings.server.drain_seconds);
    let shutdown_timeout = Duration::from_secs(settings.server.shutdown_timeout_seconds);
    let (server, background) = assemble(
        settings,
        store.clone(),
        Clock::System,
        IdGenerator::random(),
    )?;
    let state = server.state.clone();
    let (draining, shutdown) = (state.draining.clone(), state.shutdown.clone());
    tokio::spawn(telemetry::maintain_metrics());
    tokio::spawn(background.run());
    if let Some(listener) = grpc_listener {
        let grpc = wukong::grpc::serve(state.clone(), listener);
        tokio::spawn(state.connections.track(grpc));
    }
    let mut signals = ShutdownSignals::new()?;

    // Stdout may be closed.
    let _ = writeln!(
        std::io::stdout(),
        "{}",
        startup_banner(listener.local_addr()?, &state.settings)
    );
    let mut serving = tokio::spawn(async move {
        serve(server, listener).await;
        state.connections_closed().await;
    });
    tokio::select! {
        ended = &mut serving => ended?,
        signal = signals.recv() => {
            draining.cancel();
            if signal == SignalKind::terminate() && !drain.is_zero() {
                tracing::info!(seconds = drain.as_secs(), "not ready any more, but still taking requests");
                tokio::select! {
                    () = tokio::time::sleep(drain) => {}
                    _ = signals.recv() => bail!(SECOND_SIGNAL),
                }
            }
            tracing::info!("shutting down");
            shutdown.cancel();
            tokio::select! {
                ended = tokio::time::timeout(shutdown_timeout, &mut serving) => match ended {
                    Ok(ended) => ended?,
                    Err(_) => bail!(
                        "requests were still running after {} s",
                        shutdown_timeout.as_secs()
                    ),
                },
                _ = signals.recv() => bail!(SECOND_SIGNAL),
            }
        }
    }
    // The database closes connections that are not returned to the pool in time.
    if tokio::time::timeout(shutdown_timeout, store.close())
        .await
        .is_err()
    {
        tracing::warn!("a database connection was still in use at the end of the shutdown");
    }
    tracing::info!("stopped");
    Ok(())
}

/// The signals that ask the server to stop.
struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn recv(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

/// Ignores SIGHUP, which would end the process.
fn ignore_hangups() -> std::io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            tracing::warn!("SIGHUP is ignored: settings are read at the start only");
        }
    });
    Ok(())
}
