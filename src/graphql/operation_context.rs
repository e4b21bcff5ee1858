//! State that the fields of one operation share, so that a document with many fields costs the
//! database and other users little more than one with few fields: a cache of the user's list, the
//! byte limit of the answer, and permits that bound concurrency.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::error::{GraphqlError, Result};
use crate::budget;
use crate::conversation::{ConversationSnapshot, UnreadSummary, summarize};
use crate::error::Error;
use crate::message::AnswerSizeLimit;
use crate::model::Uid;
use crate::services::Services;

/// Concurrent reads of one operation: its share of the database connections.
const MAX_PERMITS: usize = 2;
/// Root fields that read a user's whole list and assign versions.
const VERSION_ASSIGNING_FIELDS: [&str; 2] = ["conversations", "conversationList"];

/// State that the fields of one operation share.
#[derive(Debug)]
pub(super) struct OperationContext {
    core: Arc<Services>,
    lists: Mutex<HashMap<Uid, Arc<UserReads>>>,
    /// Number of root fields that assign versions.
    version_assigning_fields: usize,
    /// The remaining bytes for messages of the answer.
    pub(super) bytes: AnswerSizeLimit,
    permits: Semaphore,
    /// Number of conversations in the answer so far.
    conversations: AtomicUsize,
}

/// Cached reads of one user.
#[derive(Debug, Default)]
struct UserReads {
    list: OnceCell<std::result::Result<Arc<ConversationSnapshot>, Error>>,
    summary: OnceCell<std::result::Result<UnreadSummary, Error>>,
}

/// A permit to do work, counted against the limits of the operation and of its user.
pub(super) struct WorkPermit<'a> {
    _of_operation: Option<SemaphorePermit<'a>>,
    _of_user: Option<budget::UserPermit>,
}

impl OperationContext {
    /// Creates the state of an operation with these root fields.
    pub(super) fn new<'a>(core: Arc<Services>, root: impl Iterator<Item = &'a str>) -> Self {
        Self {
            lists: Mutex::default(),
            version_assigning_fields: root
                .filter(|field| VERSION_ASSIGNING_FIELDS.contains(field))
                .count(),
            bytes: AnswerSizeLimit::new(core.base.limits.answer_bytes),
            permits: Semaphore::new(MAX_PERMITS),
            conversations: AtomicUsize::new(0),
            core,
        }
    }

    /// Waits for a permit. It yields first, so that other users' tasks run between the fields of
    /// one operation, which would otherwise run one after the other without a pause.
    ///
    /// A task that has a permit must not wait for another one.
    pub(super) async fn acquire_permit(&self) -> WorkPermit<'_> {
        let of_operation = self.permits.acquire().await.ok();
        let of_user = budget::acquire_user_permit().await;
        tokio::task::yield_now().await;
        WorkPermit {
            _of_operation: of_operation,
            _of_user: of_user,
        }
    }

    /// True if several fields read lists, so that one read of the whole list serves them all.
    pub(super) fn shares_lists(&self) -> bool {
        self.version_assigning_fields > 1
    }

    fn lists(&self, uid: &Uid) -> Arc<UserReads> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lists.entry(uid.clone()).or_default())
    }

    /// Returns the user's list; reads it once per operation.
    pub(super) async fn list(&self, uid: &Uid) -> Result<Arc<ConversationSnapshot>> {
        let lists = self.lists(uid);
        let read = async || {
            let _permit = self.acquire_permit().await;
            ConversationSnapshot::read(&self.core.conversations, uid)
                .await
                .map(Arc::new)
        };
        lists
            .list
            .get_or_init(read)
            .await
            .clone()
            .map_err(GraphqlError::from)
    }

    /// Returns the unread totals of all of the user's conversations; derives them from the list if
    /// that is read anyway.
    pub(super) async fn summary(&self, uid: &Uid) -> Result<UnreadSummary> {
        let lists = self.lists(uid);
        if self.shares_lists() || lists.list.initialized() {
            return Ok(self.list(uid).await?.summary().clone());
        }
        let read = async || {
            let _permit = self.acquire_permit().await;
            summarize(&self.core.conversations, uid).await
        };
        lists
            .summary
            .get_or_init(read)
            .await
            .clone()
            .map_err(GraphqlError::from)
    }

    /// Drops cached reads at the start of a mutation, because they may become outdated.
    pub(super) fn invalidate_lists(&self) {
        self.lists
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Resets the state before the next event of a subscription.
    pub(super) fn reset(&self) {
        self.invalidate_lists();
        self.bytes.reset();
        self.conversations.store(0, Ordering::Relaxed);
    }

    /// Counts the conversations of whole lists. A single list is always allowed; several are
    /// refused long before an answer takes all memory.
    pub(super) fn count_conversations(&self, number: usize) -> Result<()> {
        let before = self.conversations.fetch_add(number, Ordering::Relaxed);
        let limit = self.core.base.limits.document_complexity / 10;
        if before > 0 && before + number > limit {
            let text = format!(
                "the answer has more than {limit} conversations: ask for fewer lists at once, or with `first`"
            );
            return Err(Error::TooComplex(text.into()).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::clock::{Clock, IdGenerator};
    use crate::config::Settings;

    #[tokio::test]
    async fn operation_holds_two_permits_and_yields_before_each() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.database.url = format!("sqlite://{}?mode=rwc", folder.path().join("db").display())
            .as_str()
            .into();
        let store = crate::server::connect(&settings).await.unwrap();
        let core = Arc::new(Services::new(
            store,
            Clock::System,
            IdGenerator::random(),
            &settings,
            |_, _| {},
        ));
        let operation = OperationContext::new(core, ["conversations", "unreadSummary"].into_iter());
        assert!(!operation.shares_lists(), "a summary assigns no versions");
        let mut first = std::pin::pin!(operation.acquire_permit());
        assert!(
            futures_util::poll!(&mut first).is_pending(),
            "it yields first"
        );
        let first = first.await;
        let _second = operation.acquire_permit().await;
        assert!(
            timeout(Duration::from_millis(50), operation.acquire_permit())
                .await
                .is_err(),
            "both permits are taken"
        );
        drop(first);
        assert!(
            timeout(Duration::from_secs(10), operation.acquire_permit())
                .await
                .is_ok()
        );
    }
}
