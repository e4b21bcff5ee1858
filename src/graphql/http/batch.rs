//! Batches: several operations in one request.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::format::ResponseFormat;
use super::response::{error_response, json_response};
use crate::error::Error;
use crate::graphql::operation::{GraphqlRequest, RequestContext, TransportCapabilities, prepare};

/// Runs a batch of operations one after the other, so that each sees the changes of those before
/// it.
pub(super) async fn handle_batch(
    context: &RequestContext,
    headers: &HeaderMap,
    format: ResponseFormat,
    body: &[u8],
) -> Response {
    let limit = context.state.app.settings.limits.batch_operations;
    if limit < 2 {
        let text = "the body must be a JSON object: limits.batch_operations allows no arrays";
        return error_response(headers, &Error::BadRequest(text.into()));
    }
    let operations: Vec<GraphqlRequest> = match serde_json::from_slice(body) {
        Ok(operations) => operations,
        Err(_) => {
            return error_response(
                headers,
                &Error::BadRequest(
                    "the body must be a JSON array of objects, each with query".into(),
                ),
            );
        }
    };
    if operations.is_empty() {
        return error_response(
            headers,
            &Error::BadRequest("the body must be a JSON array of at least one object".into()),
        );
    }
    if operations.len() > limit {
        let text = format!("the body must be a JSON array of at most {limit} operations");
        return error_response(headers, &Error::TooComplex(text.into()));
    }
    if let Some(uid) = context.caller.user() {
        // The first operation was counted with the HTTP request.
        let counted = context
            .state
            .app
            .rate_limiter
            .check_user_operations(uid, operations.len() - 1);
        if let Err(error) = counted {
            return error_response(headers, &error);
        }
    }
    let mut body = Vec::from(b"[");
    for request in operations {
        if body.len() > 1 {
            body.push(b',');
        }
        let result = match prepare(
            &context.state,
            request,
            TransportCapabilities::SingleResponse,
        ) {
            Ok(prepared) => prepared.run(context).await,
            Err(result) => *result,
        };
        body.append(&mut result.body());
    }
    body.push(b']');
    json_response(format, StatusCode::OK, body)
}
