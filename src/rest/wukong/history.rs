//! `/channel/messagesync` and `/channel/max_message_seq`: a channel's messages, page by page.

use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::parse_viewer;
use crate::auth::Caller;
use crate::error::Error;
use crate::message::{AnswerSizeLimit, HistoryRequest, list_history};
use crate::model::{ChannelRef, Seq};
use crate::rest::legacy::{
    ErrorResponse, JsonResponse, LenientBody, LenientQuery, RawJsonResponse,
};
use crate::state::AppState;
use crate::wukongim::Flag;
use crate::wukongim::dto::{HistoryDto, MaxSeqDto, MessageDto};

/// `WuKongIM` v2's errors for a request without a user, and for one without a channel.
const ERR_LOGIN_UID_EMPTY: &str = "login_uid不能为空！";
const ERR_CHANNEL_ID_EMPTY: &str = "channel_id不能为空！";
/// Maximum number of messages of a page.
const MAX_LIMIT: i64 = 10_000;

/// The body of `POST /channel/messagesync`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct MessageSyncBody {
    /// The channel's ID; for a person channel the peer's uid.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// The seq of the first message of the page, which is included.
    #[serde(default)]
    #[schema(value_type = i64, minimum = 0, maximum = 4_294_967_295_i64, examples(0))]
    pub start_message_seq: u32,
    /// The seq where the page ends, which is not included; 0 for both: the latest messages.
    #[serde(default)]
    #[schema(value_type = i64, minimum = 0, maximum = 4_294_967_295_i64, examples(0))]
    pub end_message_seq: u32,
    /// Maximum number of messages: at least 1, and 10000 for any larger number.
    #[schema(minimum = 1, examples(20))]
    pub limit: i64,
    /// 0 for older messages, 1 for newer ones.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub pull_mode: Flag,
    /// The user who reads.
    #[schema(examples("u02"))]
    pub login_uid: String,
}

/// The query of `GET /channel/max_message_seq`.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MaxMessageSeqQuery {
    /// The channel's ID; for a person channel the peer's uid.
    #[param(example = "team-1")]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[param(maximum = 255, example = 2)]
    pub channel_type: u8,
    /// The user who reads.
    #[param(example = "u02")]
    pub login_uid: String,
}

/// A page of a channel's messages.
///
/// The result has the messages that the user may see; a service that names a user who was never in
/// the channel gets all messages.
#[utoipa::path(
    post,
    path = "/channel/messagesync",
    operation_id = "syncChannelMessages",
    request_body = MessageSyncBody,
    responses((status = 200, description = "success", body = HistoryDto), ErrorResponse)
)]
pub(super) async fn message_sync(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<MessageSyncBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let core = &app.core;
    let body = body.decode()?;
    let (channel_id, channel_type) = (body.channel_id, body.channel_type);
    let (start, end) = (
        Seq::from(body.start_message_seq),
        Seq::from(body.end_message_seq),
    );
    let (limit, newer) = (body.limit, body.pull_mode.0);
    if channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()).into());
    }
    let uid = parse_viewer(&caller, body.login_uid, "login_uid", ERR_LOGIN_UID_EMPTY)?;
    if limit <= 0 {
        return Err(Error::bad_input("limit", format!("must be between 1 and {MAX_LIMIT}")).into());
    }
    let empty = HistoryDto {
        start_message_seq: start.0,
        end_message_seq: end.0,
        more: 0,
        messages: Vec::new(),
    };
    if start == Seq::ZERO && end > Seq::ZERO {
        return Ok(RawJsonResponse::serialise(&empty));
    }
    // Older: from the start down to the end, newest first. Newer: from the start up to the end.
    let (after, before, newest) = match (start, newer) {
        (Seq::ZERO, _) => (None, None, true),
        (_, true) => (
            Some(start.previous()),
            (end > Seq::ZERO).then_some(end),
            false,
        ),
        (_, false) => ((end > Seq::ZERO).then_some(end), Some(start.next()), true),
    };
    let request = HistoryRequest {
        uid,
        channel: ChannelRef::parse(channel_id, i64::from(channel_type))?,
        after,
        before,
        limit: u32::try_from(limit.min(MAX_LIMIT)).unwrap_or_default(),
        newest,
        as_service: caller.user().is_none(),
    };
    let history = match list_history(
        &core.messages,
        &request,
        &AnswerSizeLimit::new(core.base.limits.answer_bytes),
    )
    .await
    {
        Ok(page) => HistoryDto {
            // `has_next` would also count messages beyond the given end.
            more: u8::from(page.is_cut),
            messages: page.messages.iter().map(MessageDto::from).collect(),
            ..empty
        },
        Err(Error::NotFound(_)) => empty,
        Err(error) => return Err(error.into()),
    };
    Ok(RawJsonResponse::serialise(&history))
}

/// A channel's largest message seq.
#[utoipa::path(
    get,
    path = "/channel/max_message_seq",
    operation_id = "getMaxMessageSeq",
    params(MaxMessageSeqQuery),
    responses((status = 200, description = "success", body = MaxSeqDto), ErrorResponse)
)]
pub(super) async fn max_message_seq(
    State(app): State<AppState>,
    caller: Caller,
    query: LenientQuery<MaxMessageSeqQuery>,
) -> Result<JsonResponse<MaxSeqDto>, ErrorResponse> {
    let core = &app.core;
    let MaxMessageSeqQuery {
        channel_id,
        channel_type,
        login_uid,
    } = query.fields;
    if channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()).into());
    }
    let request = HistoryRequest {
        uid: parse_viewer(&caller, login_uid, "login_uid", ERR_LOGIN_UID_EMPTY)?,
        channel: ChannelRef::parse(channel_id, i64::from(channel_type))?,
        after: None,
        before: None,
        limit: 1,
        newest: true,
        as_service: caller.user().is_none(),
    };
    match list_history(
        &core.messages,
        &request,
        &AnswerSizeLimit::new(core.base.limits.answer_bytes),
    )
    .await
    {
        Ok(page) => Ok(JsonResponse(MaxSeqDto {
            message_seq: page.messages.last().map_or(0, |message| message.seq.0),
        })),
        Err(Error::NotFound(_)) => Ok(JsonResponse(MaxSeqDto { message_seq: 0 })),
        Err(error) => Err(error.into()),
    }
}
