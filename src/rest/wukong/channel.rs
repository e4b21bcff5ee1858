//! `/channel/…`

use axum::extract::State;

use crate::auth::{Action, Caller};
use crate::channel as channels;
use crate::rest::legacy::{ErrorResponse, JsonResponse, LenientBody, OK};
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
    mut body: LenientBody<ChannelBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let body = body.decode()?;
    channels::create_channel(&app.core.channels, &body.into_request()?).await?;
    Ok(OK)
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
    mut body: LenientBody<AddMembersBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let body = body.decode()?;
    let reset = body.reset.0;
    let (channel, uids) = body.into_members()?;
    channels::add_members(&app.core.channels, &channel, &uids, reset).await?;
    Ok(OK)
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
    mut body: LenientBody<RemoveMembersBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let (channel, uids) = body.decode()?.into_members()?;
    channels::remove_members(&app.core.channels, &channel, &uids).await?;
    Ok(OK)
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
    mut body: LenientBody<ChannelInfoBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let body = body.decode()?;
    channels::create_channel(&app.core.channels, &body.into_request()?).await?;
    Ok(OK)
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
    mut body: LenientBody<ChannelNameBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let channel = body.decode()?.into_channel()?;
    channels::delete_channel(&app.core.channels, &channel).await?;
    Ok(OK)
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
    mut body: LenientBody<ChannelNameBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let channel = body.decode()?.into_channel()?;
    channels::remove_all_members(&app.core.channels, &channel).await?;
    Ok(OK)
}
