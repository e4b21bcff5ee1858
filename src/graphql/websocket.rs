//! GraphQL over WebSocket: the `graphql-transport-ws` protocol of the `graphql-ws` client.
//!
//! This is an implementation of its own over axum's WebSocket: async-graphql 7.2.1 closes with
//! other codes than the protocol's (4400, 4403, 4408), accepts two operations with one id, and has
//! no limits.
//!
//! Nothing is buffered for a client: the next event of an operation is computed after the last one
//! was sent. Clients that do not read for `live.write_timeout_seconds` are disconnected.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use async_graphql::ServerError;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use futures_util::{Stream, StreamExt, stream};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamMap;

use super::http::error_response;
use super::operation::{
    ExecutionResult, GraphqlRequest, RequestContext, TransportCapabilities, prepare,
};
use crate::auth::{Caller, TOKEN_HEADER, strip_bearer};
use crate::budget::Holder;
use crate::error::Error;
use crate::graphql::GraphqlState;
use crate::http::ConnectionMeter;
use crate::http::REQUEST_ID;
use crate::live::{Connection, wait_for_expiry};
use crate::state::AppState;

const PROTOCOL: &str = "graphql-transport-ws";
/// Size of the read buffer in bytes.
const READ_BUFFER: usize = 4096;
/// How long the server waits for the client's close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages that are read after the close frame was sent: the client may have sent some before it
/// arrived, but a flood is not read to its end.
const MAX_MESSAGES_WHILE_CLOSING: usize = 100;
/// The rate limit allows bursts of twice the messages per second.
const BURST_FACTOR: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
/// Maximum length of an operation's id.
const MAX_ID_BYTES: usize = 128;

/// Code and reason of a close frame: the protocol's codes, and those of WebSocket.
type CloseReason = (u16, &'static str);

const SHUTTING_DOWN: CloseReason = (1001, "the server goes away");
const TOO_BIG: CloseReason = (1009, "the message is too big or broken");
const TRY_AGAIN: CloseReason = (1013, "try again later");
const SERVER_FULL: CloseReason = (1013, "the server has no room just now: try again later");
const TOO_SLOW: CloseReason = (1013, "too slow: events were not read");
const PING_TIMEOUT: CloseReason = (1013, "no answer to pings");
const INVALID: CloseReason = (
    4400,
    "Invalid message: it must be one of graphql-transport-ws, as JSON",
);
const UNAUTHORIZED: CloseReason = (4401, "Unauthorized");
const FORBIDDEN: CloseReason = (4403, "Forbidden");
const EXPIRED: CloseReason = (4403, "Forbidden: the token has expired");
const UNSUPPORTED_PROTOCOL: CloseReason =
    (4406, "Subprotocol not acceptable: graphql-transport-ws is");
const INIT_TIMEOUT: CloseReason = (4408, "Connection initialisation timeout");
const DUPLICATE_SUBSCRIPTION: CloseReason = (4409, "Subscriber already exists");
/// Clients of the protocol do not reconnect after this code; otherwise two of them would replace
/// each other forever.
const REPLACED: CloseReason = (
    4429,
    "a newer connection of this user took the place of this one",
);
const TOO_MANY_MESSAGES: CloseReason = (1008, "too many messages");
const TOO_MANY_INITS: CloseReason = (4429, "Too many initialisation requests");

/// A message as received; the payload is parsed once the type is known.
#[derive(Deserialize)]
struct RawMessage {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    payload: Option<Value>,
}

/// A message of the client.
enum ClientMessage {
    ConnectionInit { payload: Option<Map<String, Value>> },
    Ping,
    Pong,
    Subscribe { id: String, request: GraphqlRequest },
    Complete { id: String },
}

impl ClientMessage {
    /// Parses a message; returns `None` if it does not belong to the protocol.
    fn parse(text: &str) -> Option<Self> {
        let RawMessage { kind, id, payload } = serde_json::from_str(text).ok()?;
        let id = || id.filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        Some(match kind.as_str() {
            "connection_init" => {
                let payload = payload.map(serde_json::from_value).transpose().ok()?;
                Self::ConnectionInit {
                    payload: payload.flatten(),
                }
            }
            "ping" => Self::Ping,
            "pong" => Self::Pong,
            "subscribe" => Self::Subscribe {
                id: id()?,
                request: serde_json::from_value(payload?).ok()?,
            },
            "complete" => Self::Complete { id: id()? },
            _ => return None,
        })
    }
}

/// An event of an operation.
enum OperationEvent {
    Next(Box<ExecutionResult>),
    Complete,
}

type Operations = StreamMap<String, Pin<Box<dyn Stream<Item = OperationEvent> + Send>>>;

/// Returns whether a request asks for a WebSocket. Upgrades to HTTP/2 use the same header.
pub(crate) fn is_upgrade_request(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Upgrades the connection, if the origin of its page is allowed.
pub(super) fn upgrade(
    state: GraphqlState,
    caller: Option<Caller>,
    parts: &Parts,
    upgrade: WebSocketUpgrade,
) -> Response {
    let headers = &parts.headers;
    if !is_allowed_origin(&state.app, headers) {
        let text = "this page's origin is not in server.cors_origins";
        return error_response(headers, &Error::Forbidden(text.into()));
    }
    let max_message_bytes = state.app.settings.limits.socket_message_bytes;
    let address = state.app.rate_limiter.client_ip(&parts.extensions, headers);
    let request_id = headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(max_message_bytes)
        .max_frame_size(max_message_bytes);
    // Every connection has a read buffer, also idle ones.
    let upgrade = upgrade.read_buffer_size(READ_BUFFER).write_buffer_size(0);
    let meter = parts.extensions.get::<ConnectionMeter>().cloned();
    let connections = state.app.connections.clone();
    let rate = NonZeroU32::new(state.app.settings.limits.socket_messages_per_second)
        .unwrap_or(NonZeroU32::MIN);
    let messages =
        RateLimiter::direct(Quota::per_second(rate).allow_burst(rate.saturating_mul(BURST_FACTOR)));
    upgrade.on_upgrade(move |socket| {
        let connection = async move {
            if let Some(meter) = &meter {
                meter.upgraded_to_websocket(max_message_bytes);
            }
            let mut session = Session {
                socket,
                state,
                address,
                request_id,
                meter,
                messages,
                last_received_at: Instant::now(),
            };
            let (code, reason) = session.run(caller).await;
            session.close(code, reason).await;
        };
        connections.track(connection)
    })
}

/// Checks the `Origin` header: browsers send it with a WebSocket, but apply no CORS rules to it.
fn is_allowed_origin(app: &AppState, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let same = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .is_some_and(|(_, of)| of == host);
    same || app
        .settings
        .server
        .cors_origins
        .iter()
        .any(|known| origin == known)
}

struct Session {
    socket: WebSocket,
    state: GraphqlState,
    address: Option<IpAddr>,
    request_id: String,
    meter: Option<ConnectionMeter>,
    /// Limits the messages of the client.
    messages: DefaultDirectRateLimiter,
    /// When the client last sent a message.
    last_received_at: Instant,
}

impl Session {
    /// Runs the session and returns why it ended.
    async fn run(&mut self, caller: Option<Caller>) -> CloseReason {
        if self.socket.protocol().is_none() {
            return UNSUPPORTED_PROTOCOL;
        }
        let init_timeout =
            Duration::from_secs(self.state.app.settings.live.connection_init_timeout_seconds);
        let shutdown = self.state.app.shutdown.clone();
        let initialised = tokio::select! {
            initialised = timeout(init_timeout, self.init(caller)) => initialised.unwrap_or(Err(INIT_TIMEOUT)),
            () = shutdown.cancelled() => Err(SHUTTING_DOWN),
        };
        let caller = match initialised {
            Ok(caller) => caller,
            Err(close) => return close,
        };
        // Only authenticated clients take a place among the connections.
        let Ok(connection) = self
            .state
            .app
            .connections
            .register("websocket", caller.user())
        else {
            return SERVER_FULL;
        };
        if let Err(close) = self
            .send_text(r#"{"type":"connection_ack"}"#.to_owned())
            .await
        {
            return close;
        }
        match self.serve(caller, &connection).await {
            Ok(never) => never,
            Err(close) => close,
        }
    }

    /// Authenticates the client by its first message or by the headers of the request.
    async fn init(&mut self, caller: Option<Caller>) -> Result<Caller, CloseReason> {
        loop {
            match self.recv().await? {
                ClientMessage::ConnectionInit { payload } => {
                    let given = payload.as_ref().and_then(credential);
                    return match (given, caller) {
                        (None, Some(caller)) => Ok(caller),
                        (given, _) => self
                            .state
                            .app
                            .authenticate_and_rate_limit(
                                given.as_deref().map(str::as_bytes),
                                self.address,
                            )
                            .await
                            .map_err(|error| {
                                if error.is_transient() || matches!(error, Error::RateLimited(_)) {
                                    TRY_AGAIN
                                } else {
                                    FORBIDDEN
                                }
                            }),
                    };
                }
                ClientMessage::Ping => self.send_text(r#"{"type":"pong"}"#.to_owned()).await?,
                ClientMessage::Pong => {}
                ClientMessage::Subscribe { .. } | ClientMessage::Complete { .. } => {
                    return Err(UNAUTHORIZED);
                }
            }
        }
    }

    async fn serve(
        &mut self,
        caller: Caller,
        connection: &Connection,
    ) -> Result<CloseReason, CloseReason> {
        let holder = Holder {
            is_service: caller.user().is_none(),
            address: self.address,
            uid: caller.user().map(ToString::to_string),
        };
        let replaced = connection.replaced();
        let context = RequestContext {
            state: self.state.clone(),
            caller,
            request_id: self.request_id.clone(),
        };
        let expired = wait_for_expiry(&context.caller);
        tokio::pin!(expired);
        let shutdown = self.state.app.shutdown.clone();
        let every = Duration::from_secs(self.state.app.settings.live.ping_interval_seconds);
        let mut ping = tokio::time::interval_at(Instant::now() + every, every);
        let mut pinged_at: Option<Instant> = None;
        let mut operations = Operations::new();
        loop {
            tokio::select! {
                // The branches are polled in random order, so a client that sends many messages
                // still gets its events.
                message = self.recv() => match message? {
                    ClientMessage::ConnectionInit { .. } => return Err(TOO_MANY_INITS),
                    ClientMessage::Ping => self.send_text(r#"{"type":"pong"}"#.to_owned()).await?,
                    ClientMessage::Pong => {}
                    ClientMessage::Complete { id } => drop(operations.remove(&id)),
                    ClientMessage::Subscribe { id, request } => {
                        if operations.contains_key(&id) {
                            return Err(DUPLICATE_SUBSCRIPTION);
                        }
                        match start_operation(&context, holder.clone(), request, operations.len()) {
                            Ok(events) => drop(operations.insert(id, events)),
                            Err(result) => self.send_text(error_message(&id, &result.response.errors)).await?,
                        }
                    }
                },
                Some((id, events)) = operations.next(), if !operations.is_empty() => match events {
                    OperationEvent::Next(result) if result.executed => self.send_event(&holder, next_message(&id, &result)).await?,
                    // The operation was not executed, which ends it.
                    OperationEvent::Next(result) => {
                        operations.remove(&id);
                        self.send_text(error_message(&id, &result.response.errors)).await?;
                    }
                    OperationEvent::Complete => {
                        operations.remove(&id);
                        self.send_text(format!(r#"{{"id":{},"type":"complete"}}"#, Value::from(id))).await?;
                    }
                },
                _ = ping.tick() => {
                    if pinged_at.is_some_and(|pinged_at| self.last_received_at < pinged_at) {
                        return Err(PING_TIMEOUT);
                    }
                    pinged_at = Some(Instant::now());
                    self.send(Message::Ping(bytes::Bytes::new())).await?;
                }
                () = replaced.cancelled() => return Err(REPLACED),
                () = &mut expired => return Err(EXPIRED),
                () = shutdown.cancelled() => return Err(SHUTTING_DOWN),
            }
        }
    }

    /// Receives the client's next message.
    async fn recv(&mut self) -> Result<ClientMessage, CloseReason> {
        loop {
            let message = self.socket.recv().await;
            self.last_received_at = Instant::now();
            if let Some(meter) = &self.meter {
                meter.release_pending();
            }
            if self.messages.check().is_err() {
                return Err(TOO_MANY_MESSAGES);
            }
            match message {
                Some(Ok(Message::Text(text))) => return ClientMessage::parse(&text).ok_or(INVALID),
                Some(Ok(Message::Binary(_))) => return Err(INVALID),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Err((1000, "")),
                Some(Err(_)) => return Err(TOO_BIG),
            }
        }
    }

    /// Sends the result of an operation; its memory is reserved until it is written.
    async fn send_event(&mut self, holder: &Holder, text: String) -> Result<(), CloseReason> {
        let _held = self
            .state
            .app
            .budgets
            .memory
            .take(holder.clone(), text.len())
            .map_err(|_| SERVER_FULL)?;
        self.send_text(text).await
    }

    async fn send_text(&mut self, text: String) -> Result<(), CloseReason> {
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), CloseReason> {
        let write_timeout = Duration::from_secs(self.state.app.settings.live.write_timeout_seconds);
        match timeout(write_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err((1000, "")),
            Err(_) => Err(TOO_SLOW),
        }
    }

    /// Sends a close frame with the reason, and waits briefly for the client's close frame.
    async fn close(&mut self, code: u16, reason: &'static str) {
        let label = match code {
            1000 => "client",
            1001 => "shutdown",
            _ if reason == TOO_SLOW.1 => "slow",
            _ if reason == PING_TIMEOUT.1 => "silent",
            _ if reason == EXPIRED.1 => "expired",
            _ if reason == REPLACED.1 => "replaced",
            _ if reason == TOO_MANY_MESSAGES.1 => "rate",
            _ => "refused",
        };
        metrics::counter!(crate::metrics::LIVE_CLOSED_TOTAL, "reason" => label).increment(1);
        let closing = async {
            if self
                .socket
                .send(Message::Close(Some(CloseFrame {
                    code,
                    reason: reason.into(),
                })))
                .await
                .is_ok()
            {
                for _ in 0..MAX_MESSAGES_WHILE_CLOSING {
                    let Some(Ok(_)) = self.socket.recv().await else {
                        return;
                    };
                }
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Returns the token from the payload of `connection_init`: `Authorization` or `token`, like the
/// headers.
fn credential(payload: &Map<String, Value>) -> Option<String> {
    let find = |field: &str| {
        payload
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(field))
            .and_then(|(_, value)| value.as_str())
    };
    let bearer = || {
        find("authorization").map(|value| {
            strip_bearer(value.as_bytes())
                .map_or("", |token| std::str::from_utf8(token).unwrap_or_default())
        })
    };
    find(TOKEN_HEADER).or_else(bearer).map(str::to_owned)
}

/// Starts an operation and returns its events.
fn start_operation(
    context: &RequestContext,
    holder: Holder,
    request: GraphqlRequest,
    running: usize,
) -> Result<Pin<Box<dyn Stream<Item = OperationEvent> + Send>>, Box<ExecutionResult>> {
    let refused = |error: Error| Box::new(ExecutionResult::from_error(&error));
    let limits = &context.state.app.settings.limits;
    if running >= limits.max_subscriptions {
        let text = format!(
            "a connection may have at most {} operations at once",
            limits.max_subscriptions
        );
        return Err(refused(Error::TooManyAtOnce(text.into())));
    }
    if let Some(uid) = context.caller.user() {
        context
            .state
            .app
            .rate_limiter
            .check_user(uid)
            .map_err(refused)?;
    }
    let prepared = prepare(&context.state, request, TransportCapabilities::Everything)?;
    let complete = stream::iter([OperationEvent::Complete]);
    if prepared.is_subscription {
        let reservation = context
            .state
            .app
            .budgets
            .subscribe(holder)
            .map_err(refused)?;
        let results = reservation.scope_stream(|| prepared.stream(context));
        return Ok(catch_panics(
            results
                .map(|result| OperationEvent::Next(Box::new(result)))
                .chain(complete),
        )
        .boxed());
    }
    // A query or a mutation is limited like a request of its own: it takes a place among the
    // requests and has a timeout.
    let reservation = context.state.app.budgets.admit(holder).map_err(refused)?;
    let (context, limit) = (
        context.clone(),
        Duration::from_secs(limits.request_timeout_seconds),
    );
    let answer = stream::once(async move {
        let result = timeout(limit, reservation.scope(prepared.run(&context))).await;
        OperationEvent::Next(Box::new(result.unwrap_or_else(|_| ExecutionResult {
            executed: true,
            ..ExecutionResult::from_error(&Error::Timeout)
        })))
    });
    Ok(catch_panics(answer.chain(complete)).boxed())
}

/// Turns a panic into an error of its operation; the connection and its other operations continue.
fn catch_panics(
    events: impl Stream<Item = OperationEvent> + Send,
) -> impl Stream<Item = OperationEvent> + Send {
    AssertUnwindSafe(events).catch_unwind().map(|events| {
        events.unwrap_or_else(|_| {
            let error = Error::Internal("an operation panicked");
            error.log();
            OperationEvent::Next(Box::new(ExecutionResult::from_error(&error)))
        })
    })
}

fn next_message(id: &str, result: &ExecutionResult) -> String {
    let body = String::from_utf8(result.body()).unwrap_or_default();
    format!(
        r#"{{"id":{},"type":"next","payload":{body}}}"#,
        Value::from(id)
    )
}

fn error_message(id: &str, errors: &[ServerError]) -> String {
    let errors = serde_json::to_string(errors).unwrap_or_default();
    format!(
        r#"{{"id":{},"type":"error","payload":{errors}}}"#,
        Value::from(id)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_ends_only_its_operation_with_an_error() {
        let operation = catch_panics(stream::once(async { panic!("on purpose") }));
        let events: Vec<OperationEvent> = operation.collect().await;
        let [OperationEvent::Next(result)] = events.as_slice() else {
            panic!("expected one event")
        };
        assert!(!result.executed);
        assert_eq!(
            error_message("1", &result.response.errors),
            r#"{"id":"1","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL_SERVER_ERROR"}}]}"#
        );
    }
}
