//! `/channel/messagesync` and `/channel/max_message_seq`: a channel's messages, page by page.

use super::parse_viewer;
use crate::auth::Caller;
use crate::error::Error;
use crate::message::{AnswerSizeLimit, HistoryRequest, list_history};
use crate::model::ChannelRef;
use crate::rest::legacy::JsonResponse;
use crate::services::Services;
use crate::wukongim::LegacyBody;
use crate::wukongim::dto::{HistoryDto, MaxSeqDto, MessageDto};

/// `WuKongIM` v2's errors for a request without a user, and for one without a channel.
const ERR_LOGIN_UID_EMPTY: &str = "login_uid不能为空！";
const ERR_CHANNEL_ID_EMPTY: &str = "channel_id不能为空！";
/// Maximum number of messages of a page.
const MAX_LIMIT: i64 = 10_000;

/// Handles `POST /channel/messagesync`. `pull_mode` 0 returns older messages, 1 newer ones; the
/// start is included, the end is not; 0 for both returns the latest messages. The result has the
/// messages that the user may see; a service that names a user who was never in the channel gets
/// all messages.
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`], [`Error::ConversationsOff`],
/// [`Error::Store`].
pub async fn message_sync(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<HistoryDto>, Error> {
    let (channel_id, channel_type) = (fields.string("channel_id")?, fields.uint8("channel_type")?);
    let (start, end) = (
        i64::from(fields.uint32("start_message_seq")?),
        i64::from(fields.uint32("end_message_seq")?),
    );
    let limit = fields.int64("limit")?;
    let newer = fields.flag("pull_mode")?;
    // Types are checked before missing fields, as in WuKongIM.
    fields.string("login_uid")?;
    if channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()));
    }
    let uid = parse_viewer(caller, fields, "login_uid", ERR_LOGIN_UID_EMPTY)?;
    if limit <= 0 {
        return Err(Error::bad_input(
            "limit",
            format!("must be between 1 and {MAX_LIMIT}"),
        ));
    }
    let empty = HistoryDto {
        start_message_seq: start,
        end_message_seq: end,
        more: 0,
        messages: Vec::new(),
    };
    if start == 0 && end > 0 {
        return Ok(JsonResponse(empty));
    }
    // Older: from the start down to the end, newest first. Newer: from the start up to the end.
    let (after, before, newest) = match (start, newer) {
        (0, _) => (None, None, true),
        (_, true) => (Some(start - 1), (end > 0).then_some(end), false),
        (_, false) => ((end > 0).then_some(end), Some(start + 1), true),
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
    match list_history(
        &core.messages,
        &request,
        &AnswerSizeLimit::new(core.base.limits.answer_bytes),
    )
    .await
    {
        Ok(page) => {
            Ok(JsonResponse(HistoryDto {
                // `has_next` would also count messages beyond the given end.
                more: u8::from(page.is_cut),
                messages: page.messages.iter().map(MessageDto::from).collect(),
                ..empty
            }))
        }
        Err(Error::NotFound(_)) => Ok(JsonResponse(empty)),
        Err(error) => Err(error),
    }
}

/// Handles `GET /channel/max_message_seq?channel_id=&channel_type=&login_uid=`.
///
/// # Errors
/// Like [`message_sync`].
pub async fn max_message_seq(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<MaxSeqDto>, Error> {
    let (channel_id, channel_type) = (fields.string("channel_id")?, fields.uint8("channel_type")?);
    if channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()));
    }
    let request = HistoryRequest {
        uid: parse_viewer(caller, fields, "login_uid", ERR_LOGIN_UID_EMPTY)?,
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
            message_seq: page.messages.last().map_or(0, |message| message.seq),
        })),
        Err(Error::NotFound(_)) => Ok(JsonResponse(MaxSeqDto { message_seq: 0 })),
        Err(error) => Err(error),
    }
}
