//! The feed of one channel: the task that reads new messages and sends them to subscribers.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use super::{MAX_EVENT_BYTES, MessageFeeds, lock};
use crate::bus::Subscription;
use crate::error::Error;
use crate::live::retry::retry_transient;
use crate::message::{AnswerSizeLimit, list_after};
use crate::model::{ChannelKey, ChannelPk, ConversationRow, Message, Seq, Uid};

/// The feed of one channel.
#[derive(Debug)]
pub(super) struct MessageFeed {
    pub(super) state: Arc<MessageFeedState>,
    pub(super) task: AbortHandle,
}

#[derive(Debug)]
pub(super) struct MessageFeedState {
    pub(super) channel_id: ChannelPk,
    pub(super) key: ChannelKey,
    pub(super) subscription: Subscription,
    /// The subscribed users, with their number of subscriptions.
    pub(super) viewers: Mutex<HashMap<Uid, usize>>,
    /// The seq up to which messages were sent to subscribers.
    pub(super) published_seq: AtomicI64,
    pub(super) events: broadcast::Sender<Arc<NewMessages>>,
}

impl MessageFeedState {
    pub(super) fn published_seq(&self) -> Seq {
        Seq(self.published_seq.load(Ordering::Relaxed))
    }
}

/// New messages of a channel.
#[derive(Debug)]
pub(super) struct NewMessages {
    /// There are no messages between this seq and `to` other than `messages`.
    pub(super) since: Seq,
    /// The seq of the last message.
    pub(super) to: Seq,
    pub(super) messages: Vec<Message>,
    /// The messages that each user may see, read after `messages`.
    pub(super) visibility: HashMap<Uid, Visibility>,
}

#[derive(Clone, Debug)]
pub(super) struct Visibility {
    pub(super) seqs: RangeInclusive<Seq>,
    pub(super) is_member: bool,
}

impl Visibility {
    fn from_row(row: &ConversationRow) -> Self {
        // A member's range is open-ended, because the row may be older than the messages.
        let seqs = row.visible_seqs();
        let end = if row.is_member() {
            Seq::MAX
        } else {
            *seqs.end()
        };
        Self {
            seqs: *seqs.start()..=end,
            is_member: row.is_member(),
        }
    }
}

impl Drop for MessageFeed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task of a feed. It ends with the last subscriber.
pub(super) async fn run_feed(feeds: Arc<MessageFeeds>, state: Arc<MessageFeedState>) {
    loop {
        state.subscription.waker.notified().await;
        tokio::time::sleep(feeds.debounce).await;
        let changed_users = state.subscription.waker.take_changed_users();
        if let Err(error) = advance(&feeds, &state, &changed_users).await {
            error.log();
            // No message is lost: the next invalidation or the poll retries.
        }
    }
}

/// Sends all new messages, and the new ranges of visible messages to changed users.
async fn advance(
    feeds: &MessageFeeds,
    state: &MessageFeedState,
    changed_users: &HashSet<String>,
) -> Result<(), Error> {
    let mut changed_users = Some(changed_users);
    loop {
        let since = state.published_seq();
        let (messages, has_more) = retry_transient(async || {
            let _permit = feeds.sync_permits.acquire().await;
            let bytes =
                AnswerSizeLimit::new(MAX_EVENT_BYTES.min(feeds.core.base.limits.answer_bytes));
            list_after(
                &feeds.core.messages,
                state.channel_id,
                &state.key,
                since,
                &bytes,
            )
            .await
        })
        .await?;
        // Visibility is read after the messages: users who left before a message was stored must
        // not get it.
        let viewers: Vec<Uid> = lock(&state.viewers).keys().cloned().collect();
        let is_affected = |uid: &&Uid| {
            !messages.is_empty()
                || changed_users.is_some_and(|changed_users| changed_users.contains(uid.as_str()))
        };
        let pairs: Vec<(&Uid, ChannelPk)> = viewers
            .iter()
            .filter(is_affected)
            .map(|uid| (uid, state.channel_id))
            .collect();
        changed_users = None;
        if pairs.is_empty() && messages.is_empty() {
            return Ok(());
        }
        let views = retry_transient(async || {
            let _permit = feeds.sync_permits.acquire().await;
            Ok(feeds.core.base.store.find_member_views(&pairs).await?)
        })
        .await?;
        let visibility: HashMap<Uid, Visibility> = views
            .into_iter()
            .map(|view| (view.uid, Visibility::from_row(&view.row)))
            .collect();
        let to = messages.last().map_or(since, |message| message.seq);
        state.published_seq.store(to.0, Ordering::Relaxed);
        if !messages.is_empty() || visibility.values().any(|visibility| !visibility.is_member) {
            // Sending fails only if there are no subscribers.
            let _ = state.events.send(Arc::new(NewMessages {
                since,
                to,
                messages,
                visibility,
            }));
        }
        if !has_more {
            return Ok(());
        }
    }
}
