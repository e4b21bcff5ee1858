//! All of a user's conversations as one read found them: pages, changes and sums of one request
//! share it.

use std::sync::{Arc, OnceLock};

use super::list::{SortKey, page_of};
use super::summary::sum_up;
use super::sync::{Changes, answer_with, plan_all};
use super::visibility::is_listed;
use super::{Conversation, ListPage, ListRequest, SyncAnswer, SyncRequest, UnreadSummary};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{Uid, Version};
use crate::message::AnswerBytes;
use crate::store::ConversationRow;

/// All of a user's conversations, each with a version.
#[derive(Debug)]
pub struct UserList {
    uid: Uid,
    /// By version.
    rows: Vec<ConversationRow>,
    /// Everything that changes from now on has a larger version.
    version: Version,
    /// The largest version that had been given out before.
    cursor: Version,
    /// Those that show, in the order of the list.
    listed: OnceLock<Vec<(SortKey, Conversation)>>,
    summary: OnceLock<UnreadSummary>,
}

impl UserList {
    /// Reads it; what is stale gets its version.
    ///
    /// # Errors
    /// [`Error::ConversationsOff`], [`Error::Store`].
    pub async fn read(core: &Arc<Core>, uid: &Uid) -> Result<Self, Error> {
        core.check_conversations_on()?;
        let plan = plan_all(core, uid).await?;
        let (version, cursor) = (plan.version, plan.cursor);
        Ok(Self {
            uid: uid.clone(),
            rows: plan.rows,
            version,
            cursor,
            listed: OnceLock::new(),
            summary: OnceLock::new(),
        })
    }

    /// A page of the list.
    #[must_use]
    pub fn page(&self, request: &ListRequest) -> ListPage {
        let listed = self.listed.get_or_init(|| {
            let shown = self
                .rows
                .iter()
                .filter(|row| is_listed(row))
                .map(|row| Conversation::new(&self.uid, row));
            let mut listed: Vec<_> = shown
                .map(|conversation| (SortKey::of(&conversation), conversation))
                .collect();
            listed.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            listed
        });
        page_of(listed, request, self.version)
    }

    /// What is unread in all of it.
    #[must_use]
    pub fn summary(&self) -> &UnreadSummary {
        self.summary.get_or_init(|| sum_up(&self.rows))
    }

    /// What changed since `request.version`: the answer of [`super::sync()`].
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn changes(
        &self,
        core: &Core,
        request: &SyncRequest,
        bytes: &AnswerBytes,
    ) -> Result<SyncAnswer, Error> {
        let asked = request.version.max(0);
        let reset = asked > self.cursor;
        let since = if reset { 0 } else { asked };
        let is_full = since == 0 && request.first.is_none();
        let begin = if is_full {
            0
        } else {
            self.rows.partition_point(|row| row.version <= since)
        };
        let (rest, changed) = self.rows.split_at(begin);
        let page = &changed[..request.first.unwrap_or(usize::MAX).min(changed.len())];
        let has_more = page.len() < changed.len();
        let version = if has_more {
            page.last().map_or(since, |row| row.version)
        } else {
            self.version
        };
        let changes = Changes {
            rows: page.iter().collect(),
            rest,
            version,
            has_more,
            since,
            reset,
        };
        answer_with(core, request, changes, bytes).await
    }
}
