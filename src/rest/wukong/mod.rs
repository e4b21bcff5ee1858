//! `WuKongIM`'s routes: their names and formats (`crate::wukongim`) are frozen, and the use cases
//! behind them are the same as GraphQL's.
//!
//! How to add a route: write a function `(core, caller, fields) → answer` in the file of its
//! family, which reads the fields, checks the caller's permission, and calls a use case; add its
//! response body to `wukongim::dto`, the function to [`routes`], and its description to
//! `rest::openapi`; test its invalid inputs in `bad_input` and its callers in `permissions`.

pub mod channel;
pub mod conversation;
pub mod datasource;
pub mod grpc;
pub mod history;
pub(crate) mod inbound;
pub mod message;
pub mod user;
mod webhook;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};

use super::legacy::ErrorResponse;
use crate::auth::{Action, Caller};
use crate::budget::turn;
use crate::error::Error;
use crate::model::Uid;
use crate::state::AppState;
use crate::wukongim::LegacyBody;

/// Reads the user of a request from `field` and checks that the caller may act for this user. An
/// empty uid is refused with `err_empty`, which is `WuKongIM`'s text.
fn parse_viewer(
    caller: &Caller,
    fields: &LegacyBody,
    field: &'static str,
    err_empty: &'static str,
) -> Result<Uid, Error> {
    let uid = fields.string(field)?;
    if uid.is_empty() {
        return Err(Error::BadRequest(err_empty.into()));
    }
    let uid = Uid::parse(field, uid)?;
    caller.check(Action::ActFor(&uid))?;
    Ok(uid)
}

async fn send_batch(
    State(app): State<AppState>,
    caller: Caller,
    fields: LegacyBody,
) -> Result<impl IntoResponse, ErrorResponse> {
    let _turn = turn().await;
    // The request itself was counted on arrival.
    let count = |messages: usize| {
        caller.user().map_or(Ok(()), |uid| {
            app.rate_limiter
                .check_user_operations(uid, messages.saturating_sub(1))
        })
    };
    Ok(message::send_batch(&app.core, &caller, &fields, count).await?)
}

/// Returns the routes.
pub fn routes() -> Router<AppState> {
    /// Makes a POST handler from a function `(core, caller, fields) → Result<answer, Error>`.
    macro_rules! legacy {
        ($call:path) => {
            post(
                |State(app): State<AppState>, caller: Caller, fields: LegacyBody| async move {
                    let _turn = turn().await;
                    Ok::<_, ErrorResponse>(
                        $call(&app.core, &caller, &fields).await?.into_response(),
                    )
                },
            )
        };
    }
    /// Makes a GET handler, whose query is read as fields; the names after the function are those
    /// of numbers.
    macro_rules! legacy_get {
        ($call:path $(, $number:literal)*) => {
            get(|State(app): State<AppState>, caller: Caller, RawQuery(query): RawQuery| async move {
                let fields = LegacyBody::from_query(&query.unwrap_or_default(), &[$($number),*])?;
                let _turn = turn().await;
                Ok::<_, ErrorResponse>($call(&app.core, &caller, &fields).await?.into_response())
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
