//! `/conversation/…` and `/conversations/…`

use std::collections::{BTreeSet, HashSet};

use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::parse_viewer;
use crate::auth::{Action, Caller};
use crate::conversation::{
    self as conversations, SyncDetail, SyncFilter, SyncRequest, parse_last_msg_seqs,
};
use crate::error::Error;
use crate::model::{ChannelRef, Seq, Uid, Version};
use crate::rest::legacy::{
    ErrorResponse, JsonResponse, LenientBody, LenientQuery, OK, RawJsonResponse,
};
use crate::services::Services;
use crate::state::AppState;
use crate::wukongim::Flag;
use crate::wukongim::dto::{
    ChannelDto, ChannelMessagesDto, ConversationDto, ListedConversationDto, MessageDto, StatusOk,
    SyncEntryDto, write_entries,
};

/// Conversations of a page if `page_size` is not given.
const DEFAULT_PAGE_SIZE: usize = 100;
/// `WuKongIM`'s error for a request without a user.
const ERR_UID_EMPTY: &str = "uid cannot be empty";
/// Messages of a channel if `msg_count` is not given.
const DEFAULT_MSG_COUNT: u32 = 15;
/// Maximum number of conversations of a page.
const MAX_PAGE_SIZE: i64 = 500;

/// The name of a channel.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct NamedChannel {
    /// The channel's ID; for a person channel the peer's uid.
    #[serde(default)]
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[serde(default)]
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
}

/// The body of `POST /conversation/sync`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SyncBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The largest version that the client has stored; 0 for the full list.
    #[serde(default)]
    #[schema(examples(0))]
    pub version: i64,
    /// The conversations that the client holds: `channel_id:channel_type:last_msg_seq`, joined by
    /// `|`.
    #[serde(default)]
    #[schema(examples("team-1:2:17|u33:1:4"))]
    pub last_msg_seqs: String,
    /// Maximum number of messages of each conversation.
    #[serde(default)]
    #[schema(examples(20))]
    pub msg_count: i64,
    /// 1 for conversations with unread messages only.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub only_unread: Flag,
    /// 1 for entries of conversations that are not listed any more.
    #[serde(default)]
    #[schema(value_type = i64, examples(0))]
    pub include_removed: Flag,
    /// The page, from 1; 0 for all conversations.
    #[serde(default)]
    #[schema(examples(0))]
    pub page: i64,
    /// Conversations of a page: 0 for 100, and 500 for any larger number.
    #[serde(default)]
    #[schema(examples(100))]
    pub page_size: i64,
    /// Types of channels that are left out.
    #[serde(default)]
    #[schema(value_type = Vec<i64>, examples(9))]
    pub exclude_channel_types: Vec<u8>,
    /// Channels that are listed whatever their version is; entries without an ID or a type are
    /// skipped.
    #[serde(default)]
    pub larges: Vec<NamedChannel>,
}

/// The query of `GET /conversations`.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The user.
    #[param(example = "u02")]
    pub uid: String,
}

/// The body of `POST /conversation/channels`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ChannelsBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
}

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

/// The changes since `version`, with the newest messages.
#[utoipa::path(
    post,
    path = "/conversation/sync",
    operation_id = "syncConversations",
    request_body = SyncBody,
    responses((status = 200, description = "success", body = Vec<SyncEntryDto>), ErrorResponse)
)]
pub(super) async fn sync(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<SyncBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let core = &app.core;
    let body = body.decode()?;
    let page = usize::try_from(body.page).unwrap_or(0);
    let page_size = match body.page_size {
        ..=0 => DEFAULT_PAGE_SIZE,
        size => usize::try_from(size.min(MAX_PAGE_SIZE)).unwrap_or(DEFAULT_PAGE_SIZE),
    };
    // Duplicates are removed because the types are compared with every conversation.
    let exclude_channel_types: BTreeSet<u8> = body.exclude_channel_types.into_iter().collect();
    let mut always = HashSet::new();
    for channel in body.larges {
        if !channel.channel_id.is_empty() && channel.channel_type > 0 {
            always.insert(ChannelRef::parse(
                channel.channel_id,
                i64::from(channel.channel_type),
            )?);
        }
    }
    core.base.check_conversations_on()?;
    if body.uid.is_empty() {
        return Ok(RawJsonResponse(write_entries(&[])));
    }
    if body.last_msg_seqs.split('|').count() > core.base.limits.max_last_msg_seqs {
        return Err(Error::bad_input(
            "last_msg_seqs",
            format!(
                "must have at most {} entries",
                core.base.limits.max_last_msg_seqs
            ),
        )
        .into());
    }
    let uid = Uid::parse("uid", body.uid)?;
    caller.check(Action::ActFor(&uid))?;
    let request = SyncRequest {
        uid,
        version: Version(body.version),
        last_msg_seqs: parse_last_msg_seqs(&body.last_msg_seqs),
        force_include: always,
        msg_count: u32::try_from(
            body.msg_count
                .clamp(0, i64::from(core.base.limits.max_messages_per_conversation)),
        )
        .unwrap_or_default(),
        filter: SyncFilter {
            only_unread: body.only_unread.0,
            exclude_channel_types: exclude_channel_types.into_iter().collect(),
        },
        first: None,
        detail: SyncDetail::Messages,
    };
    let answer = conversations::sync(&core.conversations, &request).await?;
    let mut items: Vec<ConversationDto> = answer
        .conversations
        .into_iter()
        .map(ConversationDto::from)
        .collect();
    if page > 0 {
        items = items
            .into_iter()
            .skip((page - 1).saturating_mul(page_size))
            .take(page_size)
            .collect();
        // The versions of a page must not be used as a cursor: changes between two pages would be
        // lost.
        for item in &mut items {
            item.version = 0;
        }
    }
    let mut entries: Vec<SyncEntryDto> = items.into_iter().map(SyncEntryDto::Item).collect();
    if body.include_removed.0 && page == 0 {
        entries.extend(
            answer
                .removed
                .into_iter()
                .map(|removed| SyncEntryDto::Removed(removed.into())),
        );
    }
    Ok(RawJsonResponse(write_entries(&entries)))
}

/// The list as v1 returns it.
#[utoipa::path(
    get,
    path = "/conversations",
    operation_id = "listConversations",
    params(ListQuery),
    responses(
        (status = 200, description = "success", body = Vec<ListedConversationDto>),
        ErrorResponse
    )
)]
pub(super) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    query: LenientQuery<ListQuery>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let uid = parse_viewer(&caller, query.fields.uid, "uid", ERR_UID_EMPTY)?;
    let items = conversations::list_conversations_with_messages(&app.core.conversations, &uid, 0)
        .await?
        .into_iter();
    let listed = items.map(|item| ListedConversationDto {
        channel_id: item.conversation.channel_ref.channel_id,
        channel_type: item.conversation.channel_ref.channel_type.number(),
        unread: item.conversation.unread,
        timestamp: item.conversation.last_activity_at.seconds(),
        last_message: item.last_message.as_deref().map(MessageDto::from),
    });
    let listed: Vec<ListedConversationDto> = listed.collect();
    Ok(RawJsonResponse::serialise(&listed))
}

/// The channels of a user's conversations.
///
/// Person channels are named by the peer's uid.
#[utoipa::path(
    post,
    path = "/conversation/channels",
    operation_id = "listConversationChannels",
    request_body = ChannelsBody,
    responses((status = 200, description = "success", body = Vec<ChannelDto>), ErrorResponse)
)]
pub(super) async fn channels(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<ChannelsBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let uid = parse_viewer(&caller, body.decode()?.uid, "uid", ERR_UID_EMPTY)?;
    let items = conversations::list_conversations_with_messages(&app.core.conversations, &uid, 0)
        .await?
        .into_iter();
    let names = items.map(|item| ChannelDto {
        channel_id: item.conversation.channel_ref.channel_id,
        channel_type: item.conversation.channel_ref.channel_type.number(),
    });
    let names: Vec<ChannelDto> = names.collect();
    Ok(RawJsonResponse::serialise(&names))
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
pub(super) async fn sync_by_channels(
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
pub(super) async fn sync_messages(
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

/// Reads the user, the channel, and the seq up to which to read or delete (0 or missing: all
/// messages). The caller must be allowed to act for the user; an empty uid is refused with the
/// given text, which is `WuKongIM`'s.
fn parse_target(
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
fn ok_if_absent<T>(result: Result<T, Error>) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
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
pub(super) async fn set_unread(
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
pub(super) async fn clear_unread(
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
pub(super) async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<TargetBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    let (uid, channel, up_to) = parse_target(&caller, body.decode()?, "Uid cannot be empty")?;
    ok_if_absent(
        conversations::delete_conversation(&app.core.conversations, &uid, &channel, up_to).await,
    )
}
