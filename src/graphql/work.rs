//! What the fields of one operation share, so that a document with many fields costs the database,
//! and other users, little more than one with few: one read of a user's list, the bytes of the
//! answer, and turns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::error::{GraphqlError, Result};
use crate::budget;
use crate::conversation::{UnreadSummary, UserList, summarize};
use crate::core::Core;
use crate::error::Error;
use crate::ids::Uid;
use crate::message::AnswerBytes;

/// Reads of one operation at once: its share of the connections to the database.
const AT_ONCE: usize = 2;
/// Root fields that read a user's whole list and give versions.
const STAMPING: [&str; 2] = ["conversations", "conversationList"];

/// What the fields of one operation share.
#[derive(Debug)]
pub(super) struct Work {
    core: Arc<Core>,
    lists: Mutex<HashMap<Uid, Arc<Lists>>>,
    /// How many fields of the root give versions.
    stamping: usize,
    /// What the messages of the answer may still have.
    pub(super) bytes: AnswerBytes,
    turns: Semaphore,
    /// Conversations of the answer so far.
    conversations: AtomicUsize,
}

/// What was read of one user.
#[derive(Debug, Default)]
struct Lists {
    list: OnceCell<std::result::Result<Arc<UserList>, Error>>,
    summary: OnceCell<std::result::Result<UnreadSummary, Error>>,
}

/// One of the things that an operation, and its user, may do at once.
pub(super) struct Turn<'a> {
    _of_operation: Option<SemaphorePermit<'a>>,
    _of_user: Option<budget::Turn>,
}

impl Work {
    /// Of an operation with these fields at its root.
    pub(super) fn new<'a>(core: Arc<Core>, root: impl Iterator<Item = &'a str>) -> Self {
        Self {
            lists: Mutex::default(),
            stamping: root.filter(|field| STAMPING.contains(field)).count(),
            bytes: AnswerBytes::new(core.limits.answer_bytes),
            turns: Semaphore::new(AT_ONCE),
            conversations: AtomicUsize::new(0),
            core,
        }
    }

    /// Waits until this operation may do one more thing. Everybody else's work that can go on goes
    /// first: fields that need not wait would be done one after the other without a pause.
    ///
    /// Who has a turn must not wait for another one.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let of_operation = self.turns.acquire().await.ok();
        let of_user = budget::turn().await;
        tokio::task::yield_now().await;
        Turn {
            _of_operation: of_operation,
            _of_user: of_user,
        }
    }

    /// Whether several fields read lists, so that one read of the whole list serves them all.
    pub(super) fn shares_lists(&self) -> bool {
        self.stamping > 1
    }

    fn lists(&self, uid: &Uid) -> Arc<Lists> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lists.entry(uid.clone()).or_default())
    }

    /// The user's list: read once.
    pub(super) async fn list(&self, uid: &Uid) -> Result<Arc<UserList>> {
        let lists = self.lists(uid);
        let read = async || {
            let _turn = self.turn().await;
            UserList::read(&self.core, uid).await.map(Arc::new)
        };
        lists
            .list
            .get_or_init(read)
            .await
            .clone()
            .map_err(GraphqlError::from)
    }

    /// What is unread in all of the user's conversations; of the list, where that is read anyway.
    pub(super) async fn summary(&self, uid: &Uid) -> Result<UnreadSummary> {
        let lists = self.lists(uid);
        if self.shares_lists() || lists.list.initialized() {
            return Ok(self.list(uid).await?.summary().clone());
        }
        let read = async || {
            let _turn = self.turn().await;
            summarize(&self.core, uid).await
        };
        lists
            .summary
            .get_or_init(read)
            .await
            .clone()
            .map_err(GraphqlError::from)
    }

    /// A mutation begins: what was read before may not be so any more.
    pub(super) fn forget_lists(&self) {
        self.lists
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The next answer of a subscription begins.
    pub(super) fn renew(&self) {
        self.forget_lists();
        self.bytes.renew();
        self.conversations.store(0, Ordering::Relaxed);
    }

    /// Counts conversations of whole lists. The first list is never too long; several of them are,
    /// long before an answer takes all memory.
    pub(super) fn count_conversations(&self, number: usize) -> Result<()> {
        let before = self.conversations.fetch_add(number, Ordering::Relaxed);
        let limit = self.core.limits.document_complexity / 10;
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
    use crate::clock::{Clock, Ids};
    use crate::config::Settings;

    #[tokio::test]
    async fn an_operation_takes_two_turns_at_once_and_gives_way_before_each() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.database.url = format!("sqlite://{}?mode=rwc", folder.path().join("db").display())
            .as_str()
            .into();
        let store = crate::app::connect(&settings).await.unwrap();
        let core = Arc::new(Core::new(store, Clock::System, Ids::random(), &settings));
        let work = Work::new(core, ["conversations", "unreadSummary"].into_iter());
        assert!(!work.shares_lists(), "a sum gives no versions");
        let mut first = std::pin::pin!(work.turn());
        assert!(
            futures_util::poll!(&mut first).is_pending(),
            "others go first"
        );
        let first = first.await;
        let _second = work.turn().await;
        assert!(
            timeout(Duration::from_millis(50), work.turn())
                .await
                .is_err(),
            "there are two"
        );
        drop(first);
        assert!(timeout(Duration::from_secs(10), work.turn()).await.is_ok());
    }
}
