//! `/channel/messagesync` and `/channel/messagesyncbatch`: messages of channels, page by page.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::parse_viewer;
use crate::auth::Caller;
use crate::error::Error;
use crate::message::{AnswerSizeLimit, BatchedPage, HistoryRequest, list_histories, list_history};
use crate::model::{ChannelRef, ChannelType, Seq, Uid};
use crate::rest::legacy::{ErrorResponse, LenientBody, RawJsonResponse};
use crate::state::AppState;
use crate::wukongim::Flag;
use crate::wukongim::dto::{HistoryBatchDto, HistoryDto, HistoryItemDto, MessageDto};

/// `WuKongIM` v2's errors for a request without a user, and for one without a channel.
const ERR_LOGIN_UID_EMPTY: &str = "login_uid不能为空！";
const ERR_CHANNEL_ID_EMPTY: &str = "channel_id不能为空！";
/// Maximum number of messages of a page.
const MAX_LIMIT: i64 = 10_000;
/// Messages of a page of a batch if `limit` is not given.
const DEFAULT_BATCH_LIMIT: i64 = 100;
/// Maximum number of channels of a batch.
const MAX_BATCH_ITEMS: usize = 200;
/// The error of an item whose messages did not fit into the answer.
const ERR_ANSWER_FULL: &str = "the answer is full: ask for this channel again";

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

/// The body of `POST /channel/messagesyncbatch`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct MessageSyncBatchBody {
    /// The user who reads.
    #[schema(examples("u02"))]
    pub login_uid: String,
    /// The channels.
    pub items: Vec<MessageSyncItem>,
}

/// A channel of `POST /channel/messagesyncbatch`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct MessageSyncItem {
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
    /// Maximum number of messages: 0 for 100, and 10000 for any larger number.
    #[serde(default)]
    #[schema(examples(20))]
    pub limit: i64,
    /// 0 for older messages, 1 for newer ones.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub pull_mode: Flag,
}

/// The seqs that a page is taken from.
#[derive(Clone, Copy)]
struct SeqRange {
    /// The first seq of the page, which is included.
    start: Seq,
    /// The seq where the page ends, which is not included.
    end: Seq,
    /// True for a page of newer messages.
    newer: bool,
}

impl SeqRange {
    /// Returns the request for the page, or `None` if nothing is in it.
    fn request(
        self,
        caller: &Caller,
        uid: Uid,
        channel: ChannelRef,
        limit: i64,
    ) -> Option<HistoryRequest> {
        let Self { start, end, newer } = self;
        if start == Seq::ZERO && end > Seq::ZERO {
            return None;
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
        Some(HistoryRequest {
            uid,
            channel,
            after,
            before,
            limit: u32::try_from(limit.min(MAX_LIMIT)).unwrap_or_default(),
            newest,
            as_service: caller.user().is_none(),
        })
    }
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
    let range = SeqRange { start, end, newer };
    let channel = ChannelRef::parse(channel_id, i64::from(channel_type))?;
    let Some(request) = range.request(&caller, uid, channel, limit) else {
        return Ok(RawJsonResponse::serialise(&empty));
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

/// Pages of several channels' messages, as v3 returns them.
///
/// The items are in the requested order. All of them share `limits.answer_bytes`: an item that does
/// not fit has an `error`, and the client asks for it again. Each item of a user counts as a
/// request.
#[utoipa::path(
    post,
    path = "/channel/messagesyncbatch",
    operation_id = "syncChannelMessageBatch",
    request_body = MessageSyncBatchBody,
    responses((status = 200, description = "success", body = HistoryBatchDto), ErrorResponse)
)]
pub(super) async fn message_sync_batch(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<MessageSyncBatchBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let core = &app.core;
    let body = body.decode()?;
    let uid = parse_viewer(&caller, body.login_uid, "login_uid", ERR_LOGIN_UID_EMPTY)?;
    if body.items.is_empty() || body.items.len() > MAX_BATCH_ITEMS {
        let problem = format!("must have between 1 and {MAX_BATCH_ITEMS} entries");
        return Err(Error::bad_input("items", problem).into());
    }
    let mut requests = Vec::with_capacity(body.items.len());
    let mut items = Vec::with_capacity(body.items.len());
    for item in body.items {
        if item.channel_id.is_empty() {
            return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()).into());
        }
        let channel = ChannelRef::parse(item.channel_id, i64::from(item.channel_type))?;
        let range = SeqRange {
            start: item.start_message_seq.into(),
            end: item.end_message_seq.into(),
            newer: item.pull_mode.0,
        };
        let limit = if item.limit > 0 {
            item.limit
        } else {
            DEFAULT_BATCH_LIMIT
        };
        let at = items.len();
        if let Some(request) = range.request(&caller, uid.clone(), channel.clone(), limit) {
            requests.push((at, request));
        }
        items.push(HistoryItemDto {
            channel_id: channel.channel_id,
            channel_type: item.channel_type,
            start_message_seq: range.start.0,
            end_message_seq: range.end.0,
            more: 0,
            messages: Vec::new(),
            error: "",
        });
    }
    if let Some(uid) = caller.user() {
        // The request itself was counted on arrival.
        app.rate_limiter
            .check_user_operations(uid, items.len().saturating_sub(1))?;
    }
    let (places, requests): (Vec<usize>, Vec<HistoryRequest>) = requests.into_iter().unzip();
    let bytes = AnswerSizeLimit::new(core.base.limits.answer_bytes);
    let pages = list_histories(&core.messages, &requests, &bytes).await?;
    for (at, page) in places.into_iter().zip(pages) {
        match page {
            BatchedPage::Page(page) => {
                items[at].more = u8::from(page.is_cut);
                let names_peers = items[at].channel_type == ChannelType::PERSON.number();
                let messages = page.messages.iter().map(|message| {
                    let mut message = MessageDto::from(message);
                    if names_peers {
                        // v3 names the peer in every message.
                        message.channel_id.clone_from(&items[at].channel_id);
                    }
                    message
                });
                items[at].messages = messages.collect();
            }
            BatchedPage::Full => items[at].error = ERR_ANSWER_FULL,
            BatchedPage::Unknown => {}
        }
    }
    Ok(RawJsonResponse::serialise(&HistoryBatchDto { items }))
}
