//! `/conversation/sync`

use std::collections::{BTreeSet, HashSet};

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::NamedChannel;
use crate::auth::{Action, Caller};
use crate::conversation::{
    self as conversations, SyncDetail, SyncFilter, SyncRequest, parse_last_msg_seqs,
};
use crate::error::Error;
use crate::model::{ChannelRef, Uid, Version};
use crate::rest::legacy::{ErrorResponse, LenientBody, RawJsonResponse};
use crate::state::AppState;
use crate::wukongim::Flag;
use crate::wukongim::dto::{ConversationDto, SyncEntryDto, write_entries};

/// Conversations of a page if `page_size` is not given.
const DEFAULT_PAGE_SIZE: usize = 100;
/// Maximum number of conversations of a page.
const MAX_PAGE_SIZE: i64 = 500;

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

/// The changes since `version`, with the newest messages.
#[utoipa::path(
    post,
    path = "/conversation/sync",
    operation_id = "syncConversations",
    request_body = SyncBody,
    responses((status = 200, description = "success", body = Vec<SyncEntryDto>), ErrorResponse)
)]
pub(in crate::rest::wukong) async fn sync(
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
            include_activated: false,
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
