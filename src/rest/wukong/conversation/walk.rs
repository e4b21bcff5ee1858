//! `/conversation/list`, `/conversation/retry` and `/conversations/activate`: the conversations as
//! v3's clients read them.

use std::cmp::Reverse;
use std::collections::HashSet;

use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use utoipa::ToSchema;

use super::change::{TargetBody, ok_if_absent, parse_target};
use super::{ERR_UID_EMPTY, NamedChannel};
use crate::auth::Caller;
use crate::conversation::{
    self as conversations, ConversationWithMessages, ListCursor, SortKey, WalkCursor, WalkRequest,
};
use crate::error::Error;
use crate::model::{ChannelRef, EpochMs, ID_BYTES, Version};
use crate::rest::legacy::{ErrorResponse, JsonResponse, LenientBody, RawJsonResponse};
use crate::rest::wukong::parse_viewer;
use crate::state::AppState;
use crate::wukongim::dto::{ChannelDto, StatusOk, WalkDto, WalkedConversationDto};

/// v3's errors.
const ERR_LIST_UID_EMPTY: &str = "uid不能为空！";
const ERR_CURSOR: &str = "cursor格式错误！";
const ERR_RETRY_EMPTY: &str = "uid或channels不能为空！";
const ERR_RETRY_CHANNEL: &str = "channel_id或channel_type错误！";

/// Conversations of a page if `limit` is not given.
const DEFAULT_LIMIT: u32 = 50;
/// Maximum number of conversations of a page, and of channels of a retry.
const MAX_LIMIT: u32 = 200;
/// Maximum length of an encoded cursor: the longest has a channel ID whose bytes are all escaped.
const MAX_CURSOR_BYTES: usize = (ID_BYTES * 6 + 200) * 4 / 3;

/// The body of `POST /conversation/list`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct WalkBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// `next_cursor` of the last page; empty for the first page.
    #[serde(default)]
    #[schema(examples(""))]
    pub cursor: String,
    /// Conversations of a page, at most 200; 0 for 50.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 200, examples(50))]
    pub limit: i64,
    /// `coverage` of the last completed walk: only later changes are returned. 0 for all
    /// conversations.
    #[serde(default)]
    #[schema(minimum = 0, examples(0))]
    pub completed_coverage: i64,
}

/// The body of `POST /conversation/retry`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct RetryBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The channels, at most 200.
    pub channels: Vec<NamedChannel>,
}

/// The body of `POST /conversations/activate`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ActivateBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The channel's ID; for a person channel the peer's uid.
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
}

/// A page of a walk through the conversations, as v3 returns it.
///
/// A walk begins without a cursor and ends with the page that is `done`. With `completed_coverage`
/// it goes through the changes since the walk that had this coverage, otherwise through the whole
/// list, newest activity first.
#[utoipa::path(
    post,
    path = "/conversation/list",
    operation_id = "walkConversations",
    request_body = WalkBody,
    responses((status = 200, description = "success", body = WalkDto), ErrorResponse)
)]
pub(in crate::rest::wukong) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<WalkBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let body = body.decode()?;
    let uid = parse_viewer(&caller, body.uid, "uid", ERR_LIST_UID_EMPTY)?;
    let cursor = match body.cursor.as_str() {
        "" => None,
        text => Some(decode_cursor(text).ok_or(Error::BadRequest(ERR_CURSOR.into()))?),
    };
    let limit = match u32::try_from(body.limit) {
        Ok(0) => DEFAULT_LIMIT,
        Ok(limit @ 1..=MAX_LIMIT) => limit,
        _ => {
            let problem = format!("must be between 0 and {MAX_LIMIT}");
            return Err(Error::bad_input("limit", problem).into());
        }
    };
    if body.completed_coverage < 0 {
        return Err(Error::bad_input("completed_coverage", "must not be negative").into());
    }
    let request = WalkRequest {
        uid,
        cursor,
        completed: Version(body.completed_coverage),
        limit,
    };
    let page = conversations::walk(&app.core.conversations, &request).await?;
    let (conversations, unresolved) = split_unresolved(page.conversations);
    let removed = page.removed.into_iter();
    Ok(RawJsonResponse::serialise(&WalkDto {
        conversations,
        deletes: removed.map(|removed| removed.channel_ref.into()).collect(),
        unresolved,
        next_cursor: page.cursor.as_ref().map(encode_cursor),
        done: page.is_last,
        coverage: page.coverage.0,
        tombstones_retained_since: 0,
        reset_required: page.reset,
    }))
}

/// Conversations by channel, as v3 returns them.
///
/// Channels without a listed conversation are `deletes`.
#[utoipa::path(
    post,
    path = "/conversation/retry",
    operation_id = "retryConversations",
    request_body = RetryBody,
    responses((status = 200, description = "success", body = WalkDto), ErrorResponse)
)]
pub(in crate::rest::wukong) async fn retry(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<RetryBody>,
) -> Result<RawJsonResponse, ErrorResponse> {
    let body = body.decode()?;
    if body.channels.is_empty() {
        return Err(Error::BadRequest(ERR_RETRY_EMPTY.into()).into());
    }
    let uid = parse_viewer(&caller, body.uid, "uid", ERR_RETRY_EMPTY)?;
    if body.channels.len() > MAX_LIMIT as usize {
        let problem = format!("must have at most {MAX_LIMIT} entries");
        return Err(Error::bad_input("channels", problem).into());
    }
    let mut channels: Vec<ChannelRef> = Vec::with_capacity(body.channels.len());
    for channel in body.channels {
        if channel.channel_id.is_empty() || channel.channel_type == 0 {
            return Err(Error::BadRequest(ERR_RETRY_CHANNEL.into()).into());
        }
        let channel_type = i64::from(channel.channel_type);
        channels.push(ChannelRef::parse(channel.channel_id, channel_type)?);
    }
    let mut there = HashSet::new();
    channels.retain(|channel| there.insert(channel.clone()));
    let mut found = conversations::find_in_walk(&app.core.conversations, &uid, &channels).await?;
    let mut items = Vec::with_capacity(found.len());
    let mut deletes = Vec::new();
    for channel in channels {
        match found.remove(&channel) {
            Some(item) => items.push(item),
            None => deletes.push(channel.into()),
        }
    }
    let (conversations, unresolved) = if items.iter().all(|item| item.last_message.is_none()) {
        // The client would ask for them for ever.
        (items.into_iter().map(Into::into).collect(), Vec::new())
    } else {
        split_unresolved(items)
    };
    Ok(RawJsonResponse::serialise(&WalkDto {
        conversations,
        deletes,
        unresolved,
        next_cursor: None,
        done: true,
        coverage: 0,
        tombstones_retained_since: 0,
        reset_required: false,
    }))
}

/// Notes that the user opened a conversation.
///
/// `/conversation/list` lists it above those without later activity, and also if it has no messages.
#[utoipa::path(
    post,
    path = "/conversations/activate",
    operation_id = "activateConversation",
    request_body = ActivateBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(in crate::rest::wukong) async fn activate(
    State(app): State<AppState>,
    caller: Caller,
    mut body: LenientBody<ActivateBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    let body = body.decode()?;
    let target = TargetBody {
        uid: body.uid,
        channel_id: body.channel_id,
        channel_type: body.channel_type,
        message_seq: 0,
    };
    let (uid, channel, _) = parse_target(&caller, target, ERR_UID_EMPTY)?;
    ok_if_absent(
        conversations::activate_conversation(&app.core.conversations, &uid, &channel).await,
    )
}

/// Separates the conversations whose last message did not fit into the answer.
fn split_unresolved(
    items: Vec<ConversationWithMessages>,
) -> (Vec<WalkedConversationDto>, Vec<ChannelDto>) {
    let (lacking, complete): (Vec<_>, Vec<_>) = items
        .into_iter()
        .partition(ConversationWithMessages::lacks_last_message);
    let unresolved = lacking
        .into_iter()
        .map(|item| item.conversation.channel_ref.into());
    (
        complete.into_iter().map(Into::into).collect(),
        unresolved.collect(),
    )
}

/// The content of an encoded cursor: opaque to clients, versioned for the server.
type CursorParts = (String, i64, i64, i64, u8, String);

const LIST_CURSOR: &str = "w1";
const CHANGES_CURSOR: &str = "c1";

fn encode_cursor(cursor: &WalkCursor) -> String {
    let parts: CursorParts = match cursor {
        WalkCursor::Changes(version) => {
            (CHANGES_CURSOR.to_owned(), version.0, 0, 0, 0, String::new())
        }
        WalkCursor::List { last, coverage } => (
            LIST_CURSOR.to_owned(),
            coverage.0,
            last.version.0,
            last.key.activity.0.0,
            last.key.channel_type,
            last.key.channel_id.clone(),
        ),
    };
    URL_SAFE_NO_PAD.encode(serde_json::json!(parts).to_string())
}

fn decode_cursor(text: &str) -> Option<WalkCursor> {
    if text.len() > MAX_CURSOR_BYTES {
        return None;
    }
    let decoded = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (kind, version, seen, activity, channel_type, channel_id) =
        serde_json::from_slice::<CursorParts>(&decoded).ok()?;
    if version < 0 || seen < 0 {
        return None;
    }
    match kind.as_str() {
        CHANGES_CURSOR => Some(WalkCursor::Changes(Version(version))),
        LIST_CURSOR => Some(WalkCursor::List {
            last: ListCursor {
                key: SortKey {
                    unpinned: true,
                    activity: Reverse(EpochMs(activity)),
                    channel_type,
                    channel_id,
                },
                version: Version(seen),
            },
            coverage: Version(version),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_round_trip_and_invalid_ones_are_refused(
            version in 0_i64..,
            seen in 0_i64..,
            activity: i64,
            channel_type: u8,
            channel_id in "\\PC{1,63}",
            text in ".*",
        ) {
            let last = ListCursor {
                key: SortKey { unpinned: true, activity: Reverse(EpochMs(activity)), channel_type, channel_id },
                version: Version(seen),
            };
            let list = WalkCursor::List { last, coverage: Version(version) };
            for cursor in [list, WalkCursor::Changes(Version(version))] {
                prop_assert_eq!(decode_cursor(&encode_cursor(&cursor)), Some(cursor));
            }
            prop_assert_eq!(decode_cursor(&text), None);
        }
    }

    #[test]
    fn the_longest_cursor_is_accepted() {
        let longest = WalkCursor::List {
            last: ListCursor {
                key: SortKey {
                    unpinned: true,
                    activity: Reverse(EpochMs(i64::MIN)),
                    channel_type: 255,
                    channel_id: "\"".repeat(ID_BYTES),
                },
                version: Version(i64::MAX),
            },
            coverage: Version(i64::MAX),
        };
        assert_eq!(decode_cursor(&encode_cursor(&longest)), Some(longest));
    }
}
