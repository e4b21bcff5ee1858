//! Live changes of users' lists: one feed for each user with subscribers, whatever their number.
//!
//! A feed syncs from its own version to the current one and sends the answer to all its
//! subscribers. A subscriber first listens to the feed and then syncs once from *its* own version.
//! An event covers the versions `since..version`: a subscriber inside that range applies it; a
//! subscriber below `since` has missed an event and syncs again. Therefore no change is lost
//! between the first sync and the first event, and slow subscribers lose none.

mod feed;
mod subscriber;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::{Notify, Semaphore, broadcast, watch};

use self::feed::{Feed, FeedState, UNINITIALISED};
use self::subscriber::{Subscriber, SubscriberState};
use super::message_feeds::{MessageFeedRequest, MessageFeeds};
use crate::budget;
use crate::bus::{NotificationBus, Subscription};
use crate::conversation::{SyncAnswer, SyncRequest, sync};
use crate::error::Error;
use crate::model::{Message, Uid, Version};
use crate::services::Services;

/// Number of events that are buffered for a slow subscriber; after more events it has to sync.
const EVENT_BUFFER: usize = 16;

/// All feeds of this server.
#[derive(Debug)]
pub(crate) struct Feeds {
    core: Arc<Services>,
    bus: Arc<NotificationBus>,
    feeds: Mutex<HashMap<Uid, Weak<Feed>>>,
    /// Limits concurrent syncs, to leave database connections for requests. Under load, subscribers
    /// wait for a permit and then get several changes in one event.
    sync_permits: Arc<Semaphore>,
    debounce: Duration,
    /// Feeds of open chats, which are polled together with the others.
    message_feeds: Arc<MessageFeeds>,
}

impl Feeds {
    pub(crate) fn new(
        core: Arc<Services>,
        debounce: Duration,
        max_concurrent_syncs: usize,
    ) -> Self {
        let bus = Arc::clone(&core.base.bus);
        let sync_permits = Arc::new(Semaphore::new(max_concurrent_syncs.max(1)));
        let message_feeds = Arc::new(MessageFeeds::new(
            Arc::clone(&core),
            debounce,
            Arc::clone(&sync_permits),
        ));
        Self {
            core,
            bus,
            feeds: Mutex::default(),
            sync_permits,
            debounce,
            message_feeds,
        }
    }

    /// Streams a channel's new messages, see [`MessageFeeds::subscribe`].
    ///
    /// # Errors
    /// [`Error::NotFound`] if the user is not in the channel.
    pub(crate) async fn messages_added(
        &self,
        request: MessageFeedRequest,
    ) -> Result<impl Stream<Item = Result<Message, Error>> + Send + use<>, Error> {
        self.message_feeds.subscribe(request).await
    }

    /// Streams the changes since `version`, in pages if there are many, and then every change. The
    /// first event is sent even without changes. Transient failures of the database are
    /// retried; any other failure ends the stream.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        uid: Uid,
        version: Version,
        msg_count: u32,
    ) -> impl Stream<Item = Result<SyncAnswer, Error>> + Send + use<> {
        let feed = self.get_or_start(&uid, msg_count);
        let subscriber = Subscriber {
            events: feed.state.events.subscribe(),
            feeds: Arc::clone(self),
            feed,
            version: version.max(Version::ZERO),
            msg_count,
            state: SubscriberState::CatchingUp { is_first: true },
        };
        futures_util::stream::unfold(subscriber, |mut subscriber| async move {
            let event = subscriber.next().await?;
            metrics::counter!(crate::metrics::LIVE_EVENTS_TOTAL).increment(1);
            Some((event, subscriber))
        })
    }

    /// Returns the user's feed, which is started if necessary.
    fn get_or_start(self: &Arc<Self>, uid: &Uid, msg_count: u32) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = feeds.get(uid).and_then(Weak::upgrade);
        let feed = known.unwrap_or_else(|| {
            let state = Arc::new(FeedState {
                uid: uid.clone(),
                subscription: Subscription::for_user(&self.bus, uid),
                events: broadcast::Sender::new(EVENT_BUFFER),
                version: AtomicI64::new(UNINITIALISED),
                initialised: Notify::new(),
                msg_count: AtomicU32::new(0),
                ready: watch::Sender::new(false),
            });
            let task =
                tokio::spawn(feed::run_feed(Arc::clone(self), Arc::clone(&state))).abort_handle();
            let feed = Arc::new(Feed { state, task });
            feeds.insert(uid.clone(), Arc::downgrade(&feed));
            feed
        });
        feed.state.msg_count.fetch_max(msg_count, Ordering::Relaxed);
        feed
    }

    async fn sync_once(&self, request: &SyncRequest) -> Result<SyncAnswer, Error> {
        let _user_permit = budget::acquire_user_permit().await;
        let _permit = self.sync_permits.acquire().await;
        let mut answer = sync(&self.core.conversations, request).await?;
        if !answer.has_more {
            answer.sort_by_activity();
        }
        Ok(answer)
    }

    /// Wakes feeds that missed changes: at an interval, because invalidations can be lost, and
    /// immediately after an invalidation for everybody.
    pub(crate) async fn poll(&self, interval: Duration) {
        loop {
            let is_requested = tokio::select! {
                () = tokio::time::sleep(interval) => false,
                () = self.bus.everybody.notified() => true,
            };
            self.message_feeds.wake_outdated().await;
            let feeds = self.running();
            metrics::gauge!(crate::metrics::LIVE_FEEDS).set(feeds.len() as f64);
            for some in feeds.chunks(500) {
                let known: Vec<(&Uid, Version)> = some
                    .iter()
                    .map(|feed| {
                        let version = feed.state.version.load(Ordering::Relaxed);
                        (&feed.state.uid, Version(version))
                    })
                    .collect();
                match self.core.base.store.list_users_behind(&known).await {
                    Ok(behind) => {
                        if !is_requested {
                            metrics::counter!(crate::metrics::LIVE_MISSED_NOTIFICATIONS_TOTAL)
                                .increment(behind.len() as u64);
                        }
                        let woken = some
                            .iter()
                            .filter(|feed| behind.contains(feed.state.uid.as_str()));
                        woken.for_each(|feed| feed.state.subscription.waker.wake());
                    }
                    Err(error) => {
                        tracing::debug!(error = %error, "could not poll for missed changes of lists")
                    }
                }
            }
        }
    }

    /// Returns the feeds that have subscribers.
    fn running(&self) -> Vec<Arc<Feed>> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|_, feed| feed.strong_count() > 0);
        feeds.values().filter_map(Weak::upgrade).collect()
    }
}
