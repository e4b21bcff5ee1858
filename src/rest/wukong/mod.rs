//! `WuKongIM`'s routes: frozen names, our own semantics behind them.
//!
//! How to add a route: a function `(core, caller, fields) → answer` in the file of its family,
//! which reads the fields, asks whether the caller may, and calls a use case; its line in
//! [`routes`]; its path in `rest::openapi`; its wrong inputs in `tests/bad_input.rs`, and who may
//! call it in `tests/permissions.rs`.

pub mod channel;
pub mod conversation;
pub mod datasource;
pub(crate) mod feed;
pub mod grpc;
pub mod history;
pub mod message;
pub mod shapes;
pub mod user;
pub mod webhook;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};

use super::legacy::{Fields, Refusal};
use crate::app::App;
use crate::auth::{Action, Caller};
use crate::budget::turn;
use crate::error::Error;
use crate::ids::Uid;

/// Whom a request is about, named in `field`, if the caller may act for that user; nobody is
/// refused with `WuKongIM`'s words.
fn viewer(
    caller: &Caller,
    fields: &Fields,
    field: &'static str,
    nobody: &'static str,
) -> Result<Uid, Error> {
    let uid = fields.string(field)?;
    if uid.is_empty() {
        return Err(Error::BadRequest(nobody.into()));
    }
    let uid = Uid::parse(field, uid)?;
    caller.check(Action::ActFor(&uid))?;
    Ok(uid)
}

async fn send_batch(
    State(app): State<App>,
    caller: Caller,
    fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let _turn = turn().await;
    // The request itself was counted when it came.
    let count = |messages: usize| {
        caller.user().map_or(Ok(()), |uid| {
            app.rates.check_user_for(uid, messages.saturating_sub(1))
        })
    };
    Ok(message::send_batch(&app.core, &caller, &fields, count).await?)
}

/// The routes at the root.
pub fn routes() -> Router<App> {
    /// A handler of `(core, caller, fields) → Result<answer, Error>`.
    macro_rules! legacy {
        ($call:path) => {
            post(
                |State(app): State<App>, caller: Caller, fields: Fields| async move {
                    let _turn = turn().await;
                    Ok::<_, Refusal>($call(&app.core, &caller, &fields).await?.into_response())
                },
            )
        };
    }
    /// The same for a GET, whose query is read as fields; the names after it are those of numbers.
    macro_rules! legacy_get {
        ($call:path $(, $number:literal)*) => {
            get(|State(app): State<App>, caller: Caller, RawQuery(query): RawQuery| async move {
                let fields = Fields::from_query(&query.unwrap_or_default(), &[$($number),*])?;
                let _turn = turn().await;
                Ok::<_, Refusal>($call(&app.core, &caller, &fields).await?.into_response())
            })
        };
    }
    Router::new()
        .route("/conversation/sync", legacy!(conversation::sync))
        .route("/conversation/channels", legacy!(conversation::channels))
        .route(
            "/conversation/syncByChannels",
            legacy!(conversation::sync_by_channels),
        )
        .route(
            "/conversation/syncMessages",
            legacy!(conversation::sync_messages),
        )
        .route("/conversations", legacy_get!(conversation::list))
        .route(
            "/conversations/setUnread",
            legacy!(conversation::set_unread),
        )
        .route(
            "/conversations/clearUnread",
            legacy!(conversation::clear_unread),
        )
        .route("/conversations/delete", legacy!(conversation::delete))
        .route("/message/send", legacy!(message::send))
        .route("/message/sendbatch", post(send_batch))
        .route("/channel", legacy!(channel::create))
        .route("/channel/info", legacy!(channel::info))
        .route("/channel/delete", legacy!(channel::delete))
        .route("/channel/messagesync", legacy!(history::message_sync))
        .route(
            "/channel/max_message_seq",
            legacy_get!(history::max_message_seq, "channel_type"),
        )
        .route(
            "/channel/subscriber_remove_all",
            legacy!(channel::subscriber_remove_all),
        )
        .route("/user/token", legacy!(user::token))
        .route("/user/device_quit", legacy!(user::device_quit))
        .route("/user/systemuids_add", legacy!(user::system_uids))
        .route("/user/systemuids_remove", legacy!(user::system_uids))
        .route("/channel/subscriber_add", legacy!(channel::subscriber_add))
        .route(
            "/channel/subscriber_remove",
            legacy!(channel::subscriber_remove),
        )
}
