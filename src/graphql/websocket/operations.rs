//! The operations of a connection.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::time::timeout;
use tokio_stream::StreamMap;

use crate::budget::CallerIdentity;
use crate::error::Error;
use crate::graphql::operation::{
    ExecutionResult, GraphqlRequest, RequestContext, TransportCapabilities, prepare,
};

/// An event of an operation.
pub(super) enum OperationEvent {
    Next(Box<ExecutionResult>),
    Complete,
}

pub(super) type Operations = StreamMap<String, Pin<Box<dyn Stream<Item = OperationEvent> + Send>>>;

/// Starts an operation and returns its events.
pub(super) fn start_operation(
    context: &RequestContext,
    identity: CallerIdentity,
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
            .admit_subscription(identity)
            .map_err(refused)?;
        let results = reservation.scope_stream(|| prepared.stream(context));
        return Ok(catch_panics(
            results
                .map(|result| OperationEvent::Next(Box::new(result)))
                .chain(complete),
        )
        .boxed());
    }
    // A query or a mutation is limited like a request of its own: it takes a request
    // slot and has a timeout.
    let reservation = context.state.app.budgets.admit(identity).map_err(refused)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::websocket::protocol::error_message;

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
