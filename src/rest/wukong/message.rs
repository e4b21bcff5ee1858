//! `/message/…`

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::Error;
use crate::message::{self as messages, SendRequest};
use crate::model::{COMMAND_SUFFIX, ChannelRef, ChannelType, Content, Uid};
use crate::rest::legacy::{ErrorResponse, JsonResponse, LenientBody};
use crate::state::AppState;
use crate::wukongim::dto::{SendBatchDto, SendResponseDto, SentMessageDto};
use crate::wukongim::{Base64, Flag};

/// `WuKongIM`'s error for a message without a channel, or for a command without subscribers.
const ERR_NO_RECIPIENT: &str = "无法处理发送消息请求！";

/// Maximum number of receivers of one `sendbatch` of a service.
const MAX_RECEIVERS: usize = 1000;
/// Maximum number of receivers of one `sendbatch` of a user.
const MAX_RECEIVERS_FOR_USER: usize = 100;

/// Delivery flags of a message.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub struct SendHeader {
    /// 1 for a message that is not stored.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub no_persist: Flag,
    /// 1 for a message that counts as unread.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub red_dot: Flag,
    /// 1 for a command for clients, which is not stored.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub sync_once: Flag,
}

impl SendHeader {
    fn is_transient(self) -> bool {
        self.no_persist.0 || self.sync_once.0
    }
}

/// The body of `POST /message/send`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SendBody {
    /// The delivery flags.
    #[serde(default)]
    pub header: SendHeader,
    /// The sender's deduplication key.
    #[serde(default)]
    #[schema(examples("m-1"))]
    pub client_msg_no: String,
    /// The sender; empty for the system, or for the user of the token.
    #[serde(default)]
    #[schema(examples("u01"))]
    pub from_uid: String,
    /// The channel's ID; for a person channel the recipient's uid.
    #[serde(default)]
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[serde(default)]
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// The recipients of a command without a channel.
    #[serde(default)]
    #[schema(examples("u02"))]
    pub subscribers: Vec<String>,
    /// Setting bits.
    #[serde(default)]
    #[schema(maximum = 255, examples(0))]
    pub setting: u8,
    /// The topic.
    #[serde(default)]
    #[schema(examples("news"))]
    pub topic: String,
    /// Seconds until the message expires, 0 for never.
    #[serde(default)]
    #[schema(value_type = i64, minimum = 0, maximum = 4_294_967_295_i64, examples(0))]
    pub expire: u32,
    /// The content in standard base64 with padding.
    #[schema(value_type = String, examples("eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ=="))]
    pub payload: Base64,
}

/// The body of `POST /message/sendbatch`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SendBatchBody {
    /// The delivery flags.
    #[serde(default)]
    pub header: SendHeader,
    /// The sender.
    #[schema(examples("u01"))]
    pub from_uid: String,
    /// The recipients.
    #[schema(examples("u02"))]
    pub subscribers: Vec<String>,
    /// The content in standard base64 with padding.
    #[schema(value_type = String, examples("eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ=="))]
    pub payload: Base64,
}

/// Sends a person message to each of many users.
///
/// The response has those that it could not be sent to, with the reasons. Each message of a user
/// counts as a request.
#[utoipa::path(
    post,
    path = "/message/sendbatch",
    operation_id = "sendMessageBatch",
    request_body = SendBatchBody,
    responses((status = 200, description = "success", body = SendBatchDto), ErrorResponse)
)]
pub(super) async fn send_batch(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<SendBatchBody>,
) -> Result<JsonResponse<SendBatchDto>, ErrorResponse> {
    let core = &app.core;
    let SendBatchBody {
        header,
        from_uid,
        subscribers,
        payload: Base64(payload),
    } = body.decode()?;
    if from_uid.is_empty() {
        return Err(Error::BadRequest("from_uid不能为空！".into()).into());
    }
    if subscribers.is_empty() {
        return Err(Error::BadRequest("subscribers不能为空！".into()).into());
    }
    if payload.is_empty() {
        return Err(Error::BadRequest("payload不能为空！".into()).into());
    }
    let limit = if caller.user().is_some() {
        MAX_RECEIVERS_FOR_USER
    } else {
        MAX_RECEIVERS
    };
    if subscribers.len() > limit {
        return Err(
            Error::bad_input("subscribers", format!("must name at most {limit} users")).into(),
        );
    }
    let from = caller.sender(Some(Uid::parse("from_uid", from_uid)?))?;
    let content = Content {
        payload,
        ..Content::default()
    };
    content.check(core.base.limits.payload_bytes)?;
    if let Some(uid) = caller.user() {
        // All messages are counted before the first one is sent; the request itself was counted on
        // arrival.
        app.rate_limiter
            .check_user_operations(uid, subscribers.len().saturating_sub(1))?;
    }
    let mut answer = SendBatchDto::default();
    for to in subscribers {
        let sent = async {
            let request = SendRequest {
                from: from.clone(),
                channel: ChannelRef::parse(to.as_str(), i64::from(ChannelType::PERSON.number()))?,
                client_msg_no: None,
                red_dot: header.red_dot.0,
                transient: header.is_transient(),
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

/// Sends a message.
#[utoipa::path(
    post,
    path = "/message/send",
    operation_id = "sendMessage",
    request_body = SendBody,
    responses((status = 200, description = "success", body = SendResponseDto), ErrorResponse)
)]
pub(super) async fn send(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<SendBody>,
) -> Result<JsonResponse<SendResponseDto>, ErrorResponse> {
    let body = body.decode()?;
    let header = body.header;
    let content = Content {
        setting: body.setting,
        topic: body.topic,
        expire: body.expire,
        payload: body.payload.0,
        ..Content::default()
    };
    if content.payload.is_empty() {
        return Err(Error::BadRequest("payload不能为空！".into()).into());
    }
    let from = if body.from_uid.is_empty() {
        None
    } else {
        Some(Uid::parse("from_uid", body.from_uid)?)
    };
    let from = caller.sender(from)?;
    let channel = if body.channel_id.trim_matches(' ').is_empty() {
        // A command to named users is not stored in any channel, but its sender still expects an
        // id.
        if body.subscribers.is_empty() || !header.sync_once.0 {
            return Err(Error::BadRequest(ERR_NO_RECIPIENT.into()).into());
        }
        ChannelRef {
            channel_type: ChannelType::GROUP,
            channel_id: String::new(),
        }
    } else {
        ChannelRef::parse(body.channel_id, i64::from(body.channel_type))?
    };
    let is_command = channel.channel_id.ends_with(COMMAND_SUFFIX);
    let request = SendRequest {
        from,
        channel,
        client_msg_no: Some(body.client_msg_no),
        red_dot: header.red_dot.0,
        transient: header.is_transient() || is_command,
        as_member: caller.user().is_some(),
        content,
    };
    let message = messages::send(&app.core.messages, request).await?.message;
    let data = SentMessageDto {
        client_msg_no: message.client_msg_no,
        message_id: message.message_id.0,
        message_seq: message.seq.0,
    };
    Ok(JsonResponse(SendResponseDto { data, status: 200 }))
}
