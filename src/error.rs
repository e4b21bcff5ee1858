//! One table of what can go wrong: kind → GraphQL code → HTTP status. Both interfaces answer from
//! it.

use std::borrow::Cow;

use axum::http::StatusCode;

use crate::store::StoreError;

/// What a use case can answer instead of a result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A value the caller gave is not one we take. `field` is the name on the legacy wire.
    #[error("{field} {problem}")]
    BadInput {
        /// Which field, in `snake_case`; the GraphQL side says it in `camelCase`.
        field: Cow<'static, str>,
        /// What is wrong with it, continuing the sentence that the field begins.
        problem: Cow<'static, str>,
    },
    /// A request that is wrong as a whole, or whose message is fixed by `WuKongIM`.
    #[error("{0}")]
    BadRequest(Cow<'static, str>),
    /// The body is larger than the limit.
    #[error("the request body must be at most {0} bytes long")]
    BodyTooLarge(usize),
    /// The body comes so slowly that the server does not wait for the rest.
    #[error("the request body came too slowly")]
    BodyTooSlow,
    /// A document, or an array of operations, past a limit on the work of one request.
    #[error("{0}")]
    TooComplex(Cow<'static, str>),
    /// No, or no valid, credentials.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The keys that users' tokens are checked with were never fetched.
    #[error("the keys that tokens are checked with cannot be fetched just now, try again")]
    KeysUnavailable,
    /// Not for this caller, or not on this server.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// The hash of a document that this server does not know (or forgot): the client sends the
    /// document with it.
    #[error("PersistedQueryNotFound")]
    PersistedQueryNotFound,
    /// This server keeps no documents.
    #[error("PersistedQueryNotSupported")]
    PersistedQueryNotSupported,
    /// There is no such thing, or not for this caller.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The path is right, the method is not.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// `conversation.on` is false.
    #[error("recent conversations are off: set conversation.on = true in the configuration")]
    ConversationsOff,
    /// More requests of this user, or from this address, than one may make.
    #[error("too many requests, try again in {0} s")]
    TooMany(u64),
    /// More connections, or operations on one connection, than one user may have at once.
    #[error("{0}")]
    TooManyAtOnce(Cow<'static, str>),
    /// More requests at once than there is room for.
    #[error("too many requests just now, try again")]
    Overloaded,
    /// The request took longer than the limit.
    #[error("the request took too long, try again")]
    Timeout,
    /// The database failed, or cannot be reached just now.
    #[error("{}", .0.public_text())]
    Store(#[from] StoreError),
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `extensions.code` in GraphQL.
    pub code: &'static str,
    /// Status on the legacy routes.
    pub status: StatusCode,
}

impl Error {
    /// A value of `field` that we do not take; `problem` continues the sentence that the field
    /// begins.
    pub fn bad_input(
        field: impl Into<Cow<'static, str>>,
        problem: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::BadInput {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// The table.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let (code, status) = match self {
            Self::BadInput { .. } | Self::BadRequest(_) => {
                ("BAD_USER_INPUT", StatusCode::BAD_REQUEST)
            }
            Self::BodyTooLarge(_) => ("BAD_USER_INPUT", StatusCode::PAYLOAD_TOO_LARGE),
            Self::BodyTooSlow => ("BAD_USER_INPUT", StatusCode::REQUEST_TIMEOUT),
            Self::TooComplex(_) => ("QUERY_TOO_COMPLEX", StatusCode::BAD_REQUEST),
            Self::Unauthenticated(_) => ("UNAUTHENTICATED", StatusCode::UNAUTHORIZED),
            Self::KeysUnavailable => ("SERVICE_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
            Self::Forbidden(_) => ("FORBIDDEN", StatusCode::FORBIDDEN),
            Self::PersistedQueryNotFound => ("PERSISTED_QUERY_NOT_FOUND", StatusCode::BAD_REQUEST),
            Self::PersistedQueryNotSupported => {
                ("PERSISTED_QUERY_NOT_SUPPORTED", StatusCode::BAD_REQUEST)
            }
            Self::NotFound(_) => ("NOT_FOUND", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("BAD_USER_INPUT", StatusCode::METHOD_NOT_ALLOWED),
            Self::ConversationsOff => ("CONVERSATIONS_OFF", StatusCode::BAD_REQUEST),
            Self::TooMany(_) | Self::TooManyAtOnce(_) => {
                ("RATE_LIMITED", StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Overloaded => ("OVERLOADED", StatusCode::SERVICE_UNAVAILABLE),
            Self::Timeout => ("REQUEST_TIMEOUT", StatusCode::SERVICE_UNAVAILABLE),
            Self::Store(StoreError::Contended(_)) => ("CONFLICT", StatusCode::SERVICE_UNAVAILABLE),
            Self::Store(error) if error.is_passing() => {
                ("SERVICE_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Store(_) => ("INTERNAL_SERVER_ERROR", StatusCode::INTERNAL_SERVER_ERROR),
        };
        Kind { code, status }
    }

    /// Whether the same is worth trying again: the database, or the room there is, may be back in a
    /// moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.kind().status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Seconds until it is worth trying again, for `Retry-After` and `extensions.retryAfter`.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooMany(seconds) => Some(*seconds),
            // Until other connections or operations of the same user have ended.
            Self::TooManyAtOnce(_) => Some(5),
            _ if self.is_passing() => Some(1),
            _ => None,
        }
    }

    /// Writes what only we may see to the log, once, at the border.
    pub(crate) fn log(&self) {
        if let Self::Store(error) = self {
            tracing::error!(error = %error, passing = error.is_passing(), "the database failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind, so that a new one must be put here (and thereby into the table's test).
    fn every_kind() -> Vec<(Error, &'static str, u16, &'static str)> {
        vec![
            (
                Error::bad_input("uid", "must be a string"),
                "BAD_USER_INPUT",
                400,
                "uid must be a string",
            ),
            (Error::BadRequest("no".into()), "BAD_USER_INPUT", 400, "no"),
            (
                Error::BodyTooLarge(7),
                "BAD_USER_INPUT",
                413,
                "the request body must be at most 7 bytes long",
            ),
            (
                Error::BodyTooSlow,
                "BAD_USER_INPUT",
                408,
                "the request body came too slowly",
            ),
            (
                Error::TooComplex("too deep".into()),
                "QUERY_TOO_COMPLEX",
                400,
                "too deep",
            ),
            (
                Error::Unauthenticated("a token is required"),
                "UNAUTHENTICATED",
                401,
                "a token is required",
            ),
            (
                Error::KeysUnavailable,
                "SERVICE_UNAVAILABLE",
                503,
                "the keys that tokens are checked with cannot be fetched just now, try again",
            ),
            (
                Error::Forbidden("not here".into()),
                "FORBIDDEN",
                403,
                "not here",
            ),
            (
                Error::PersistedQueryNotFound,
                "PERSISTED_QUERY_NOT_FOUND",
                400,
                "PersistedQueryNotFound",
            ),
            (
                Error::PersistedQueryNotSupported,
                "PERSISTED_QUERY_NOT_SUPPORTED",
                400,
                "PersistedQueryNotSupported",
            ),
            (
                Error::NotFound("conversation"),
                "NOT_FOUND",
                404,
                "conversation not found",
            ),
            (
                Error::MethodNotAllowed,
                "BAD_USER_INPUT",
                405,
                "method not allowed",
            ),
            (
                Error::ConversationsOff,
                "CONVERSATIONS_OFF",
                400,
                "recent conversations are off: set conversation.on = true in the configuration",
            ),
            (
                Error::TooMany(2),
                "RATE_LIMITED",
                429,
                "too many requests, try again in 2 s",
            ),
            (
                Error::TooManyAtOnce("too many".into()),
                "RATE_LIMITED",
                429,
                "too many",
            ),
            (
                Error::Overloaded,
                "OVERLOADED",
                503,
                "too many requests just now, try again",
            ),
            (
                Error::Timeout,
                "REQUEST_TIMEOUT",
                503,
                "the request took too long, try again",
            ),
            (
                Error::Store(StoreError::Unavailable("secret host".into())),
                "SERVICE_UNAVAILABLE",
                503,
                "the database cannot be reached just now, try again",
            ),
            (
                Error::Store(StoreError::Lost("2013".into())),
                "SERVICE_UNAVAILABLE",
                503,
                "the database did not confirm this, so its outcome is not known: repeating it is safe (for a message: with the same \
                 client_msg_no), try again",
            ),
            (
                Error::Store(StoreError::Contended("deadlock".into())),
                "CONFLICT",
                503,
                "too busy just now, try again",
            ),
            (
                Error::Store(StoreError::Broken("select 1".into())),
                "INTERNAL_SERVER_ERROR",
                500,
                "internal error",
            ),
        ]
    }

    #[test]
    fn limited_and_overloaded_callers_are_told_when_to_try_again() {
        for (error, seconds) in [
            (Error::TooMany(7), Some(7)),
            (Error::TooManyAtOnce("too many".into()), Some(5)),
            (Error::Overloaded, Some(1)),
            (Error::NotFound("conversation"), None),
        ] {
            assert_eq!(error.retry_after(), seconds, "{error}");
        }
    }

    #[test]
    fn every_kind_has_its_code_status_and_a_text_without_the_inside() {
        for (error, code, status, text) in every_kind() {
            assert_eq!(
                (
                    error.kind().code,
                    error.kind().status.as_u16(),
                    error.to_string().as_str()
                ),
                (code, status, text)
            );
        }
    }
}
