//! Authenticates callers.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::Interface;
use super::trusted_peers::is_trusted;
use crate::auth::{Authenticator, Caller};
use crate::budget::Reservation;
use crate::state::AppState;

/// Refuses requests without a valid credential. Handlers find the [`Caller`] in the extensions of
/// the request.
pub(crate) async fn authenticate<I: Interface>(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let credential = Authenticator::credential(request.headers());
    if credential.is_none() && I::authenticates_later(request.headers()) {
        return next.run(request).await;
    }
    let address = state
        .rate_limiter
        .client_ip(request.extensions(), request.headers());
    if is_trusted::<I>(&state, &request) {
        state.record_service_address(address);
        request.extensions_mut().insert(Caller::Service);
        return next.run(request).await;
    }
    match state.authenticate_and_rate_limit(credential, address).await {
        Ok(caller) => {
            if let Some((uid, reservation)) =
                caller.user().zip(request.extensions().get::<Reservation>())
                && let Err(error) = reservation.set_user(uid.as_str())
            {
                return I::refuse(request.headers(), error);
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => I::refuse(request.headers(), error),
    }
}
