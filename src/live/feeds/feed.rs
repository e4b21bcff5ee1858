//! The feed of one user: the task that turns invalidations into events.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Feeds;
use crate::bus::Subscription;
use crate::conversation::{SyncAnswer, SyncRequest, sync_under_lock};
use crate::error::Error;
use crate::live::retry::retry_transient;
use crate::model::{ChannelRef, ChannelType, Uid, Version};

/// The minimum average interval of a user's events: a busy group must not cause a sync for each of
/// its messages. Short bursts are allowed.
const MIN_EVENT_INTERVAL: Duration = Duration::from_millis(100);
const EVENT_BURST: u32 = 10;
/// Maximum size of an event that is buffered for subscribers.
const MAX_EVENT_BYTES: usize = 128 * 1024;
/// The version of a feed without an up-to-date subscriber so far.
pub(super) const UNINITIALISED: i64 = -1;

/// The feed of one user.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) state: Arc<FeedState>,
    pub(super) task: AbortHandle,
}

#[derive(Debug)]
pub(super) struct FeedState {
    pub(super) uid: Uid,
    pub(super) subscription: Subscription,
    pub(super) events: broadcast::Sender<Arc<Event>>,
    /// The version of the last event.
    pub(super) version: AtomicI64,
    pub(super) initialised: Notify,
    /// The largest number of messages that a subscriber requested.
    pub(super) msg_count: AtomicU32,
    /// True if the subscription contains all of the user's channels.
    pub(super) ready: watch::Sender<bool>,
}

/// The changes between two versions.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) since: Version,
    /// `None` if it is too large to be buffered; subscribers sync instead.
    pub(super) answer: Option<SyncAnswer>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FeedState {
    /// Subscribes to the new channels of an answer, and unsubscribes from channels that the user
    /// left. A message between the sync and the subscription woke no subscriber, so the feed syncs
    /// again after each new channel. Person channels are covered by the subscription to the user.
    pub(super) fn update_channels(&self, answer: &SyncAnswer) {
        let is_person = |channel: &ChannelRef| channel.channel_type == ChannelType::PERSON;
        let listed = answer.conversations.iter().map(|item| &item.conversation);
        let listed = listed
            .filter(|listed| !is_person(&listed.channel_ref))
            .map(|listed| listed.channel_pk);
        let (members, left): (Vec<_>, Vec<_>) = answer
            .removed
            .iter()
            .filter(|removed| !is_person(&removed.channel_ref))
            .partition(|removed| removed.is_member);
        let has_new = self
            .subscription
            .add_channels(listed.chain(members.into_iter().map(|removed| removed.channel_pk)));
        self.subscription
            .remove_channels(left.into_iter().map(|removed| removed.channel_pk));
        if has_new {
            self.subscription.waker.wake();
        }
    }

    /// Sets the feed's first version: the version of the first subscriber that is up to date.
    pub(super) fn initialise(&self, version: Version) {
        let exchange = self.version.compare_exchange(
            UNINITIALISED,
            version.0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if exchange.is_ok() {
            self.initialised.notify_one();
        }
    }
}

/// The task of a feed. It ends with the last subscriber. After a failure that is not transient the
/// subscribers sync by themselves and get the error from their syncs.
pub(super) async fn run_feed(feeds: Arc<Feeds>, state: Arc<FeedState>) {
    let channels =
        retry_transient(async || Ok(feeds.core.base.store.list_channel_ids(&state.uid).await?))
            .await;
    match channels {
        Ok(channels) => drop(state.subscription.add_channels(channels)),
        Err(error) => error.log(),
    }
    state.ready.send_replace(true);
    // The time of the next event at the minimum average interval.
    let mut next_due = Instant::now();
    loop {
        state.subscription.waker.notified().await;
        let burst = MIN_EVENT_INTERVAL * EVENT_BURST;
        let early = next_due.saturating_duration_since(Instant::now() + burst);
        tokio::time::sleep(feeds.debounce.max(early)).await;
        next_due = next_due.max(Instant::now()) + MIN_EVENT_INTERVAL;
        while state.version.load(Ordering::Relaxed) == UNINITIALISED {
            state.initialised.notified().await;
        }
        // The following sync covers earlier invalidations.
        let _ = state.subscription.waker.notified().now_or_never();
        if let Err(error) = advance(&feeds, &state).await {
            error.log();
            // No change is lost: the next invalidation or the poll retries.
        }
    }
}

/// Sends the changes since the feed's version to the subscribers.
async fn advance(feeds: &Feeds, state: &FeedState) -> Result<(), Error> {
    loop {
        let since = Version(state.version.load(Ordering::Relaxed));
        let mut request = SyncRequest::new(state.uid.clone());
        request.version = since;
        request.msg_count = state.msg_count.load(Ordering::Relaxed);
        request.first = Some(feeds.core.base.limits.page_size as usize);
        let answer = retry_transient(async || {
            let mut answer = sync_under_lock(&feeds.core.conversations, &request).await?;
            if !answer.has_more {
                answer.sort_by_activity();
            }
            Ok(answer)
        })
        .await?;
        state.update_channels(&answer);
        if answer.reset || since == Version::ZERO {
            // A full answer does not contain channels that are not listed.
            let channels = retry_transient(async || {
                Ok(feeds.core.base.store.list_channel_ids(&state.uid).await?)
            })
            .await?;
            if state.subscription.add_channels(channels) {
                state.subscription.waker.wake();
            }
        }
        let (version, has_more) = (answer.version, answer.has_more);
        let has_changes =
            !answer.conversations.is_empty() || !answer.removed.is_empty() || answer.reset;
        state.version.store(version.0, Ordering::Relaxed);
        if has_changes || version != since {
            // Sending fails only if there are no subscribers.
            let answer = (answer.bytes() <= MAX_EVENT_BYTES).then_some(answer);
            let _ = state.events.send(Arc::new(Event { since, answer }));
        }
        if !has_more {
            return Ok(());
        }
    }
}
