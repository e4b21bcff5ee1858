//! `WuKongIM`'s routes: their names and formats (`crate::wukongim`) are frozen, and the use cases
//! behind them are the same as GraphQL's.
//!
//! How to add a route: in the file of its family, write a struct for its body, whose fields have
//! examples, and a handler with `#[utoipa::path(…)]`, which decodes the body, checks the caller's
//! permission, and calls a use case; add its response body to `wukongim::dto`, and the handler to
//! [`routes()`]. The document at `/openapi.json` is made of these. Test its invalid inputs in
//! `bad_input` and its callers in `permissions`.

pub mod channel;
mod channel_request;
pub mod conversation;
pub mod datasource;
pub mod grpc;
pub mod history;
pub(crate) mod inbound;
pub mod lookup;
pub mod message;
pub(crate) mod proxied;
pub mod user;
mod view;
mod webhook;
pub mod without_wukongim;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Action, Caller};
use crate::error::Error;
use crate::model::Uid;
use crate::state::AppState;

/// Parses the user of a request, whose name comes from `field`, and checks that the caller may act
/// for this user. An empty uid is refused with `err_empty`, which is `WuKongIM`'s text.
fn parse_viewer(
    caller: &Caller,
    uid: String,
    field: &'static str,
    err_empty: &'static str,
) -> Result<Uid, Error> {
    if uid.is_empty() {
        return Err(Error::BadRequest(err_empty.into()));
    }
    let uid = Uid::parse(field, uid)?;
    caller.check(Action::ActFor(&uid))?;
    Ok(uid)
}

/// Returns the routes. With a proxy those are left out that a `WuKongIM` answers alone.
pub fn routes(has_proxy: bool) -> OpenApiRouter<AppState> {
    let routes = OpenApiRouter::default()
        .routes(routes!(conversation::sync::sync))
        .routes(routes!(conversation::list::channels))
        .routes(routes!(conversation::by_channel::sync_by_channels))
        .routes(routes!(conversation::by_channel::sync_messages))
        .routes(routes!(conversation::list::list))
        .routes(routes!(conversation::change::set_unread))
        .routes(routes!(conversation::change::clear_unread))
        .routes(routes!(conversation::change::delete))
        .routes(routes!(conversation::walk::list))
        .routes(routes!(conversation::walk::retry))
        .routes(routes!(conversation::walk::activate))
        .routes(routes!(channel::create))
        .routes(routes!(channel::info))
        .routes(routes!(channel::delete))
        .routes(routes!(channel::subscriber_add))
        .routes(routes!(channel::subscriber_remove))
        .routes(routes!(channel::subscriber_remove_all))
        .routes(routes!(history::message_sync))
        .routes(routes!(history::message_sync_batch))
        .routes(routes!(lookup::messages))
        .routes(routes!(lookup::last_message))
        .routes(routes!(lookup::by_client_msg_no))
        .routes(routes!(lookup::max_message_seq));
    if has_proxy {
        return routes;
    }
    routes
        .routes(routes!(message::send))
        .routes(routes!(message::send_batch))
        .routes(routes!(user::token))
        .routes(routes!(user::device_quit))
        .routes(routes!(user::system_uids_add))
        .routes(routes!(user::system_uids_remove))
}
