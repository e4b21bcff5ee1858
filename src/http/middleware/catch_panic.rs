//! Turns a panic into an answer, so that it ends one request and nothing else.

use std::any::Any;

use axum::http::HeaderMap;
use axum::response::Response;

use super::Interface;
use crate::error::Error;

/// Renders an internal error. The request's headers are not available here.
pub(crate) fn catch_panic<I: Interface>(_: Box<dyn Any + Send + 'static>) -> Response {
    I::refuse(&HeaderMap::new(), Error::Internal("a request panicked"))
}
