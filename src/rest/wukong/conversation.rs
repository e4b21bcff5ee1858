//! `/conversation/…` and `/conversations/…`

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::parse_viewer;
use crate::auth::{Action, Caller};
use crate::conversation::{
    self as conversations, SyncDetail, SyncFilter, SyncRequest, parse_last_msg_seqs,
};
use crate::error::Error;
use crate::model::{ChannelRef, Seq, Uid, Version};
use crate::rest::legacy::{JsonResponse, OK, RawJsonResponse};
use crate::services::Services;
use crate::wukongim::LegacyBody;
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

/// Handles `POST /conversation/sync`.
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`], [`Error::ConversationsOff`],
/// [`Error::Store`].
pub async fn sync(
    core: &Arc<Services>,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<RawJsonResponse, Error> {
    let uid = fields.string("uid")?;
    let version = fields.int64("version")?;
    let last_msg_seqs = fields.string("last_msg_seqs")?;
    let msg_count = fields.int64("msg_count")?;
    let only_unread = fields.flag("only_unread")?;
    let include_removed = fields.flag("include_removed")?;
    let page = usize::try_from(fields.int64("page")?).unwrap_or(0);
    let page_size = match fields.int64("page_size")? {
        ..=0 => DEFAULT_PAGE_SIZE,
        size => usize::try_from(size.min(MAX_PAGE_SIZE)).unwrap_or(DEFAULT_PAGE_SIZE),
    };
    // Duplicates are removed because the types are compared with every conversation.
    let mut exclude_channel_types = BTreeSet::new();
    for number in fields.array("exclude_channel_types")? {
        let number = if number.is_null() {
            Some(0)
        } else {
            number.as_u64().and_then(|number| u8::try_from(number).ok())
        };
        exclude_channel_types.insert(number.ok_or_else(|| {
            Error::bad_input(
                "exclude_channel_types",
                "must be an array of numbers between 0 and 255",
            )
        })?);
    }
    let mut always = HashSet::new();
    for channel in fields.objects("larges")? {
        let (channel_id, channel_type) = (
            channel.string("channel_id")?,
            channel.uint8("channel_type")?,
        );
        if !channel_id.is_empty() && channel_type > 0 {
            always.insert(ChannelRef::parse(channel_id, i64::from(channel_type))?);
        }
    }
    core.base.check_conversations_on()?;
    if uid.is_empty() {
        return Ok(RawJsonResponse(write_entries(&[])));
    }
    if last_msg_seqs.split('|').count() > core.base.limits.max_last_msg_seqs {
        return Err(Error::bad_input(
            "last_msg_seqs",
            format!(
                "must have at most {} entries",
                core.base.limits.max_last_msg_seqs
            ),
        ));
    }
    let uid = Uid::parse("uid", uid)?;
    caller.check(Action::ActFor(&uid))?;
    let request = SyncRequest {
        uid,
        version: Version(version),
        last_msg_seqs: parse_last_msg_seqs(&last_msg_seqs),
        force_include: always,
        msg_count: u32::try_from(
            msg_count.clamp(0, i64::from(core.base.limits.max_messages_per_conversation)),
        )
        .unwrap_or_default(),
        filter: SyncFilter {
            only_unread,
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
    if include_removed && page == 0 {
        entries.extend(
            answer
                .removed
                .into_iter()
                .map(|removed| SyncEntryDto::Removed(removed.into())),
        );
    }
    Ok(RawJsonResponse(write_entries(&entries)))
}

/// Handles `GET /conversations?uid=`: the list as v1 returns it.
///
/// # Errors
/// Like [`sync`].
pub async fn list(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<Vec<ListedConversationDto>>, Error> {
    let uid = parse_viewer(caller, fields, "uid", ERR_UID_EMPTY)?;
    let items = conversations::list_conversations_with_messages(&core.conversations, &uid, 0)
        .await?
        .into_iter();
    let listed = items.map(|item| ListedConversationDto {
        channel_id: item.conversation.channel_ref.channel_id,
        channel_type: item.conversation.channel_ref.channel_type.number(),
        unread: item.conversation.unread,
        timestamp: item.conversation.last_activity_at.div_euclid(1000),
        last_message: item.last_message.as_deref().map(MessageDto::from),
    });
    Ok(JsonResponse(listed.collect()))
}

/// Handles `POST /conversation/channels`: the channels of a user's conversations; person channels
/// are named by the peer's uid.
///
/// # Errors
/// Like [`sync`].
pub async fn channels(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<Vec<ChannelDto>>, Error> {
    let uid = parse_viewer(caller, fields, "uid", ERR_UID_EMPTY)?;
    let items = conversations::list_conversations_with_messages(&core.conversations, &uid, 0)
        .await?
        .into_iter();
    let names = items.map(|item| ChannelDto {
        channel_id: item.conversation.channel_ref.channel_id,
        channel_type: item.conversation.channel_ref.channel_type.number(),
    });
    Ok(JsonResponse(names.collect()))
}

/// Handles `POST /conversation/syncByChannels`: one entry for each requested channel, in the same
/// order. Its versions must not be used as a cursor.
///
/// # Errors
/// Like [`sync`].
pub async fn sync_by_channels(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<RawJsonResponse, Error> {
    let uid = parse_viewer(caller, fields, "uid", ERR_UID_EMPTY)?;
    let requested = parse_channels(core, fields)?;
    if requested.is_empty() {
        return Err(Error::BadRequest("channels cannot be empty".into()));
    }
    let msg_count = message_count(core, fields)?;
    let channels: Vec<ChannelRef> = requested
        .iter()
        .filter_map(|requested| requested.channel.clone())
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
            .channel
            .as_ref()
            .and_then(|channel| items.get(channel))
            .cloned();
        SyncEntryDto::Item(found.map_or_else(
            || ConversationDto::absent(requested.channel_id, requested.channel_type),
            ConversationDto::from,
        ))
    });
    Ok(RawJsonResponse(write_entries(&entries.collect::<Vec<_>>())))
}

/// Handles `POST /conversation/syncMessages`: for each requested channel, the newest messages above
/// the seq that the client holds.
///
/// # Errors
/// Like [`sync`].
pub async fn sync_messages(
    core: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<Vec<ChannelMessagesDto>>, Error> {
    let uid = parse_viewer(caller, fields, "uid", ERR_UID_EMPTY)?;
    let requested = parse_channels(core, fields)?;
    let msg_count = message_count(core, fields)?;
    let channels: Vec<ChannelRef> = requested
        .iter()
        .filter_map(|requested| requested.channel.clone())
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
            .channel
            .as_ref()
            .and_then(|channel| items.get(channel));
        let newer = found
            .into_iter()
            .flat_map(|item| item.recents.iter())
            .filter(|message| message.seq > requested.last_msg_seq);
        ChannelMessagesDto {
            messages: newer.map(|message| MessageDto::from(&**message)).collect(),
            channel_id: requested.channel_id,
            channel_type: requested.channel_type,
        }
    });
    Ok(JsonResponse(entries.collect()))
}

/// A channel as a client names it. An invalid name is treated as a channel that does not exist.
struct RequestedChannel {
    channel_id: String,
    channel_type: u8,
    channel: Option<ChannelRef>,
    last_msg_seq: i64,
}

fn parse_channels(core: &Services, fields: &LegacyBody) -> Result<Vec<RequestedChannel>, Error> {
    let requested = fields.objects("channels")?;
    let limit = core.base.limits.page_size as usize;
    if requested.len() > limit {
        return Err(Error::bad_input(
            "channels",
            format!("must have at most {limit} entries"),
        ));
    }
    requested
        .into_iter()
        .map(|fields| {
            let (channel_id, channel_type) =
                (fields.string("channel_id")?, fields.uint8("channel_type")?);
            let channel = ChannelRef::parse(channel_id.as_str(), i64::from(channel_type)).ok();
            Ok(RequestedChannel {
                channel_id,
                channel_type,
                channel,
                last_msg_seq: i64::from(fields.uint32("last_msg_seq")?),
            })
        })
        .collect()
}

/// Reads the number of messages for each channel. If it is missing or not positive, the default
/// applies, as in `WuKongIM`.
fn message_count(core: &Services, fields: &LegacyBody) -> Result<u32, Error> {
    Ok(match fields.int64("msg_count")? {
        ..=0 => DEFAULT_MSG_COUNT,
        given => u32::try_from(given)
            .unwrap_or(u32::MAX)
            .min(core.base.limits.max_messages_per_conversation),
    })
}

/// Reads the user, the channel, and the seq up to which to read or delete (0 or missing: all
/// messages). The caller must be allowed to act for the user; an empty uid is refused with the
/// given text, which is `WuKongIM`'s.
fn parse_target(
    caller: &Caller,
    fields: &LegacyBody,
    err_uid_empty: &'static str,
) -> Result<(Uid, ChannelRef, Option<Seq>), Error> {
    let uid = fields.string("uid")?;
    let channel_id = fields.string("channel_id")?;
    let channel_type = fields.uint8("channel_type")?;
    let up_to = Some(Seq::from(fields.uint32("message_seq")?)).filter(|seq| *seq > 0);
    if uid.is_empty() {
        return Err(Error::BadRequest(err_uid_empty.into()));
    }
    if channel_id.is_empty() || channel_type == 0 {
        return Err(Error::BadRequest(
            "channel_id or channel_type cannot be empty".into(),
        ));
    }
    let uid = Uid::parse("uid", uid)?;
    caller.check(Action::ActFor(&uid))?;
    Ok((
        uid,
        ChannelRef::parse(channel_id, i64::from(channel_type))?,
        up_to,
    ))
}

/// Turns a missing conversation into a success: on these routes there is nothing to change then.
fn ok_if_absent<T>(result: Result<T, Error>) -> Result<JsonResponse<StatusOk>, Error> {
    match result {
        Ok(_) | Err(Error::NotFound(_)) => Ok(OK),
        Err(error) => Err(error),
    }
}

/// Handles `POST /conversations/setUnread`.
///
/// # Errors
/// Like [`sync`].
pub async fn set_unread(
    core: &Arc<Services>,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    let unread = fields.int64("unread")?;
    let (uid, channel, up_to) = parse_target(caller, fields, "UID cannot be empty")?;
    ok_if_absent(
        conversations::set_unread(&core.conversations, &uid, &channel, unread, up_to).await,
    )
}

/// Handles `POST /conversations/clearUnread`.
///
/// # Errors
/// Like [`sync`].
pub async fn clear_unread(
    core: &Arc<Services>,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    let (uid, channel, up_to) = parse_target(caller, fields, ERR_UID_EMPTY)?;
    ok_if_absent(conversations::set_unread(&core.conversations, &uid, &channel, 0, up_to).await)
}

/// Handles `POST /conversations/delete`.
///
/// # Errors
/// Like [`sync`].
pub async fn delete(
    core: &Arc<Services>,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    let (uid, channel, up_to) = parse_target(caller, fields, "Uid cannot be empty")?;
    ok_if_absent(
        conversations::delete_conversation(&core.conversations, &uid, &channel, up_to).await,
    )
}
