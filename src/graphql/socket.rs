//! GraphQL over WebSocket: the `graphql-transport-ws` protocol, as the `graphql-ws` client speaks
//! it.
//!
//! Our own over axum's WebSocket: async-graphql 7.2.1 closes with codes of its own where the
//! protocol has them (4400, 4403, 4408), takes two operations with one id, and knows no limits.
//!
//! Nothing is buffered for a client: operations are asked for their next answer only when the last
//! one is sent. Who does not read for `live.send_seconds` is closed.

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

use super::http::refuse;
use super::operation::{Asking, Carries, Incoming, Outcome, prepare};
use crate::app::App;
use crate::auth::{Caller, TOKEN, strip_bearer};
use crate::border::REQUEST_ID;
use crate::budget::Holder;
use crate::error::Error;
use crate::http::Meter;
use crate::live::{Connection, expiry};
use crate::store::StoreError;

const PROTOCOL: &str = "graphql-transport-ws";
/// Bytes that are read at once.
const READ_BUFFER: usize = 4096;
/// How long a client may take to close its end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Messages that are read from a client that was told why it is closed: it may have sent some
/// before it was told, and a flood is not read to its end.
const LAST_MESSAGES: usize = 100;
/// Messages may come in bursts.
const TWICE_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
/// Bytes of an operation's id.
const ID_BYTES: usize = 128;

/// Why a connection is closed: the protocol's codes, and WebSocket's own.
type Close = (u16, &'static str);

const GOING_AWAY: Close = (1001, "the server goes away");
const TOO_BIG: Close = (1009, "the message is too big or broken");
const TRY_AGAIN: Close = (1013, "try again later");
const NO_PLACE: Close = (1013, "the server has no room just now: try again later");
const TOO_SLOW: Close = (1013, "too slow: events were not read");
const SILENT: Close = (1013, "no answer to pings");
const INVALID: Close = (
    4400,
    "Invalid message: it must be one of graphql-transport-ws, as JSON",
);
const UNAUTHORIZED: Close = (4401, "Unauthorized");
const FORBIDDEN: Close = (4403, "Forbidden");
const EXPIRED: Close = (4403, "Forbidden: the token has expired");
const NO_PROTOCOL: Close = (4406, "Subprotocol not acceptable: graphql-transport-ws is");
const NO_INIT: Close = (4408, "Connection initialisation timeout");
const TWICE: Close = (4409, "Subscriber already exists");
/// Clients of the protocol do not connect again after this one: two of them would take the place
/// from each other for ever.
const REPLACED: Close = (
    4429,
    "a newer connection of this user took the place of this one",
);
const TOO_MANY_MESSAGES: Close = (1008, "too many messages");
const TWO_INITS: Close = (4429, "Too many initialisation requests");

/// A message as it comes in; the payload is read when it is known what it is.
#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    payload: Option<Value>,
}

/// What a client says.
enum Said {
    ConnectionInit { payload: Option<Map<String, Value>> },
    Ping,
    Pong,
    Subscribe { id: String, incoming: Incoming },
    Complete { id: String },
}

impl Said {
    /// `None` for what is none of the protocol's messages.
    fn parse(text: &str) -> Option<Self> {
        let Frame { kind, id, payload } = serde_json::from_str(text).ok()?;
        let id = || id.filter(|id| (1..=ID_BYTES).contains(&id.len()));
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
                incoming: serde_json::from_value(payload?).ok()?,
            },
            "complete" => Self::Complete { id: id()? },
            _ => return None,
        })
    }
}

/// What an operation has to tell.
enum News {
    Next(Box<Outcome>),
    Complete,
}

type Operations = StreamMap<String, Pin<Box<dyn Stream<Item = News> + Send>>>;

/// Whether a request wants to become a WebSocket; clients offer HTTP/2 in the same way.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Takes over the connection, if its page may.
pub(super) fn serve(
    app: App,
    caller: Option<Caller>,
    parts: &Parts,
    upgrade: WebSocketUpgrade,
) -> Response {
    let headers = &parts.headers;
    if !is_from_our_page(&app, headers) {
        let text = "this page's origin is not in server.cors_origins";
        return refuse(headers, &Error::Forbidden(text.into()));
    }
    let longest = app.settings.limits.socket_message_bytes;
    let address = app.rates.address(&parts.extensions, headers);
    let request_id = headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(longest)
        .max_frame_size(longest);
    // Each connection has one, also when it is idle.
    let upgrade = upgrade.read_buffer_size(READ_BUFFER).write_buffer_size(0);
    let meter = parts.extensions.get::<Meter>().cloned();
    let connections = app.connections.clone();
    let rate =
        NonZeroU32::new(app.settings.limits.socket_messages_per_second).unwrap_or(NonZeroU32::MIN);
    let messages = RateLimiter::direct(
        Quota::per_second(rate).allow_burst(rate.saturating_mul(TWICE_AT_ONCE)),
    );
    upgrade.on_upgrade(move |socket| {
        let talk = async move {
            if let Some(meter) = &meter {
                meter.becomes_socket(longest);
            }
            let mut session = Session {
                socket,
                app,
                address,
                request_id,
                meter,
                messages,
                heard: Instant::now(),
            };
            let (code, reason) = session.run(caller).await;
            session.close(code, reason).await;
        };
        connections.track(talk)
    })
}

/// A browser says from which page a WebSocket comes, and asks nobody: so we look.
fn is_from_our_page(app: &App, headers: &HeaderMap) -> bool {
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
    app: App,
    address: Option<IpAddr>,
    request_id: String,
    meter: Option<Meter>,
    /// How often the client may say anything.
    messages: DefaultDirectRateLimiter,
    /// When the client said anything last.
    heard: Instant,
}

impl Session {
    /// Until something ends it; what.
    async fn run(&mut self, caller: Option<Caller>) -> Close {
        if self.socket.protocol().is_none() {
            return NO_PROTOCOL;
        }
        let patience = Duration::from_secs(self.app.settings.live.init_seconds);
        let shutdown = self.app.shutdown.clone();
        let begun = tokio::select! {
            begun = timeout(patience, self.begin(caller)) => begun.unwrap_or(Err(NO_INIT)),
            () = shutdown.cancelled() => Err(GOING_AWAY),
        };
        let caller = match begun {
            Ok(caller) => caller,
            Err(close) => return close,
        };
        // A place among the subscribers is for clients that are known.
        let Ok(connection) = self.app.connections.enter("websocket", caller.user()) else {
            return NO_PLACE;
        };
        if let Err(close) = self.say(r#"{"type":"connection_ack"}"#.to_owned()).await {
            return close;
        }
        match self.talk(caller, &connection).await {
            Ok(never) => never,
            Err(close) => close,
        }
    }

    /// Who it is, by the first message, or by the request's headers.
    async fn begin(&mut self, caller: Option<Caller>) -> Result<Caller, Close> {
        loop {
            match self.hear().await? {
                Said::ConnectionInit { payload } => {
                    let given = payload.as_ref().and_then(credential);
                    return match (given, caller) {
                        (None, Some(caller)) => Ok(caller),
                        (given, _) => self
                            .app
                            .admit(given.as_deref().map(str::as_bytes), self.address)
                            .await
                            .map_err(|error| {
                                if error.is_passing() || matches!(error, Error::TooMany(_)) {
                                    TRY_AGAIN
                                } else {
                                    FORBIDDEN
                                }
                            }),
                    };
                }
                Said::Ping => self.say(r#"{"type":"pong"}"#.to_owned()).await?,
                Said::Pong => {}
                Said::Subscribe { .. } | Said::Complete { .. } => return Err(UNAUTHORIZED),
            }
        }
    }

    async fn talk(&mut self, caller: Caller, connection: &Connection) -> Result<Close, Close> {
        let holder = Holder {
            is_service: caller.user().is_none(),
            address: self.address,
            uid: caller.user().map(ToString::to_string),
        };
        let replaced = connection.replaced();
        let asking = Asking {
            app: self.app.clone(),
            caller,
            request_id: self.request_id.clone(),
        };
        let expired = expiry(&asking.caller);
        tokio::pin!(expired);
        let shutdown = self.app.shutdown.clone();
        let every = Duration::from_secs(self.app.settings.live.ping_seconds);
        let mut ping = tokio::time::interval_at(Instant::now() + every, every);
        let mut asked: Option<Instant> = None;
        let mut operations = Operations::new();
        loop {
            tokio::select! {
                // A client that says much does not keep itself from being told.
                said = self.hear() => match said? {
                    Said::ConnectionInit { .. } => return Err(TWO_INITS),
                    Said::Ping => self.say(r#"{"type":"pong"}"#.to_owned()).await?,
                    Said::Pong => {}
                    Said::Complete { id } => drop(operations.remove(&id)),
                    Said::Subscribe { id, incoming } => {
                        if operations.contains_key(&id) {
                            return Err(TWICE);
                        }
                        match begin(&asking, holder.clone(), incoming, operations.len()) {
                            Ok(news) => drop(operations.insert(id, news)),
                            Err(outcome) => self.say(failed(&id, &outcome.answer.errors)).await?,
                        }
                    }
                },
                Some((id, news)) = operations.next(), if !operations.is_empty() => match news {
                    News::Next(outcome) if outcome.ran => self.tell(&holder, next(&id, &outcome)).await?,
                    // It was none: that is its end.
                    News::Next(outcome) => {
                        operations.remove(&id);
                        self.say(failed(&id, &outcome.answer.errors)).await?;
                    }
                    News::Complete => {
                        operations.remove(&id);
                        self.say(format!(r#"{{"id":{},"type":"complete"}}"#, Value::from(id))).await?;
                    }
                },
                _ = ping.tick() => {
                    if asked.is_some_and(|asked| self.heard < asked) {
                        return Err(SILENT);
                    }
                    asked = Some(Instant::now());
                    self.send(Message::Ping(bytes::Bytes::new())).await?;
                }
                () = replaced.cancelled() => return Err(REPLACED),
                () = &mut expired => return Err(EXPIRED),
                () = shutdown.cancelled() => return Err(GOING_AWAY),
            }
        }
    }

    /// The client's next message.
    async fn hear(&mut self) -> Result<Said, Close> {
        loop {
            let message = self.socket.recv().await;
            self.heard = Instant::now();
            if let Some(meter) = &self.meter {
                meter.rest();
            }
            if self.messages.check().is_err() {
                return Err(TOO_MANY_MESSAGES);
            }
            match message {
                Some(Ok(Message::Text(text))) => return Said::parse(&text).ok_or(INVALID),
                Some(Ok(Message::Binary(_))) => return Err(INVALID),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Err((1000, "")),
                Some(Err(_)) => return Err(TOO_BIG),
            }
        }
    }

    /// Sends an answer, which is held until it is written.
    async fn tell(&mut self, holder: &Holder, text: String) -> Result<(), Close> {
        let _held = self
            .app
            .budgets
            .memory
            .take(holder.clone(), text.len())
            .map_err(|_| NO_PLACE)?;
        self.say(text).await
    }

    async fn say(&mut self, text: String) -> Result<(), Close> {
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Close> {
        let patience = Duration::from_secs(self.app.settings.live.send_seconds);
        match timeout(patience, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err((1000, "")),
            Err(_) => Err(TOO_SLOW),
        }
    }

    /// Says why, and waits a moment until the client has read it.
    async fn close(&mut self, code: u16, reason: &'static str) {
        let label = match code {
            1000 => "client",
            1001 => "shutdown",
            _ if reason == TOO_SLOW.1 => "slow",
            _ if reason == SILENT.1 => "silent",
            _ if reason == EXPIRED.1 => "expired",
            _ if reason == REPLACED.1 => "replaced",
            _ if reason == TOO_MANY_MESSAGES.1 => "rate",
            _ => "refused",
        };
        metrics::counter!("recents_live_closed_total", "reason" => label).increment(1);
        let farewell = async {
            if self
                .socket
                .send(Message::Close(Some(CloseFrame {
                    code,
                    reason: reason.into(),
                })))
                .await
                .is_ok()
            {
                for _ in 0..LAST_MESSAGES {
                    let Some(Ok(_)) = self.socket.recv().await else {
                        return;
                    };
                }
            }
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// What `connection_init` says of the client: `Authorization` or `token`, as the headers.
fn credential(payload: &Map<String, Value>) -> Option<String> {
    let find = |wanted: &str| {
        payload
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .and_then(|(_, value)| value.as_str())
    };
    let bearer = || {
        find("authorization").map(|value| {
            strip_bearer(value.as_bytes())
                .map_or("", |token| std::str::from_utf8(token).unwrap_or_default())
        })
    };
    find(TOKEN).or_else(bearer).map(str::to_owned)
}

/// An operation's news.
fn begin(
    asking: &Asking,
    holder: Holder,
    incoming: Incoming,
    running: usize,
) -> Result<Pin<Box<dyn Stream<Item = News> + Send>>, Box<Outcome>> {
    let refused = |error: Error| Box::new(Outcome::refused(&error));
    let limits = &asking.app.settings.limits;
    if running >= limits.subscriptions {
        let text = format!(
            "a connection may have at most {} operations at once",
            limits.subscriptions
        );
        return Err(refused(Error::TooManyAtOnce(text.into())));
    }
    if let Some(uid) = asking.caller.user() {
        asking.app.rates.check_user(uid).map_err(refused)?;
    }
    let prepared = prepare(&asking.app, incoming, Carries::Events)?;
    let complete = stream::iter([News::Complete]);
    if prepared.subscribes {
        let reservation = asking.app.budgets.subscribe(holder).map_err(refused)?;
        let outcomes = reservation.scope_stream(|| prepared.stream(asking));
        return Ok(surviving(
            outcomes
                .map(|outcome| News::Next(Box::new(outcome)))
                .chain(complete),
        )
        .boxed());
    }
    // As a request of its own: it needs a place, and has so much time.
    let reservation = asking.app.budgets.admit(holder).map_err(refused)?;
    let (asking, limit) = (asking.clone(), Duration::from_secs(limits.request_seconds));
    let answer = stream::once(async move {
        let outcome = timeout(limit, reservation.scope(prepared.run(&asking))).await;
        News::Next(Box::new(outcome.unwrap_or_else(|_| Outcome {
            ran: true,
            ..Outcome::refused(&Error::Timeout)
        })))
    });
    Ok(surviving(answer.chain(complete)).boxed())
}

/// A panic ends its own operation; the connection and its other operations go on.
fn surviving(news: impl Stream<Item = News> + Send) -> impl Stream<Item = News> + Send {
    AssertUnwindSafe(news).catch_unwind().map(|news| {
        news.unwrap_or_else(|_| {
            tracing::error!("an operation panicked");
            News::Next(Box::new(Outcome::refused(
                &StoreError::Broken("panic".to_owned()).into(),
            )))
        })
    })
}

fn next(id: &str, outcome: &Outcome) -> String {
    let body = String::from_utf8(outcome.body()).unwrap_or_default();
    format!(
        r#"{{"id":{},"type":"next","payload":{body}}}"#,
        Value::from(id)
    )
}

fn failed(id: &str, errors: &[ServerError]) -> String {
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
    async fn a_panic_ends_its_own_operation_with_an_error() {
        let operation = surviving(stream::once(async { panic!("on purpose") }));
        let news: Vec<News> = operation.collect().await;
        let [News::Next(outcome)] = news.as_slice() else {
            panic!("one piece of news")
        };
        assert!(!outcome.ran);
        assert_eq!(
            failed("1", &outcome.answer.errors),
            r#"{"id":"1","type":"error","payload":[{"message":"internal error","extensions":{"code":"INTERNAL_SERVER_ERROR"}}]}"#
        );
    }
}
