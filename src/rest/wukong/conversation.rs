//! `/conversation/…` and `/conversations/…`

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::super::legacy::{Answer, DONE, Done, Fields, Written};
use super::shapes::{
    ChannelMessages, ChannelShape, ListedItem, MessageShape, SyncEntry, SyncItem, write_entries,
};
use super::viewer;
use crate::auth::{Action, Caller};
use crate::conversation::{
    self as conversations, Filter, SyncRequest, Wanted, parse_last_msg_seqs,
};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid};

/// Conversations of a page where `page_size` is not given.
const PAGE_SIZE: usize = 100;
/// What is answered to who names no user.
const NOBODY: &str = "uid cannot be empty";
/// Messages of a channel where `msg_count` is not given.
const MESSAGES: u32 = 15;
/// Conversations of a page at most.
const MAX_PAGE_SIZE: i64 = 500;

/// `POST /conversation/sync`
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`], [`Error::ConversationsOff`],
/// [`Error::Store`].
pub async fn sync(core: &Arc<Core>, caller: &Caller, fields: &Fields) -> Result<Written, Error> {
    let uid = fields.string("uid")?;
    let version = fields.int64("version")?;
    let last_msg_seqs = fields.string("last_msg_seqs")?;
    let msg_count = fields.int64("msg_count")?;
    let only_unread = fields.flag("only_unread")?;
    let include_removed = fields.flag("include_removed")?;
    let page = usize::try_from(fields.int64("page")?).unwrap_or(0);
    let page_size = match fields.int64("page_size")? {
        ..=0 => PAGE_SIZE,
        size => usize::try_from(size.min(MAX_PAGE_SIZE)).unwrap_or(PAGE_SIZE),
    };
    // Each once: they are looked through for every conversation.
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
    core.check_conversations_on()?;
    if uid.is_empty() {
        return Ok(Written(write_entries(&[])));
    }
    if last_msg_seqs.split('|').count() > core.limits.last_msg_seqs {
        return Err(Error::bad_input(
            "last_msg_seqs",
            format!("must have at most {} entries", core.limits.last_msg_seqs),
        ));
    }
    let uid = Uid::parse("uid", uid)?;
    caller.check(Action::ActFor(&uid))?;
    let request = SyncRequest {
        uid,
        version,
        last_msg_seqs: parse_last_msg_seqs(&last_msg_seqs),
        always,
        msg_count: u32::try_from(msg_count.clamp(0, i64::from(core.limits.msg_count)))
            .unwrap_or_default(),
        filter: Filter {
            only_unread,
            exclude_channel_types: exclude_channel_types.into_iter().collect(),
        },
        first: None,
        wanted: Wanted::Messages,
    };
    let answer = conversations::sync(core, &request).await?;
    let mut items: Vec<SyncItem> = answer
        .conversations
        .into_iter()
        .map(SyncItem::from)
        .collect();
    if page > 0 {
        items = items
            .into_iter()
            .skip((page - 1).saturating_mul(page_size))
            .take(page_size)
            .collect();
        // Pages are no cursor: what changes between two of them would be lost.
        for item in &mut items {
            item.version = 0;
        }
    }
    let mut entries: Vec<SyncEntry> = items.into_iter().map(SyncEntry::Item).collect();
    if include_removed && page == 0 {
        entries.extend(
            answer
                .removed
                .into_iter()
                .map(|removed| SyncEntry::Removed(removed.into())),
        );
    }
    Ok(Written(write_entries(&entries)))
}

/// `GET /conversations?uid=`: the list as v1 shows it.
///
/// # Errors
/// As [`sync`].
pub async fn list(
    core: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Vec<ListedItem>>, Error> {
    let uid = viewer(caller, fields, "uid", NOBODY)?;
    let items = conversations::show_all(core, &uid, 0).await?.into_iter();
    let listed = items.map(|item| ListedItem {
        channel_id: item.conversation.channel.channel_id,
        channel_type: item.conversation.channel.channel_type.number(),
        unread: item.conversation.unread,
        timestamp: item.conversation.last_activity_at.div_euclid(1000),
        last_message: item.last_message.as_deref().map(MessageShape::from),
    });
    Ok(Answer(listed.collect()))
}

/// `POST /conversation/channels`: which conversations there are, person channels by the peer's uid.
///
/// # Errors
/// As [`sync`].
pub async fn channels(
    core: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Vec<ChannelShape>>, Error> {
    let uid = viewer(caller, fields, "uid", NOBODY)?;
    let items = conversations::show_all(core, &uid, 0).await?.into_iter();
    let names = items.map(|item| ChannelShape {
        channel_id: item.conversation.channel.channel_id,
        channel_type: item.conversation.channel.channel_type.number(),
    });
    Ok(Answer(names.collect()))
}

/// `POST /conversation/syncByChannels`: one entry for each channel asked for, in the order asked.
/// Its versions are no cursor.
///
/// # Errors
/// As [`sync`].
pub async fn sync_by_channels(
    core: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Written, Error> {
    let uid = viewer(caller, fields, "uid", NOBODY)?;
    let named = named_channels(core, fields)?;
    if named.is_empty() {
        return Err(Error::BadRequest("channels cannot be empty".into()));
    }
    let msg_count = message_count(core, fields)?;
    let channels: Vec<ChannelRef> = named
        .iter()
        .filter_map(|named| named.channel.clone())
        .collect();
    let items = conversations::show(core, &uid, &channels, msg_count).await?;
    let entries = named.into_iter().map(|named| {
        let found = named
            .channel
            .as_ref()
            .and_then(|channel| items.get(channel))
            .cloned();
        SyncEntry::Item(found.map_or_else(
            || SyncItem::none(named.channel_id, named.channel_type),
            SyncItem::from,
        ))
    });
    Ok(Written(write_entries(&entries.collect::<Vec<_>>())))
}

/// `POST /conversation/syncMessages`: of each channel asked for the newest messages above the seq
/// that the client holds.
///
/// # Errors
/// As [`sync`].
pub async fn sync_messages(
    core: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Vec<ChannelMessages>>, Error> {
    let uid = viewer(caller, fields, "uid", NOBODY)?;
    let named = named_channels(core, fields)?;
    let msg_count = message_count(core, fields)?;
    let channels: Vec<ChannelRef> = named
        .iter()
        .filter_map(|named| named.channel.clone())
        .collect();
    let items = conversations::show(core, &uid, &channels, msg_count).await?;
    let entries = named.into_iter().map(|named| {
        let found = named
            .channel
            .as_ref()
            .and_then(|channel| items.get(channel));
        let newer = found
            .into_iter()
            .flat_map(|item| item.recents.iter())
            .filter(|message| message.seq > named.last_msg_seq);
        ChannelMessages {
            messages: newer
                .map(|message| MessageShape::from(&**message))
                .collect(),
            channel_id: named.channel_id,
            channel_type: named.channel_type,
        }
    });
    Ok(Answer(entries.collect()))
}

/// A channel as a client names it; one that cannot be is one that does not exist.
struct Named {
    channel_id: String,
    channel_type: u8,
    channel: Option<ChannelRef>,
    last_msg_seq: i64,
}

fn named_channels(core: &Core, fields: &Fields) -> Result<Vec<Named>, Error> {
    let named = fields.objects("channels")?;
    let limit = core.limits.page_size as usize;
    if named.len() > limit {
        return Err(Error::bad_input(
            "channels",
            format!("must have at most {limit} entries"),
        ));
    }
    named
        .into_iter()
        .map(|fields| {
            let (channel_id, channel_type) =
                (fields.string("channel_id")?, fields.uint8("channel_type")?);
            let channel = ChannelRef::parse(channel_id.as_str(), i64::from(channel_type)).ok();
            Ok(Named {
                channel_id,
                channel_type,
                channel,
                last_msg_seq: i64::from(fields.uint32("last_msg_seq")?),
            })
        })
        .collect()
}

/// Messages of a channel, where nothing, or nothing that is a number of them, is said: as
/// `WuKongIM`.
fn message_count(core: &Core, fields: &Fields) -> Result<u32, Error> {
    Ok(match fields.int64("msg_count")? {
        ..=0 => MESSAGES,
        given => u32::try_from(given)
            .unwrap_or(u32::MAX)
            .min(core.limits.msg_count),
    })
}

/// The uid and the channel that a request is about, if the caller may act for the user; an empty
/// uid is refused with `WuKongIM`'s words. Whose conversation, which channel, and the seq up to
/// which it is read or deleted; 0 or missing: to the end.
fn target(
    caller: &Caller,
    fields: &Fields,
    no_uid: &'static str,
) -> Result<(Uid, ChannelRef, Option<Seq>), Error> {
    let uid = fields.string("uid")?;
    let channel_id = fields.string("channel_id")?;
    let channel_type = fields.uint8("channel_type")?;
    let up_to = Some(Seq::from(fields.uint32("message_seq")?)).filter(|seq| *seq > 0);
    if uid.is_empty() {
        return Err(Error::BadRequest(no_uid.into()));
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

/// What is not there needs no change: on these routes that is a success.
fn done<T>(result: Result<T, Error>) -> Result<Answer<Done>, Error> {
    match result {
        Ok(_) | Err(Error::NotFound(_)) => Ok(DONE),
        Err(error) => Err(error),
    }
}

/// `POST /conversations/setUnread`
///
/// # Errors
/// As [`sync`].
pub async fn set_unread(
    core: &Arc<Core>,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Done>, Error> {
    let unread = fields.int64("unread")?;
    let (uid, channel, up_to) = target(caller, fields, "UID cannot be empty")?;
    done(conversations::set_unread(core, &uid, &channel, unread, up_to).await)
}

/// `POST /conversations/clearUnread`
///
/// # Errors
/// As [`sync`].
pub async fn clear_unread(
    core: &Arc<Core>,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Done>, Error> {
    let (uid, channel, up_to) = target(caller, fields, NOBODY)?;
    done(conversations::set_unread(core, &uid, &channel, 0, up_to).await)
}

/// `POST /conversations/delete`
///
/// # Errors
/// As [`sync`].
pub async fn delete(
    core: &Arc<Core>,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Done>, Error> {
    let (uid, channel, up_to) = target(caller, fields, "Uid cannot be empty")?;
    done(conversations::delete_conversation(core, &uid, &channel, up_to).await)
}
