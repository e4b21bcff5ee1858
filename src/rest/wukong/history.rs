//! `/channel/messagesync` and `/channel/max_message_seq`: a channel's messages, page by page.

use super::super::legacy::{Answer, Fields};
use super::shapes::{HistoryShape, MaxSeq, MessageShape};
use super::viewer;
use crate::auth::Caller;
use crate::core::Core;
use crate::error::Error;
use crate::ids::ChannelRef;
use crate::message::{AnswerBytes, HistoryRequest, list_history};

/// v2's words to who names no user, and no channel.
const NOBODY: &str = "login_uid不能为空！";
const NO_CHANNEL: &str = "channel_id不能为空！";
/// Messages of a page at most.
const MAX_LIMIT: i64 = 10_000;

/// `POST /channel/messagesync`: `pull_mode` 0 goes to older messages, 1 to newer ones; the start is
/// in the page, the end is not; both 0 are the latest. As far as the user may see them: a service
/// that names somebody who was never in the channel sees all of it.
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`], [`Error::ConversationsOff`],
/// [`Error::Store`].
pub async fn message_sync(
    core: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<HistoryShape>, Error> {
    let (channel_id, channel_type) = (fields.string("channel_id")?, fields.uint8("channel_type")?);
    let (start, end) = (
        i64::from(fields.uint32("start_message_seq")?),
        i64::from(fields.uint32("end_message_seq")?),
    );
    let limit = fields.int64("limit")?;
    let newer = fields.flag("pull_mode")?;
    // What is of a wrong type is named before what is missing.
    fields.string("login_uid")?;
    if channel_id.is_empty() {
        return Err(Error::BadRequest(NO_CHANNEL.into()));
    }
    let uid = viewer(caller, fields, "login_uid", NOBODY)?;
    if limit <= 0 {
        return Err(Error::bad_input(
            "limit",
            format!("must be between 1 and {MAX_LIMIT}"),
        ));
    }
    let empty = HistoryShape {
        start_message_seq: start,
        end_message_seq: end,
        more: 0,
        messages: Vec::new(),
    };
    if start == 0 && end > 0 {
        return Ok(Answer(empty));
    }
    // Down: from below the start's next one, as far as the end. Up: from the start on, as far as
    // the end.
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
    match list_history(core, &request, &AnswerBytes::new(core.limits.answer_bytes)).await {
        Ok(page) => {
            Ok(Answer(HistoryShape {
                // Not whether there is anything beyond the end that was given.
                more: u8::from(page.is_cut),
                messages: page.messages.iter().map(MessageShape::from).collect(),
                ..empty
            }))
        }
        Err(Error::NotFound(_)) => Ok(Answer(empty)),
        Err(error) => Err(error),
    }
}

/// `GET /channel/max_message_seq?channel_id=&channel_type=&login_uid=`
///
/// # Errors
/// As [`message_sync`].
pub async fn max_message_seq(
    core: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<MaxSeq>, Error> {
    let (channel_id, channel_type) = (fields.string("channel_id")?, fields.uint8("channel_type")?);
    if channel_id.is_empty() {
        return Err(Error::BadRequest(NO_CHANNEL.into()));
    }
    let request = HistoryRequest {
        uid: viewer(caller, fields, "login_uid", NOBODY)?,
        channel: ChannelRef::parse(channel_id, i64::from(channel_type))?,
        after: None,
        before: None,
        limit: 1,
        newest: true,
        as_service: caller.user().is_none(),
    };
    match list_history(core, &request, &AnswerBytes::new(core.limits.answer_bytes)).await {
        Ok(page) => Ok(Answer(MaxSeq {
            message_seq: page.messages.last().map_or(0, |message| message.seq),
        })),
        Err(Error::NotFound(_)) => Ok(Answer(MaxSeq { message_seq: 0 })),
        Err(error) => Err(error),
    }
}
