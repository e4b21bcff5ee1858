//! `/messages`, `/channel/last_message`, `/message/byclientmsgno` and `/channel/max_message_seq`:
//! messages of one channel that a caller names.

use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::view::NamedView;
use crate::auth::Caller;
use crate::error::Error;
use crate::message::{
    AnswerSizeLimit, MessageNames, find_last_message, find_max_seq, find_named_messages,
};
use crate::model::{ChannelType, Message, MessageId, Seq};
use crate::rest::legacy::{
    ErrorResponse, JsonResponse, LenientBody, LenientQuery, RawJsonResponse,
};
use crate::state::AppState;
use crate::wukongim::dto::{FoundMessageDto, HistoryDto, MaxSeqDto, MessageDto};

/// `WuKongIM`'s errors.
const ERR_CHANNEL_ID_EMPTY: &str = "channel_id不能为空！";
const ERR_CHANNEL_TYPE_0: &str = "channel_type不能为0";
const ERR_CLIENT_MSG_NO_EMPTY: &str = "client_msg_no不能为空";
const ERR_LOGIN_UID_EMPTY: &str = "login_uid不能为空！";
const ERR_SEQS_EMPTY: &str = "message_seqs不能为空！";

/// The body of `POST /messages`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct MessagesBody {
    /// The user who reads; required for a person channel.
    #[serde(default)]
    #[schema(examples("u02"))]
    pub login_uid: String,
    /// The channel's ID; for a person channel the peer's uid.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// Seqs of messages.
    #[serde(default)]
    #[schema(value_type = Vec<i64>, examples(1))]
    pub message_seqs: Vec<u32>,
    /// IDs of messages.
    #[serde(default)]
    #[schema(examples(1))]
    pub message_ids: Vec<i64>,
    /// Client message numbers; each means the first message of the channel that has it.
    #[serde(default)]
    #[schema(examples("m-1"))]
    pub client_msg_nos: Vec<String>,
}

/// The query of `GET /channel/last_message` and `/channel/max_message_seq`.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ChannelQuery {
    /// The channel's ID; for a person channel the peer's uid, or without `login_uid` both uids
    /// (`bob@ann`).
    #[param(example = "team-1")]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[param(maximum = 255, example = 2)]
    pub channel_type: u8,
    /// The user who reads. Without it, a service sees all messages.
    #[serde(default)]
    #[param(example = "u02")]
    pub login_uid: String,
}

/// The query of `GET /message/byclientmsgno`.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ClientMsgNoQuery {
    /// The channel's ID; for a person channel both uids (`bob@ann`), or with `login_uid` the peer's
    /// uid.
    #[param(example = "team-1")]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[param(maximum = 255, example = 2)]
    pub channel_type: u8,
    /// The client message number.
    #[param(example = "m-1")]
    pub client_msg_no: String,
    /// The user who reads. Without it, a service sees all messages.
    #[serde(default)]
    #[param(example = "u02")]
    pub login_uid: String,
}

/// Messages of a channel by seq, ID or client message number.
///
/// They come in this order, each once; unknown ones are left out. `more` is 1 if the last ones did
/// not fit into the answer.
#[utoipa::path(
    post,
    path = "/messages",
    operation_id = "getMessages",
    request_body = MessagesBody,
    responses((status = 200, description = "success", body = HistoryDto), ErrorResponse)
)]
pub(super) async fn messages(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<MessagesBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let core = &app.core;
    let body = body.decode()?;
    if body.channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()).into());
    }
    let limit = core.base.limits.page_size as usize;
    let lengths = [
        ("message_seqs", body.message_seqs.len()),
        ("message_ids", body.message_ids.len()),
        ("client_msg_nos", body.client_msg_nos.len()),
    ];
    if lengths.iter().all(|(_, length)| *length == 0) {
        return Err(Error::BadRequest(ERR_SEQS_EMPTY.into()).into());
    }
    for (field, length) in lengths {
        if length > limit {
            let problem = format!("must have at most {limit} entries");
            return Err(Error::bad_input(field, problem).into());
        }
    }
    let is_person = body.channel_type == ChannelType::PERSON.number();
    if is_person && body.login_uid.is_empty() && caller.user().is_none() {
        return Err(Error::BadRequest(ERR_LOGIN_UID_EMPTY.into()).into());
    }
    let view = NamedView {
        channel_id: body.channel_id,
        channel_type: body.channel_type,
        login_uid: body.login_uid,
    };
    let view = view.parse(&caller)?;
    let names = MessageNames {
        seqs: body.message_seqs.into_iter().map(Seq::from).collect(),
        ids: body.message_ids.into_iter().map(MessageId).collect(),
        client_msg_nos: body.client_msg_nos,
    };
    let bytes = AnswerSizeLimit::new(core.base.limits.answer_bytes);
    let found = find_named_messages(&core.messages, &view, &names, &bytes).await?;
    Ok(RawJsonResponse::serialise(&HistoryDto {
        start_message_seq: 0,
        end_message_seq: 0,
        more: u8::from(found.is_cut),
        messages: found.messages.iter().map(MessageDto::from).collect(),
    }))
}

/// The last message of a channel.
///
/// If there is none, the body is `{"status":404}`.
#[utoipa::path(
    get,
    path = "/channel/last_message",
    operation_id = "getLastMessage",
    params(ChannelQuery),
    responses((status = 200, description = "success", body = FoundMessageDto), ErrorResponse)
)]
pub(super) async fn last_message(
    State(app): State<AppState>,
    caller: Caller,
    query: LenientQuery<ChannelQuery>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let ChannelQuery {
        channel_id,
        channel_type,
        login_uid,
    } = query.fields;
    let view = NamedView {
        channel_id,
        channel_type,
        login_uid,
    };
    let found = find_last_message(&app.core.messages, &view.parse(&caller)?).await?;
    Ok(found_or_404(found.as_ref()))
}

/// The first message of a channel with a client message number.
///
/// If there is none, the body is `{"status":404}`.
#[utoipa::path(
    get,
    path = "/message/byclientmsgno",
    operation_id = "getMessageByClientMsgNo",
    params(ClientMsgNoQuery),
    responses((status = 200, description = "success", body = FoundMessageDto), ErrorResponse)
)]
pub(super) async fn by_client_msg_no(
    State(app): State<AppState>,
    caller: Caller,
    query: LenientQuery<ClientMsgNoQuery>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let core = &app.core;
    let query_fields = query.fields;
    if query_fields.channel_type == 0 && !query_fields.channel_id.is_empty() {
        return Err(Error::BadRequest(ERR_CHANNEL_TYPE_0.into()).into());
    }
    let view = NamedView {
        channel_id: query_fields.channel_id,
        channel_type: query_fields.channel_type,
        login_uid: query_fields.login_uid,
    };
    let view = view.parse(&caller)?;
    if query_fields.client_msg_no.is_empty() {
        return Err(Error::BadRequest(ERR_CLIENT_MSG_NO_EMPTY.into()).into());
    }
    let names = MessageNames {
        client_msg_nos: vec![query_fields.client_msg_no],
        ..MessageNames::default()
    };
    let bytes = AnswerSizeLimit::new(core.base.limits.answer_bytes);
    let found = find_named_messages(&core.messages, &view, &names, &bytes).await?;
    Ok(found_or_404(found.messages.first()))
}

/// `WuKongIM` says in the body that there is no message; its status is 200.
fn found_or_404(message: Option<&Message>) -> RawJsonResponse {
    RawJsonResponse::serialise(&match message {
        Some(message) => FoundMessageDto::Message(Box::new(message.into())),
        None => FoundMessageDto::none(),
    })
}

/// A channel's largest message seq.
#[utoipa::path(
    get,
    path = "/channel/max_message_seq",
    operation_id = "getMaxMessageSeq",
    params(ChannelQuery),
    responses((status = 200, description = "success", body = MaxSeqDto), ErrorResponse)
)]
pub(super) async fn max_message_seq(
    State(app): State<AppState>,
    caller: Caller,
    query: LenientQuery<ChannelQuery>,
) -> Result<JsonResponse<MaxSeqDto>, ErrorResponse> {
    let ChannelQuery {
        channel_id,
        channel_type,
        login_uid,
    } = query.fields;
    let view = NamedView {
        channel_id,
        channel_type,
        login_uid,
    };
    let seq = find_max_seq(&app.core.messages, &view.parse(&caller)?).await?;
    Ok(JsonResponse(MaxSeqDto { message_seq: seq.0 }))
}
