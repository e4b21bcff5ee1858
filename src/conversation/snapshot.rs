//! A snapshot of all conversations of a user. The pages, changes and sums of one request share it.

use std::sync::OnceLock;

use super::list::{SortKey, page_of};
use super::summary::sum_up;
use super::sync::{SyncChanges, build_answer, plan_all};
use super::visibility::{is_listed, is_listed_or_activated};
use super::{
    Conversation, ConversationRemoval, ConversationService, ListOrder, ListPage, ListRequest,
    SyncAnswer, SyncRequest, UnreadSummary,
};
use crate::error::Error;
use crate::message::AnswerSizeLimit;
use crate::model::{ConversationRow, Uid, Version};

/// All conversations of a user, each with a version.
#[derive(Debug)]
pub struct ConversationSnapshot {
    uid: Uid,
    /// Sorted by version.
    rows: Vec<ConversationRow>,
    /// Every later change has a larger version.
    version: Version,
    /// The largest version that had been given before.
    cursor: Version,
    /// The listed conversations in list order.
    listed: OnceLock<Vec<(SortKey, Conversation)>>,
    summary: OnceLock<UnreadSummary>,
}

impl ConversationSnapshot {
    /// Reads the conversations; stale ones get their next version.
    ///
    /// # Errors
    /// [`Error::ConversationsOff`], [`Error::Store`].
    pub async fn read(service: &ConversationService, uid: &Uid) -> Result<Self, Error> {
        service.base.check_conversations_on()?;
        let plan = plan_all(service, uid).await?;
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

    /// Returns a page of the list.
    #[must_use]
    pub fn page(&self, request: &ListRequest) -> ListPage {
        match request.order {
            // The fields of a document share this list.
            ListOrder::PinnedFirst => {
                let listed = self
                    .listed
                    .get_or_init(|| self.in_order(request.order, is_listed));
                page_of(listed, request, self.version)
            }
            ListOrder::Activity => {
                let listed = self.in_order(request.order, is_listed_or_activated);
                page_of(&listed, request, self.version)
            }
        }
    }

    fn in_order(
        &self,
        order: ListOrder,
        is_shown: fn(&ConversationRow) -> bool,
    ) -> Vec<(SortKey, Conversation)> {
        let shown = self
            .rows
            .iter()
            .filter(|row| is_shown(row))
            .map(|row| Conversation::new(&self.uid, row));
        let mut listed: Vec<_> = shown
            .map(|conversation| (SortKey::of(&conversation, order), conversation))
            .collect();
        listed.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        listed
    }

    /// Returns the conversations that [`ListOrder::Activity`] leaves out, in order of version.
    pub(super) fn removed(&self) -> Vec<ConversationRemoval> {
        self.rows
            .iter()
            .filter(|row| !is_listed_or_activated(row))
            .map(|row| ConversationRemoval::new(&self.uid, row))
            .collect()
    }

    /// Returns the unread counts of all conversations.
    #[must_use]
    pub fn summary(&self) -> &UnreadSummary {
        self.summary.get_or_init(|| sum_up(&self.rows))
    }

    /// Returns the changes since `request.version`, like [`super::sync()`].
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn changes(
        &self,
        service: &ConversationService,
        request: &SyncRequest,
        bytes: &AnswerSizeLimit,
    ) -> Result<SyncAnswer, Error> {
        let asked = request.version.max(Version::ZERO);
        let reset = asked > self.cursor;
        let client_version = if reset { Version::ZERO } else { asked };
        let is_full = client_version == Version::ZERO && request.first.is_none();
        let begin = if is_full {
            0
        } else {
            self.rows
                .partition_point(|row| row.version <= client_version)
        };
        let (unchanged, changed) = self.rows.split_at(begin);
        let page = &changed[..request.first.unwrap_or(usize::MAX).min(changed.len())];
        let has_more = page.len() < changed.len();
        let version = if has_more {
            page.last().map_or(client_version, |row| row.version)
        } else {
            self.version
        };
        let changes = SyncChanges {
            rows: page.iter().collect(),
            unchanged,
            version,
            has_more,
            client_version,
            reset,
        };
        build_answer(service, request, changes, bytes).await
    }
}
