//! All errors of use cases in one table: kind → GraphQL code → HTTP status. Both interfaces use it.

use std::borrow::Cow;

use axum::http::StatusCode;

use crate::model::InvalidValue;
use crate::store::StoreError;
use crate::telemetry::text_with_sources;

/// An error of a use case.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An invalid value. `field` has the name of the legacy interface.
    #[error("{field} {problem}")]
    BadInput {
        /// Name of the field in `snake_case`; GraphQL converts it to `camelCase`.
        field: Cow<'static, str>,
        /// The problem, as the rest of a sentence that begins with the field.
        problem: Cow<'static, str>,
    },
    /// An invalid request as a whole, or a text that `WuKongIM` defines.
    #[error("{0}")]
    BadRequest(Cow<'static, str>),
    /// The body is larger than the limit.
    #[error("the request body must be at most {0} bytes long")]
    BodyTooLarge(usize),
    /// The body arrives too slowly.
    #[error("the request body came too slowly")]
    BodyTooSlow,
    /// A document, or an array of operations, exceeds a limit on the work of one request.
    #[error("{0}")]
    TooComplex(Cow<'static, str>),
    /// Missing or invalid credentials.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The keys for checking users' tokens were never fetched.
    #[error("the keys for checking tokens cannot be fetched just now, try again")]
    KeysUnavailable,
    /// Not allowed for this caller, or disabled on this server.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// The server does not know (or forgot) the document with this hash. The client repeats the
    /// request with the document.
    #[error("PersistedQueryNotFound")]
    PersistedQueryNotFound,
    /// This server does not store documents.
    #[error("PersistedQueryNotSupported")]
    PersistedQueryNotSupported,
    /// The object does not exist, or the caller may not see it.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The path exists, but not with this method.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// `conversation.on` is false.
    #[error("recent conversations are off: set conversation.on = true in the configuration")]
    ConversationsOff,
    /// The user or the address exceeded its request rate. Contains the seconds to wait.
    #[error("too many requests, try again in {0} s")]
    RateLimited(u64),
    /// The user exceeded a limit on concurrent connections, operations or memory.
    #[error("{0}")]
    TooManyAtOnce(Cow<'static, str>),
    /// The server exceeded a limit on concurrent requests or memory.
    #[error("too many requests just now, try again")]
    Overloaded,
    /// A server to which requests are forwarded did not take this one. The text names the key of
    /// its address in the configuration, and has no URL.
    #[error("{0}")]
    ForwardFailed(Cow<'static, str>),
    /// A request that a recents server has forwarded came to a server that forwards, too.
    #[error(
        "this request was forwarded by a recents server already: {0} there leads back to a server that \
         forwards"
    )]
    ForwardedAlready(&'static str),
    /// The request exceeded its time limit.
    #[error("the request took too long, try again")]
    Timeout,
    /// The `WuKongIM` behind this server cannot be reached, or failed.
    #[error("the WuKongIM behind this server cannot be reached just now, try again")]
    WukongimUnavailable,
    /// It did not answer in time.
    #[error("the WuKongIM behind this server did not answer in time, try again")]
    WukongimTimeout,
    /// It refused a change. Contains its reason.
    #[error("the WuKongIM behind this server refused this: {0}")]
    WukongimRefused(String),
    /// The request was passed on by a recents before.
    #[error(
        "this request has passed a recents already: proxy.wukongim_url must lead to a WuKongIM"
    )]
    WukongimLoop,
    /// A request that is not passed on.
    #[error("{0}")]
    NotProxied(Cow<'static, str>),
    /// A database error.
    #[error("{}", .0.public_text())]
    Store(#[from] StoreError),
    /// A mistake in this program, such as a panic. Contains the text for the log.
    #[error("internal error")]
    Internal(&'static str),
}

impl From<InvalidValue> for Error {
    fn from(InvalidValue { field, problem }: InvalidValue) -> Self {
        Self::bad_input(field, problem)
    }
}

/// GraphQL code and HTTP status of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorKind {
    /// `extensions.code` in GraphQL.
    pub code: &'static str,
    /// HTTP status on the legacy routes.
    pub status: StatusCode,
}

impl Error {
    /// Creates an error for an invalid value of `field`; `problem` is the rest of a sentence that
    /// begins with the field.
    pub fn bad_input(
        field: impl Into<Cow<'static, str>>,
        problem: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::BadInput {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// Returns the code and the status.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
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
            Self::RateLimited(_) | Self::TooManyAtOnce(_) => {
                ("RATE_LIMITED", StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Overloaded => ("OVERLOADED", StatusCode::SERVICE_UNAVAILABLE),
            Self::ForwardFailed(_) => ("SERVICE_UNAVAILABLE", StatusCode::BAD_GATEWAY),
            Self::ForwardedAlready(_) => ("BAD_USER_INPUT", StatusCode::LOOP_DETECTED),
            Self::Timeout => ("REQUEST_TIMEOUT", StatusCode::SERVICE_UNAVAILABLE),
            Self::WukongimUnavailable => ("SERVICE_UNAVAILABLE", StatusCode::BAD_GATEWAY),
            Self::WukongimTimeout => ("REQUEST_TIMEOUT", StatusCode::GATEWAY_TIMEOUT),
            Self::WukongimRefused(_) => ("BAD_USER_INPUT", StatusCode::BAD_REQUEST),
            Self::WukongimLoop => ("BAD_USER_INPUT", StatusCode::LOOP_DETECTED),
            Self::NotProxied(_) => ("BAD_USER_INPUT", StatusCode::NOT_IMPLEMENTED),
            Self::Store(StoreError::Conflict(_)) => ("CONFLICT", StatusCode::SERVICE_UNAVAILABLE),
            Self::Store(error) if error.is_transient() => {
                ("SERVICE_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Store(_) | Self::Internal(_) => {
                ("INTERNAL_SERVER_ERROR", StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        ErrorKind { code, status }
    }

    /// Returns whether the same request may succeed later: the database, the server or the
    /// `WuKongIM` behind it may recover.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::BAD_GATEWAY,
            StatusCode::GATEWAY_TIMEOUT,
        ]
        .contains(&self.kind().status)
    }

    /// Returns the seconds to wait before a retry, for `Retry-After` and `extensions.retryAfter`.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited(seconds) => Some(*seconds),
            // Until other connections or operations of the same user have ended.
            Self::TooManyAtOnce(_) => Some(5),
            _ if self.is_transient() => Some(1),
            _ => None,
        }
    }

    /// Logs internal details that clients must not see. Called once, where the response leaves.
    pub(crate) fn log(&self) {
        match self {
            Self::Store(error) => {
                tracing::error!(
                    error = %text_with_sources(error),
                    transient = error.is_transient(),
                    "database error"
                );
            }
            Self::Internal(reason) => tracing::error!("{reason}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_log::capture_log;

    /// Returns the log lines of an error.
    fn logged(error: &Error) -> String {
        let (log, _guard) = capture_log();
        error.log();
        log.text()
    }

    #[test]
    fn log_of_a_database_error_has_its_text() {
        let line = logged(&Error::Store(StoreError::Unavailable("no route".into())));
        assert!(
            line.contains("database error error=unavailable: no route transient=true"),
            "{line}"
        );
    }

    #[test]
    fn log_of_an_internal_error_says_what_happened() {
        let line = logged(&Error::Internal("a request panicked"));
        assert!(line.contains("a request panicked"), "{line}");
        assert!(!line.contains("database"), "{line}");
        assert_eq!(logged(&Error::Timeout), "");
    }

    /// One error of each kind: a new kind must be added here, and is thereby tested.
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
                "the keys for checking tokens cannot be fetched just now, try again",
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
                Error::RateLimited(2),
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
                Error::ForwardFailed("ingest.forward_url answered with status 500".into()),
                "SERVICE_UNAVAILABLE",
                502,
                "ingest.forward_url answered with status 500",
            ),
            (
                Error::ForwardedAlready("ingest.forward_url"),
                "BAD_USER_INPUT",
                508,
                "this request was forwarded by a recents server already: ingest.forward_url there leads back to a \
                 server that forwards",
            ),
            (
                Error::Timeout,
                "REQUEST_TIMEOUT",
                503,
                "the request took too long, try again",
            ),
            (
                Error::WukongimUnavailable,
                "SERVICE_UNAVAILABLE",
                502,
                "the WuKongIM behind this server cannot be reached just now, try again",
            ),
            (
                Error::WukongimTimeout,
                "REQUEST_TIMEOUT",
                504,
                "the WuKongIM behind this server did not answer in time, try again",
            ),
            (
                Error::WukongimRefused("频道ID不能为空！".to_owned()),
                "BAD_USER_INPUT",
                400,
                "the WuKongIM behind this server refused this: 频道ID不能为空！",
            ),
            (
                Error::WukongimLoop,
                "BAD_USER_INPUT",
                508,
                "this request has passed a recents already: proxy.wukongim_url must lead to a WuKongIM",
            ),
            (
                Error::NotProxied("not passed on".into()),
                "BAD_USER_INPUT",
                501,
                "not passed on",
            ),
            (
                Error::Store(StoreError::Unavailable("secret host".into())),
                "SERVICE_UNAVAILABLE",
                503,
                "the database cannot be reached just now, try again",
            ),
            (
                Error::Store(StoreError::ConnectionLost("2013".into())),
                "SERVICE_UNAVAILABLE",
                503,
                "the database did not confirm this, so its outcome is not known: repeating it is safe (for a message: with the same \
                 client_msg_no), try again",
            ),
            (
                Error::Store(StoreError::Conflict("deadlock".into())),
                "CONFLICT",
                503,
                "too busy just now, try again",
            ),
            (
                Error::Store(StoreError::Internal("select 1".into())),
                "INTERNAL_SERVER_ERROR",
                500,
                "internal error",
            ),
            (
                Error::Internal("a request panicked"),
                "INTERNAL_SERVER_ERROR",
                500,
                "internal error",
            ),
        ]
    }

    #[test]
    fn rate_limited_and_overloaded_errors_have_retry_after() {
        for (error, seconds) in [
            (Error::RateLimited(7), Some(7)),
            (Error::TooManyAtOnce("too many".into()), Some(5)),
            (Error::Overloaded, Some(1)),
            (Error::WukongimUnavailable, Some(1)),
            (Error::WukongimTimeout, Some(1)),
            (Error::NotFound("conversation"), None),
        ] {
            assert_eq!(error.retry_after(), seconds, "{error}");
        }
    }

    #[test]
    fn every_kind_has_code_status_and_public_text() {
        for (error, code, status, text) in every_kind() {
            assert_eq!(
                (
                    error.kind().code,
                    error.kind().status.as_u16(),
                    error.to_string().as_str()
                ),
                (code, status, text),
                "{error:?}"
            );
        }
    }
}
