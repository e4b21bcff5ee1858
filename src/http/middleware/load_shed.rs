//! Sheds load: requests beyond the budgets are refused before their bodies are read.

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;

use super::Interface;
use super::trusted_peers::is_trusted;
use crate::auth::Authenticator;
use crate::budget::CallerIdentity;
use crate::http::count_response_bytes;
use crate::state::AppState;

/// Reserves a slot and memory for the request, or refuses the request at once.
pub(crate) async fn load_shed<I: Interface>(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let identity = CallerIdentity {
        is_service: state
            .authenticator
            .is_service(Authenticator::credential(headers))
            || has_webhook_secret(&state, request.uri().path())
            || is_trusted::<I>(&state, &request),
        address: state.rate_limiter.client_ip(request.extensions(), headers),
        uid: None,
    };
    let reservation = match state.budgets.admit(identity) {
        Ok(reservation) => reservation,
        Err(error) => return I::refuse(headers, error),
    };
    let accepted = headers.get(header::ACCEPT).cloned();
    request.extensions_mut().insert(reservation.clone());
    let (parts, body) = reservation
        .clone()
        .scope(next.run(request))
        .await
        .into_parts();
    reservation.release_slot();
    match count_response_bytes(&reservation, body) {
        Ok(body) => Response::from_parts(parts, body),
        Err(error) => I::refuse(
            &accepted
                .map(|accepted| (header::ACCEPT, accepted))
                .into_iter()
                .collect(),
            error,
        ),
    }
}

/// Returns whether the path contains the secret of `WuKongIM`'s webhooks.
fn has_webhook_secret(state: &AppState, path: &str) -> bool {
    let secret = path
        .strip_prefix("/webhook/")
        .or_else(|| path.strip_prefix("/datasource/"));
    secret.is_some_and(|secret| state.authenticator.authenticate_webhook(secret).is_ok())
}
