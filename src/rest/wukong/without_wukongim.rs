//! Routes about the work of a `WuKongIM` itself (commands, connections, lists of senders), where
//! none is behind this server. They respond as a `WuKongIM` that has nothing, where that is true.
//! Routes whose success would promise what nobody does, such as `/channel/blacklist_add`, do not
//! exist; `docs/COMPATIBILITY.md` lists them.

use axum::extract::{Request, State};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conversation::NamedChannel;
use super::parse_viewer;
use crate::auth::{Action, Caller};
use crate::error::Error;
use crate::http::read_body;
use crate::model::{ChannelRef, Uid};
use crate::rest::legacy::{ErrorResponse, JsonResponse, LenientBody, LenientQuery, OK};
use crate::state::AppState;
use crate::wukongim::dto::{MessageDto, OnlineStatusDto, StatusOk};
use crate::wukongim::parse_uids;

/// `WuKongIM`'s errors.
const ERR_SYNC_UID_EMPTY: &str = "用户uid不能为空！";
const ERR_ACK_UID_EMPTY: &str = "用户UID不能为空！";
const ERR_LIMIT_NEGATIVE: &str = "limit不能为负数！";
const ERR_LAST_SEQ_0: &str = "最后一次messageSeq不能为0！";
const ERR_CHANNEL_ID_EMPTY: &str = "channel_id不能为空！";
const ERR_CHANNEL_TYPE_0: &str = "频道类型不能为0！";
const ERR_UIDS_EMPTY: &str = "uids不能为空！";

/// The body of `POST /message/sync`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct CommandSyncBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The last command that the client has.
    #[serde(default)]
    #[schema(value_type = i64, minimum = 0, maximum = 4_294_967_295_i64, examples(0))]
    pub message_seq: u32,
    /// Maximum number of commands.
    #[serde(default)]
    #[schema(minimum = 0, examples(50))]
    pub limit: i64,
}

/// The body of `POST /message/syncack`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct CommandAckBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The last command that the client got.
    #[schema(value_type = i64, minimum = 1, maximum = 4_294_967_295_i64, examples(1))]
    pub last_message_seq: u32,
}

/// The body of `POST /channel/blacklist_remove` and `/channel/whitelist_remove`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SenderListBody {
    /// The channel's ID; for a person channel the recipient's uid.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// The users.
    #[schema(examples("u02"))]
    pub uids: Vec<String>,
}

/// The query of `GET /channel/whitelist`.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhitelistQuery {
    /// The channel's ID.
    #[param(example = "team-1")]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[serde(default)]
    #[param(maximum = 255, example = 2)]
    pub channel_type: u8,
}

/// Returns the routes.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(sync_commands))
        .routes(routes!(acknowledge_commands))
        .routes(routes!(online_status))
        .routes(routes!(system_uids))
        .routes(routes!(blacklist_remove))
        .routes(routes!(blacklist_remove_all))
        .routes(routes!(whitelist_remove))
        .routes(routes!(whitelist_remove_all))
        .routes(routes!(whitelist))
}

/// The commands for a user: none, because commands are not stored here.
#[utoipa::path(
    post,
    path = "/message/sync",
    operation_id = "syncCommands",
    request_body = CommandSyncBody,
    responses((status = 200, description = "success", body = Vec<MessageDto>), ErrorResponse)
)]
async fn sync_commands(
    caller: Caller,
    mut body: LenientBody<CommandSyncBody>,
) -> Result<JsonResponse<Vec<MessageDto>>, ErrorResponse> {
    let body = body.decode()?;
    parse_viewer(&caller, body.uid, "uid", ERR_SYNC_UID_EMPTY)?;
    if body.limit < 0 {
        return Err(Error::BadRequest(ERR_LIMIT_NEGATIVE.into()).into());
    }
    Ok(JsonResponse(Vec::new()))
}

/// Accepted for clients that acknowledge commands; has no effect.
#[utoipa::path(
    post,
    path = "/message/syncack",
    operation_id = "acknowledgeCommands",
    request_body = CommandAckBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
async fn acknowledge_commands(
    caller: Caller,
    mut body: LenientBody<CommandAckBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    let body = body.decode()?;
    parse_viewer(&caller, body.uid, "uid", ERR_ACK_UID_EMPTY)?;
    if body.last_message_seq == 0 {
        return Err(Error::BadRequest(ERR_LAST_SEQ_0.into()).into());
    }
    Ok(OK)
}

/// The connected ones of these users: none, because clients do not connect here.
#[utoipa::path(
    post,
    path = "/user/onlinestatus",
    operation_id = "getOnlineStatus",
    request_body = Vec<String>,
    responses((status = 200, description = "success", body = Vec<OnlineStatusDto>), ErrorResponse)
)]
async fn online_status(
    State(app): State<AppState>,
    caller: Caller,
    request: Request,
) -> Result<JsonResponse<Vec<OnlineStatusDto>>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let limits = &app.settings.limits;
    let body = read_body(request.into_body(), limits.body_bytes, limits).await?;
    parse_uids(&body)?;
    Ok(JsonResponse(Vec::new()))
}

/// The system users: none, because nobody needs a permission to send here.
#[utoipa::path(
    get,
    path = "/user/systemuids",
    operation_id = "listSystemUids",
    responses((status = 200, description = "success", body = Vec<String>), ErrorResponse)
)]
async fn system_uids(caller: Caller) -> Result<JsonResponse<Vec<String>>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    Ok(JsonResponse(Vec::new()))
}

/// Succeeds without an effect: blacklists are always empty.
#[utoipa::path(
    post,
    path = "/channel/blacklist_remove",
    operation_id = "removeFromBlacklist",
    request_body = SenderListBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
async fn blacklist_remove(
    caller: Caller,
    body: LenientBody<SenderListBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    remove_some(&caller, body)
}

/// Succeeds without an effect: blacklists are always empty.
#[utoipa::path(
    post,
    path = "/channel/blacklist_remove_all",
    operation_id = "clearBlacklist",
    request_body = NamedChannel,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
async fn blacklist_remove_all(
    caller: Caller,
    body: LenientBody<NamedChannel>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    remove_all(&caller, body)
}

/// Succeeds without an effect: whitelists are always empty.
#[utoipa::path(
    post,
    path = "/channel/whitelist_remove",
    operation_id = "removeFromWhitelist",
    request_body = SenderListBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
async fn whitelist_remove(
    caller: Caller,
    body: LenientBody<SenderListBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    remove_some(&caller, body)
}

/// Succeeds without an effect: whitelists are always empty.
#[utoipa::path(
    post,
    path = "/channel/whitelist_remove_all",
    operation_id = "clearWhitelist",
    request_body = NamedChannel,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
async fn whitelist_remove_all(
    caller: Caller,
    body: LenientBody<NamedChannel>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    remove_all(&caller, body)
}

/// The users who alone may send to a channel: always empty.
#[utoipa::path(
    get,
    path = "/channel/whitelist",
    operation_id = "getWhitelist",
    params(WhitelistQuery),
    responses((status = 200, description = "success", body = Vec<String>), ErrorResponse)
)]
async fn whitelist(
    caller: Caller,
    query: LenientQuery<WhitelistQuery>,
) -> Result<JsonResponse<Vec<String>>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    if query.fields.channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()).into());
    }
    Ok(JsonResponse(Vec::new()))
}

fn check_channel(channel_id: String, channel_type: u8) -> Result<(), Error> {
    if channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()));
    }
    if channel_type == 0 {
        return Err(Error::BadRequest(ERR_CHANNEL_TYPE_0.into()));
    }
    ChannelRef::parse(channel_id, i64::from(channel_type))?;
    Ok(())
}

fn remove_some(
    caller: &Caller,
    mut body: LenientBody<SenderListBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let body = body.decode()?;
    check_channel(body.channel_id, body.channel_type)?;
    if body.uids.is_empty() {
        return Err(Error::BadRequest(ERR_UIDS_EMPTY.into()).into());
    }
    for uid in body.uids {
        Uid::parse("uids", uid)?;
    }
    Ok(OK)
}

fn remove_all(
    caller: &Caller,
    mut body: LenientBody<NamedChannel>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let body = body.decode()?;
    check_channel(body.channel_id, body.channel_type)?;
    Ok(OK)
}
