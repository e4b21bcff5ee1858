//! `/message/…`

use std::sync::Arc;

use crate::auth::Caller;
use crate::error::Error;
use crate::message::{self as messages, SendRequest};
use crate::model::{COMMAND_SUFFIX, ChannelRef, ChannelType, Content, Uid};
use crate::rest::legacy::JsonResponse;
use crate::services::Services;
use crate::wukongim::LegacyBody;
use crate::wukongim::dto::{DataResponse, SendBatchDto, SentMessageDto};

/// `WuKongIM`'s error for a message without a channel, or for a command without subscribers.
const ERR_NO_RECIPIENT: &str = "无法处理发送消息请求！";

/// Maximum number of receivers of one `sendbatch` of a service.
const MAX_RECEIVERS: usize = 1000;
/// Maximum number of receivers of one `sendbatch` of a user.
const MAX_RECEIVERS_FOR_USER: usize = 100;

/// Handles `POST /message/sendbatch`: sends a person message to each subscriber, and returns those
/// it could not be sent to, with the reasons. `count` gets the number of messages before the first
/// one is sent, and may refuse all of them: each message of a user counts as a request.
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`], or the error of `count`.
pub(super) async fn send_batch(
    core: &Arc<Services>,
    caller: &Caller,
    fields: &LegacyBody,
    count: impl FnOnce(usize) -> Result<(), Error>,
) -> Result<JsonResponse<SendBatchDto>, Error> {
    let header = fields.object("header")?;
    let (no_persist, red_dot, sync_once) = (
        header.flag("no_persist")?,
        header.flag("red_dot")?,
        header.flag("sync_once")?,
    );
    let from_uid = fields.string("from_uid")?;
    let subscribers = fields.strings("subscribers")?;
    let payload = fields.bytes("payload")?;
    if from_uid.is_empty() {
        return Err(Error::BadRequest("from_uid不能为空！".into()));
    }
    if subscribers.is_empty() {
        return Err(Error::BadRequest("subscribers不能为空！".into()));
    }
    if payload.is_empty() {
        return Err(Error::BadRequest("payload不能为空！".into()));
    }
    let limit = if caller.user().is_some() {
        MAX_RECEIVERS_FOR_USER
    } else {
        MAX_RECEIVERS
    };
    if subscribers.len() > limit {
        return Err(Error::bad_input(
            "subscribers",
            format!("must name at most {limit} users"),
        ));
    }
    let from = caller.sender(Some(Uid::parse("from_uid", from_uid)?))?;
    let content = Content {
        payload,
        ..Content::default()
    };
    content.check(core.base.limits.payload_bytes)?;
    count(subscribers.len())?;
    let mut answer = SendBatchDto::default();
    for to in subscribers {
        let sent = async {
            let request = SendRequest {
                from: from.clone(),
                channel: ChannelRef::parse(to.as_str(), i64::from(ChannelType::PERSON.number()))?,
                client_msg_no: None,
                red_dot,
                transient: no_persist || sync_once,
                as_member: caller.user().is_some(),
                content: content.clone(),
            };
            messages::send(&core.messages, request).await
        };
        if let Err(error) = sent.await {
            error.log();
            answer.fail_uids.push(to);
            answer.reason.push(error.to_string());
        }
    }
    Ok(JsonResponse(answer))
}

/// Handles `POST /message/send`.
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`], [`Error::NotFound`] for a user who
/// is not in the channel, [`Error::Store`].
pub async fn send(
    core: &Arc<Services>,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<DataResponse<SentMessageDto>>, Error> {
    let header = fields.object("header")?;
    let (no_persist, red_dot, sync_once) = (
        header.flag("no_persist")?,
        header.flag("red_dot")?,
        header.flag("sync_once")?,
    );
    let client_msg_no = fields.string("client_msg_no")?;
    let from_uid = fields.string("from_uid")?;
    let channel_id = fields.string("channel_id")?;
    let channel_type = fields.uint8("channel_type")?;
    let subscribers = fields.strings("subscribers")?;
    let content = Content {
        setting: fields.uint8("setting")?,
        topic: fields.string("topic")?,
        expire: fields.uint32("expire")?,
        payload: fields.bytes("payload")?,
        ..Content::default()
    };
    if content.payload.is_empty() {
        return Err(Error::BadRequest("payload不能为空！".into()));
    }
    let from = if from_uid.is_empty() {
        None
    } else {
        Some(Uid::parse("from_uid", from_uid)?)
    };
    let from = caller.sender(from)?;
    let channel = if channel_id.trim_matches(' ').is_empty() {
        // A command to named users is not stored in any channel, but its sender still expects an
        // id.
        if subscribers.is_empty() || !sync_once {
            return Err(Error::BadRequest(ERR_NO_RECIPIENT.into()));
        }
        ChannelRef {
            channel_type: ChannelType::GROUP,
            channel_id: String::new(),
        }
    } else {
        ChannelRef::parse(channel_id, i64::from(channel_type))?
    };
    let is_command = channel.channel_id.ends_with(COMMAND_SUFFIX);
    let request = SendRequest {
        from,
        channel,
        client_msg_no: Some(client_msg_no),
        red_dot,
        transient: no_persist || sync_once || is_command,
        as_member: caller.user().is_some(),
        content,
    };
    let message = messages::send(&core.messages, request).await?.message;
    let data = SentMessageDto {
        client_msg_no: message.client_msg_no,
        message_id: message.message_id,
        message_seq: message.seq,
    };
    Ok(JsonResponse(DataResponse { data, status: 200 }))
}
