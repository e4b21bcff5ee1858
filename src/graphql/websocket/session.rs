//! A connection, from its upgrade to its close frame.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::StreamExt;
use governor::DefaultDirectRateLimiter;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::close_reason::{
    CloseReason, DUPLICATE_SUBSCRIPTION, EXPIRED, FORBIDDEN, INIT_TIMEOUT, INVALID, PING_TIMEOUT,
    REPLACED, SERVER_FULL, SHUTTING_DOWN, TOO_BIG, TOO_MANY_INITS, TOO_MANY_MESSAGES, TOO_SLOW,
    TRY_AGAIN, UNAUTHORIZED, UNSUPPORTED_PROTOCOL,
};
use super::operations::{OperationEvent, Operations, start_operation};
use super::protocol::{ClientMessage, credential, error_message, next_message};
use crate::auth::Caller;
use crate::budget::CallerIdentity;
use crate::error::Error;
use crate::graphql::GraphqlState;
use crate::graphql::operation::RequestContext;
use crate::http::ConnectionMeter;
use crate::live::{Connection, wait_for_expiry};

/// How long the server waits for the client's close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages that are read after the close frame was sent: the client may have sent some before it
/// arrived, but a flood is not read to its end.
const MAX_MESSAGES_WHILE_CLOSING: usize = 100;

pub(super) struct Session {
    pub(super) socket: WebSocket,
    pub(super) state: GraphqlState,
    pub(super) address: Option<IpAddr>,
    pub(super) request_id: String,
    pub(super) meter: Option<ConnectionMeter>,
    /// Limits the messages of the client.
    pub(super) messages: DefaultDirectRateLimiter,
    /// When the client last sent a message.
    pub(super) last_received_at: Instant,
}

impl Session {
    /// Runs the session and returns why it ended.
    pub(super) async fn run(&mut self, caller: Option<Caller>) -> CloseReason {
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
        // Only authenticated clients count as connections.
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
        let identity = CallerIdentity {
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
                        match start_operation(&context, identity.clone(), request, operations.len()) {
                            Ok(events) => drop(operations.insert(id, events)),
                            Err(result) => self.send_text(error_message(&id, &result.response.errors)).await?,
                        }
                    }
                },
                Some((id, events)) = operations.next(), if !operations.is_empty() => match events {
                    OperationEvent::Next(result) if result.executed => self.send_event(&identity, next_message(&id, &result)).await?,
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
    async fn send_event(
        &mut self,
        identity: &CallerIdentity,
        text: String,
    ) -> Result<(), CloseReason> {
        let _held = self
            .state
            .app
            .budgets
            .memory
            .try_acquire(identity.clone(), text.len())
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
    pub(super) async fn close(&mut self, code: u16, reason: &'static str) {
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
