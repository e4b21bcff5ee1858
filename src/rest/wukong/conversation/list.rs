//! `/conversations` and `/conversation/channels`

use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::ERR_UID_EMPTY;
use crate::auth::Caller;
use crate::conversation as conversations;
use crate::rest::legacy::{ErrorResponse, LenientBody, LenientQuery, RawJsonResponse};
use crate::rest::wukong::parse_viewer;
use crate::state::AppState;
use crate::wukongim::dto::{ChannelDto, ListedConversationDto, MessageDto};

/// The query of `GET /conversations`.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The user.
    #[param(example = "u02")]
    pub uid: String,
}

/// The body of `POST /conversation/channels`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ChannelsBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
}

/// The list as v1 returns it.
#[utoipa::path(
    get,
    path = "/conversations",
    operation_id = "listConversations",
    params(ListQuery),
    responses(
        (status = 200, description = "success", body = Vec<ListedConversationDto>),
        ErrorResponse
    )
)]
pub(in crate::rest::wukong) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    query: LenientQuery<ListQuery>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let uid = parse_viewer(&caller, query.fields.uid, "uid", ERR_UID_EMPTY)?;
    let items = conversations::list_conversations_with_messages(&app.core.conversations, &uid, 0)
        .await?
        .into_iter();
    let listed = items.map(|item| ListedConversationDto {
        channel_id: item.conversation.channel_ref.channel_id,
        channel_type: item.conversation.channel_ref.channel_type.number(),
        unread: item.conversation.unread,
        timestamp: item.conversation.last_activity_at.seconds(),
        last_message: item.last_message.as_deref().map(MessageDto::from),
    });
    let listed: Vec<ListedConversationDto> = listed.collect();
    Ok(RawJsonResponse::serialise(&listed))
}

/// The channels of a user's conversations.
///
/// Person channels are named by the peer's uid.
#[utoipa::path(
    post,
    path = "/conversation/channels",
    operation_id = "listConversationChannels",
    request_body = ChannelsBody,
    responses((status = 200, description = "success", body = Vec<ChannelDto>), ErrorResponse)
)]
pub(in crate::rest::wukong) async fn channels(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<ChannelsBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let uid = parse_viewer(&caller, body.decode()?.uid, "uid", ERR_UID_EMPTY)?;
    let items = conversations::list_conversations_with_messages(&app.core.conversations, &uid, 0)
        .await?
        .into_iter();
    let names = items.map(|item| ChannelDto {
        channel_id: item.conversation.channel_ref.channel_id,
        channel_type: item.conversation.channel_ref.channel_type.number(),
    });
    let names: Vec<ChannelDto> = names.collect();
    Ok(RawJsonResponse::serialise(&names))
}
