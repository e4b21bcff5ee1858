//! `/channel/…`

use axum::extract::State;
use axum::response::Response;

use super::channel_request::ChannelRequest;
use crate::auth::Caller;
use crate::proxy::ChannelChange;
use crate::rest::legacy::ErrorResponse;
use crate::state::AppState;
use crate::wukongim::dto::StatusOk;
use crate::wukongim::{
    AddMembersBody, ChannelBody, ChannelInfoBody, ChannelNameBody, RemoveMembersBody,
};

/// Creates or changes a channel.
#[utoipa::path(
    post,
    path = "/channel",
    operation_id = "createChannel",
    request_body = ChannelBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn create(
    State(app): State<AppState>,
    caller: Caller,
    request: ChannelRequest<ChannelBody>,
) -> Result<Response, ErrorResponse> {
    request
        .apply(&app, &caller, |body| {
            Ok(ChannelChange::Create(body.into_request()?))
        })
        .await
}

/// Adds members.
#[utoipa::path(
    post,
    path = "/channel/subscriber_add",
    operation_id = "addMembers",
    request_body = AddMembersBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn subscriber_add(
    State(app): State<AppState>,
    caller: Caller,
    request: ChannelRequest<AddMembersBody>,
) -> Result<Response, ErrorResponse> {
    request
        .apply(&app, &caller, |body| {
            let reset = body.reset.0;
            let (channel, uids) = body.into_members()?;
            Ok(ChannelChange::AddMembers {
                channel,
                uids,
                reset,
            })
        })
        .await
}

/// Removes members.
#[utoipa::path(
    post,
    path = "/channel/subscriber_remove",
    operation_id = "removeMembers",
    request_body = RemoveMembersBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn subscriber_remove(
    State(app): State<AppState>,
    caller: Caller,
    request: ChannelRequest<RemoveMembersBody>,
) -> Result<Response, ErrorResponse> {
    request
        .apply(&app, &caller, |body| {
            let (channel, uids) = body.into_members()?;
            Ok(ChannelChange::RemoveMembers { channel, uids })
        })
        .await
}

/// Sets the marks of a channel.
#[utoipa::path(
    post,
    path = "/channel/info",
    operation_id = "setChannelInfo",
    request_body = ChannelInfoBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn info(
    State(app): State<AppState>,
    caller: Caller,
    request: ChannelRequest<ChannelInfoBody>,
) -> Result<Response, ErrorResponse> {
    request
        .apply(&app, &caller, |body| {
            Ok(ChannelChange::Create(body.into_request()?))
        })
        .await
}

/// Deletes a channel; its conversations disappear from all lists.
#[utoipa::path(
    post,
    path = "/channel/delete",
    operation_id = "deleteChannel",
    request_body = ChannelNameBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    request: ChannelRequest<ChannelNameBody>,
) -> Result<Response, ErrorResponse> {
    request
        .apply(&app, &caller, |body| {
            Ok(ChannelChange::Delete(body.into_channel()?))
        })
        .await
}

/// Removes all members; the channel stays.
#[utoipa::path(
    post,
    path = "/channel/subscriber_remove_all",
    operation_id = "removeAllMembers",
    request_body = ChannelNameBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn subscriber_remove_all(
    State(app): State<AppState>,
    caller: Caller,
    request: ChannelRequest<ChannelNameBody>,
) -> Result<Response, ErrorResponse> {
    request
        .apply(&app, &caller, |body| {
            Ok(ChannelChange::RemoveAllMembers(body.into_channel()?))
        })
        .await
}
