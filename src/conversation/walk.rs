//! Walks, as `WuKongIM` v3's clients make them: page by page, through the whole list or through what
//! changed since the last completed walk.
//!
//! A walk through the list goes from the newest activity to the oldest; its last page names what is
//! not listed. It covers the state at its first page: a later change has a version above
//! [`WalkPage::coverage`], so the next walk returns it. A walk through changes is a paged
//! [`sync()`](super::sync()).

use std::collections::{HashMap, HashSet};

use super::list::SortKey;
use super::recent_messages::{RecentMessagesKey, list_recent_messages};
use super::visibility::is_listed_or_activated;
use super::with_messages::get_shown;
use super::{
    Conversation, ConversationRemoval, ConversationService, ConversationSnapshot,
    ConversationWithMessages, ListCursor, ListFilter, ListOrder, ListRequest, SyncDetail,
    SyncFilter, SyncRequest, sync,
};
use crate::error::Error;
use crate::message::{AnswerSizeLimit, MessageSlice};
use crate::model::{ChannelRef, Uid, Version};

/// A request for a page of a walk.
#[derive(Clone, Debug)]
pub struct WalkRequest {
    /// The user.
    pub uid: Uid,
    /// Where the last page ended; `None` begins a walk.
    pub cursor: Option<WalkCursor>,
    /// The coverage of the last completed walk; 0 for none.
    pub completed: Version,
    /// Maximum number of conversations, in a walk through changes also of removed ones.
    pub limit: u32,
}

/// The end of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkCursor {
    /// In the list.
    List {
        /// The last conversation of the page.
        last: ListCursor,
        /// The user's version at the first page.
        coverage: Version,
    },
    /// In the changes: those up to this version were returned.
    Changes(Version),
}

/// A page of a walk.
#[derive(Clone, Debug, PartialEq)]
pub struct WalkPage {
    /// The conversations with their last messages, newest activity first.
    pub conversations: Vec<ConversationWithMessages>,
    /// Conversations that are not listed any more.
    pub removed: Vec<ConversationRemoval>,
    /// Where the next page begins; `None` after a page without any entry.
    pub cursor: Option<WalkCursor>,
    /// True for the last page.
    pub is_last: bool,
    /// The version that the walk covers when it is complete: later changes have larger ones.
    pub coverage: Version,
    /// True if the requested coverage is unknown: this is the first page of the list, and the
    /// client must discard its state.
    pub reset: bool,
}

/// Returns a page of a walk.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn walk(service: &ConversationService, request: &WalkRequest) -> Result<WalkPage, Error> {
    let begin = match &request.cursor {
        None => request.completed,
        Some(WalkCursor::Changes(version)) => *version,
        Some(WalkCursor::List { last, coverage }) => {
            return list_page(service, request, Some((last, *coverage)), false).await;
        }
    };
    if begin > Version::ZERO
        && let Some(page) = changes_page(service, request, begin).await?
    {
        return Ok(page);
    }
    list_page(service, request, None, begin > Version::ZERO).await
}

/// Returns a page of what changed since a version, or `None` if the version is unknown.
async fn changes_page(
    service: &ConversationService,
    request: &WalkRequest,
    begin: Version,
) -> Result<Option<WalkPage>, Error> {
    let changes = SyncRequest {
        version: begin,
        filter: SyncFilter {
            include_activated: true,
            ..SyncFilter::default()
        },
        first: Some(request.limit as usize),
        detail: SyncDetail::Messages,
        ..SyncRequest::new(request.uid.clone())
    };
    let answer = sync(service, &changes).await?;
    if answer.reset {
        return Ok(None);
    }
    let mut conversations = answer.conversations;
    conversations.sort_by_cached_key(|item| SortKey::of(&item.conversation, ListOrder::Activity));
    let is_empty = conversations.is_empty() && answer.removed.is_empty();
    let cursor = answer.has_more || !is_empty;
    Ok(Some(WalkPage {
        conversations,
        removed: answer.removed,
        cursor: cursor.then_some(WalkCursor::Changes(answer.version)),
        is_last: !answer.has_more,
        coverage: answer.version,
        reset: false,
    }))
}

async fn list_page(
    service: &ConversationService,
    request: &WalkRequest,
    after: Option<(&ListCursor, Version)>,
    reset: bool,
) -> Result<WalkPage, Error> {
    let snapshot = ConversationSnapshot::read(service, &request.uid).await?;
    let page = snapshot.page(&ListRequest {
        uid: request.uid.clone(),
        filter: ListFilter::default(),
        after: after.map(|(last, _)| last.clone()),
        before: None,
        limit: request.limit,
        from_end: false,
        order: ListOrder::Activity,
    });
    let coverage = after.map_or(page.version, |(_, coverage)| coverage);
    let cursor = page.conversations.last().map(|(last, _)| WalkCursor::List {
        last: last.clone(),
        coverage,
    });
    let conversations = page
        .conversations
        .into_iter()
        .map(|(_, conversation)| conversation);
    Ok(WalkPage {
        conversations: with_last_messages(service, conversations.collect()).await?,
        removed: if page.has_next {
            Vec::new()
        } else {
            snapshot.removed()
        },
        cursor,
        is_last: !page.has_next,
        coverage,
        reset,
    })
}

async fn with_last_messages(
    service: &ConversationService,
    conversations: Vec<Conversation>,
) -> Result<Vec<ConversationWithMessages>, Error> {
    let keys: Vec<RecentMessagesKey> = conversations
        .iter()
        .map(|conversation| RecentMessagesKey::of(conversation, 1))
        .collect();
    let bytes = AnswerSizeLimit::new(service.base.limits.answer_bytes);
    let newest = list_recent_messages(service, &keys, &bytes).await?;
    let items = conversations.into_iter().zip(newest);
    Ok(items
        .map(|(conversation, newest)| ConversationWithMessages {
            conversation,
            last_message: newest.first().cloned(),
            recents: MessageSlice::default(),
        })
        .collect())
}

/// Returns the conversations that a walk would return for these channels. All others are not
/// listed.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn find_in_walk(
    service: &ConversationService,
    uid: &Uid,
    channels: &[ChannelRef],
) -> Result<HashMap<ChannelRef, ConversationWithMessages>, Error> {
    let distinct: HashSet<&ChannelRef> = channels.iter().collect();
    let channels: Vec<ChannelRef> = distinct.into_iter().cloned().collect();
    get_shown(service, uid, &channels, 0, is_listed_or_activated).await
}
