//! `/conversation/syncByChannels` and `/conversation/syncMessages`

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::ERR_UID_EMPTY;
use crate::auth::Caller;
use crate::conversation as conversations;
use crate::error::Error;
use crate::model::{ChannelRef, Seq};
use crate::rest::legacy::{ErrorResponse, LenientBody, RawJsonResponse};
use crate::rest::wukong::parse_viewer;
use crate::services::Services;
use crate::state::AppState;
use crate::wukongim::dto::{
    ChannelMessagesDto, ConversationDto, MessageDto, SyncEntryDto, write_entries,
};

/// Messages of a channel if `msg_count` is not given.
const DEFAULT_MSG_COUNT: u32 = 15;

/// A channel whose messages are requested.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct RequestedChannel {
    /// The channel's ID; for a person channel the peer's uid.
    #[serde(default)]
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[serde(default)]
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
    /// The last message that the client holds; only `/conversation/syncMessages` uses it.
    #[serde(default)]
    #[schema(value_type = i64, minimum = 0, maximum = 4_294_967_295_i64, examples(0))]
    pub last_msg_seq: u32,
}

impl RequestedChannel {
    /// Returns the channel, or `None` for an invalid name, which is treated as a channel that does
    /// not exist.
    fn channel(&self) -> Option<ChannelRef> {
        ChannelRef::parse(self.channel_id.as_str(), i64::from(self.channel_type)).ok()
    }
}

/// The body of `POST /conversation/syncByChannels`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SyncByChannelsBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The channels.
    pub channels: Vec<RequestedChannel>,
    /// Maximum number of messages of each channel; 0 for 15.
    #[serde(default)]
    #[schema(examples(15))]
    pub msg_count: i64,
}

/// The body of `POST /conversation/syncMessages`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SyncMessagesBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The channels.
    #[serde(default)]
    pub channels: Vec<RequestedChannel>,
    /// Maximum number of messages of each channel; 0 for 15.
    #[serde(default)]
    #[schema(examples(15))]
    pub msg_count: i64,
}

/// Conversations by channel, in the requested order.
///
/// Each requested channel has an entry. Their versions must not be used as a cursor.
#[utoipa::path(
    post,
    path = "/conversation/syncByChannels",
    operation_id = "syncConversationsByChannels",
    request_body = SyncByChannelsBody,
    responses((status = 200, description = "success", body = Vec<ConversationDto>), ErrorResponse)
)]
pub(in crate::rest::wukong) async fn sync_by_channels(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<SyncByChannelsBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let core = &app.core;
    let body = body.decode()?;
    let uid = parse_viewer(&caller, body.uid, "uid", ERR_UID_EMPTY)?;
    let requested = body.channels;
    check_channel_count(core, &requested)?;
    if requested.is_empty() {
        return Err(Error::BadRequest("channels cannot be empty".into()).into());
    }
    let msg_count = message_count(core, body.msg_count);
    let channels: Vec<ChannelRef> = requested
        .iter()
        .filter_map(RequestedChannel::channel)
        .collect();
    let items = conversations::get_conversations_with_messages(
        &core.conversations,
        &uid,
        &channels,
        msg_count,
    )
    .await?;
    let entries = requested.into_iter().map(|requested| {
        let found = requested
            .channel()
            .and_then(|channel| items.get(&channel))
            .cloned();
        SyncEntryDto::Item(found.map_or_else(
            || ConversationDto::absent(requested.channel_id, requested.channel_type),
            ConversationDto::from,
        ))
    });
    Ok(RawJsonResponse(write_entries(&entries.collect::<Vec<_>>())))
}

/// The newest messages of each channel above a seq.
///
/// The entries are in the requested order.
#[utoipa::path(
    post,
    path = "/conversation/syncMessages",
    operation_id = "syncMessages",
    request_body = SyncMessagesBody,
    responses(
        (status = 200, description = "success", body = Vec<ChannelMessagesDto>),
        ErrorResponse
    )
)]
pub(in crate::rest::wukong) async fn sync_messages(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<SyncMessagesBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let core = &app.core;
    let body = body.decode()?;
    let uid = parse_viewer(&caller, body.uid, "uid", ERR_UID_EMPTY)?;
    let requested = body.channels;
    check_channel_count(core, &requested)?;
    let msg_count = message_count(core, body.msg_count);
    let channels: Vec<ChannelRef> = requested
        .iter()
        .filter_map(RequestedChannel::channel)
        .collect();
    let items = conversations::get_conversations_with_messages(
        &core.conversations,
        &uid,
        &channels,
        msg_count,
    )
    .await?;
    let entries = requested.into_iter().map(|requested| {
        let found = requested.channel().and_then(|channel| items.get(&channel));
        let newer = found
            .into_iter()
            .flat_map(|item| item.recents.iter())
            .filter(|message| message.seq > Seq::from(requested.last_msg_seq));
        ChannelMessagesDto {
            messages: newer.map(|message| MessageDto::from(&**message)).collect(),
            channel_id: requested.channel_id,
            channel_type: requested.channel_type,
        }
    });
    let entries: Vec<ChannelMessagesDto> = entries.collect();
    Ok(RawJsonResponse::serialise(&entries))
}

fn check_channel_count(core: &Services, requested: &[RequestedChannel]) -> Result<(), Error> {
    let limit = core.base.limits.page_size as usize;
    if requested.len() > limit {
        return Err(Error::bad_input(
            "channels",
            format!("must have at most {limit} entries"),
        ));
    }
    Ok(())
}

/// Returns the number of messages for each channel. If it is missing or not positive, the default
/// applies, as in `WuKongIM`.
fn message_count(core: &Services, msg_count: i64) -> u32 {
    match msg_count {
        ..=0 => DEFAULT_MSG_COUNT,
        given => u32::try_from(given)
            .unwrap_or(u32::MAX)
            .min(core.base.limits.max_messages_per_conversation),
    }
}
