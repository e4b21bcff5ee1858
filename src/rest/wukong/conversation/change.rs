//! `/conversations/setUnread`, `/conversations/clearUnread` and `/conversations/delete`

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::ERR_UID_EMPTY;
use crate::auth::{Action, Caller};
use crate::conversation as conversations;
use crate::error::Error;
use crate::model::{ChannelRef, Seq, Uid};
use crate::rest::legacy::{ErrorResponse, JsonResponse, LenientBody, OK};
use crate::state::AppState;
use crate::wukongim::dto::StatusOk;

/// The body of `POST /conversations/setUnread`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SetUnreadBody {
    /// The new unread count.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2_147_483_647, examples(0))]
    pub unread: i64,
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The channel's ID; for a person channel the peer's uid.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// The last message that the request covers; 0 or missing: all messages.
    #[serde(default)]
    #[schema(value_type = i64, minimum = 0, maximum = 4_294_967_295_i64, examples(0))]
    pub message_seq: u32,
}

/// The body of `POST /conversations/clearUnread` and `/conversations/delete`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct TargetBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The channel's ID; for a person channel the peer's uid.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// The last message that the request covers; 0 or missing: all messages.
    #[serde(default)]
    #[schema(value_type = i64, minimum = 0, maximum = 4_294_967_295_i64, examples(0))]
    pub message_seq: u32,
}

/// Reads the user, the channel, and the seq up to which to read or delete (0 or missing: all
/// messages). The caller must be allowed to act for the user; an empty uid is refused with the
/// given text, which is `WuKongIM`'s.
pub(super) fn parse_target(
    caller: &Caller,
    target: TargetBody,
    err_uid_empty: &'static str,
) -> Result<(Uid, ChannelRef, Option<Seq>), Error> {
    let up_to = Some(Seq::from(target.message_seq)).filter(|seq| *seq > Seq::ZERO);
    if target.uid.is_empty() {
        return Err(Error::BadRequest(err_uid_empty.into()));
    }
    if target.channel_id.is_empty() || target.channel_type == 0 {
        return Err(Error::BadRequest(
            "channel_id or channel_type cannot be empty".into(),
        ));
    }
    let uid = Uid::parse("uid", target.uid)?;
    caller.check(Action::ActFor(&uid))?;
    Ok((
        uid,
        ChannelRef::parse(target.channel_id, i64::from(target.channel_type))?,
        up_to,
    ))
}

/// Turns a missing conversation into a success: on these routes there is nothing to change then.
pub(super) fn ok_if_absent<T>(
    result: Result<T, Error>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    match result {
        Ok(_) | Err(Error::NotFound(_)) => Ok(OK),
        Err(error) => Err(error.into()),
    }
}

/// Sets the unread count.
#[utoipa::path(
    post,
    path = "/conversations/setUnread",
    operation_id = "setUnread",
    request_body = SetUnreadBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(in crate::rest::wukong) async fn set_unread(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<SetUnreadBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    let body = body.decode()?;
    let target = TargetBody {
        uid: body.uid,
        channel_id: body.channel_id,
        channel_type: body.channel_type,
        message_seq: body.message_seq,
    };
    let (uid, channel, up_to) = parse_target(&caller, target, "UID cannot be empty")?;
    ok_if_absent(
        conversations::set_unread(&app.core.conversations, &uid, &channel, body.unread, up_to)
            .await,
    )
}

/// Marks a conversation as read.
#[utoipa::path(
    post,
    path = "/conversations/clearUnread",
    operation_id = "clearUnread",
    request_body = TargetBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(in crate::rest::wukong) async fn clear_unread(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<TargetBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    let (uid, channel, up_to) = parse_target(&caller, body.decode()?, ERR_UID_EMPTY)?;
    ok_if_absent(conversations::set_unread(&app.core.conversations, &uid, &channel, 0, up_to).await)
}

/// Deletes a conversation up to its last message.
#[utoipa::path(
    post,
    path = "/conversations/delete",
    operation_id = "deleteConversation",
    request_body = TargetBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(in crate::rest::wukong) async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<TargetBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    let (uid, channel, up_to) = parse_target(&caller, body.decode()?, "Uid cannot be empty")?;
    ok_if_absent(
        conversations::delete_conversation(&app.core.conversations, &uid, &channel, up_to).await,
    )
}
