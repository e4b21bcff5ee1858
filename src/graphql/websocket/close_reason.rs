//! Why the server closes a connection.

/// Code and reason of a close frame: the protocol's codes, and those of WebSocket.
pub(super) type CloseReason = (u16, &'static str);

pub(super) const SHUTTING_DOWN: CloseReason = (1001, "the server goes away");
pub(super) const TOO_BIG: CloseReason = (1009, "the message is too big or broken");
pub(super) const TRY_AGAIN: CloseReason = (1013, "try again later");
pub(super) const SERVER_FULL: CloseReason =
    (1013, "the server has no room just now: try again later");
pub(super) const TOO_SLOW: CloseReason = (1013, "too slow: events were not read");
pub(super) const PING_TIMEOUT: CloseReason = (1013, "no answer to pings");
pub(super) const INVALID: CloseReason = (
    4400,
    "Invalid message: it must be one of graphql-transport-ws, as JSON",
);
pub(super) const UNAUTHORIZED: CloseReason = (4401, "Unauthorized");
pub(super) const FORBIDDEN: CloseReason = (4403, "Forbidden");
pub(super) const EXPIRED: CloseReason = (4403, "Forbidden: the token has expired");
pub(super) const UNSUPPORTED_PROTOCOL: CloseReason =
    (4406, "Subprotocol not acceptable: graphql-transport-ws is");
pub(super) const INIT_TIMEOUT: CloseReason = (4408, "Connection initialisation timeout");
pub(super) const DUPLICATE_SUBSCRIPTION: CloseReason = (4409, "Subscriber already exists");
/// Clients of the protocol do not reconnect after this code; otherwise two of them would replace
/// each other forever.
pub(super) const REPLACED: CloseReason =
    (4429, "a newer connection of this user replaced this one");
pub(super) const TOO_MANY_MESSAGES: CloseReason = (1008, "too many messages");
pub(super) const TOO_MANY_INITS: CloseReason = (4429, "Too many initialisation requests");
