//! The id of a request, which finds it in the log. The client chooses it, or the server; handlers
//! find it in the request, and the answer carries it.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tower_http::request_id::{MakeRequestId, RequestId};

use crate::state::AppState;

/// The header of the request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Removes a client's id that is long or not harmless in a log, so that the request gets a new one.
pub(crate) async fn remove_unacceptable_id(mut request: Request) -> Request {
    if !has_acceptable_id(request.headers()) {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

fn has_acceptable_id(headers: &HeaderMap) -> bool {
    headers.get(REQUEST_ID).is_some_and(|id| {
        (1..=64).contains(&id.len())
            && id
                .as_bytes()
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    })
}

/// Makes ids for requests that have none.
#[derive(Clone)]
pub(crate) struct NewRequestId(pub(crate) AppState);

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&self.0.core.base.ids.request_id())
            .ok()
            .map(RequestId::new)
    }
}
