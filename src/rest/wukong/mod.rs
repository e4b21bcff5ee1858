//! `WuKongIM`'s routes: frozen names, our own semantics behind them.
//!
//! How to add a route: a function `(core, caller, fields) → answer` in the file of its family, which reads the fields, asks whether
//! the caller may, and calls a use case; its line in [`routes`]; its path in `rest::openapi`; its wrong inputs in
//! `tests/bad_input.rs`, and who may call it in `tests/permissions.rs`.

pub mod channel;
pub mod conversation;
pub mod message;
pub mod shapes;
pub mod webhook;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::post;

use super::legacy::{Fields, Refusal};
use crate::app::App;
use crate::auth::Caller;

/// The routes at the root.
pub fn routes() -> Router<App> {
    /// A handler of `(core, caller, fields) → Result<answer, Error>`.
    macro_rules! legacy {
        ($call:path) => {
            post(|State(app): State<App>, caller: Caller, fields: Fields| async move {
                Ok::<_, Refusal>($call(&app.core, &caller, &fields).await?.into_response())
            })
        };
    }
    Router::new()
        .route("/conversation/sync", legacy!(conversation::sync))
        .route("/conversations/setUnread", legacy!(conversation::set_unread))
        .route("/conversations/clearUnread", legacy!(conversation::clear_unread))
        .route("/conversations/delete", legacy!(conversation::delete))
        .route("/message/send", legacy!(message::send))
        .route("/channel", legacy!(channel::create))
        .route("/channel/subscriber_add", legacy!(channel::subscriber_add))
        .route("/channel/subscriber_remove", legacy!(channel::subscriber_remove))
}
