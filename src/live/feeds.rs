//! Live changes of users' lists: one feed for each user with subscribers, whatever their number.
//!
//! A feed syncs from its own version to the current one and sends the answer to all its
//! subscribers. A subscriber starts to listen to the feed and then syncs once from *its* own
//! version. An event covers the versions `since..version`: a subscriber inside that range applies
//! it, and one behind `since` has missed an event and syncs again. So no change is lost between the
//! first sync and the feed, or by slow subscribers.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::{FutureExt, Stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::message_feeds::{MessageFeedRequest, MessageFeeds};
use crate::budget;
use crate::bus::{NotificationBus, Subscription};
use crate::conversation::{SyncAnswer, SyncRequest, sync, sync_under_lock};
use crate::error::Error;
use crate::model::{ChannelRef, ChannelType, Message, Uid, Version};
use crate::services::Services;

/// The minimum average interval of a user's events, so that a busy group does not cost a sync for
/// each of its messages; short bursts are allowed.
const MIN_EVENT_INTERVAL: Duration = Duration::from_millis(100);
const EVENT_BURST: u32 = 10;
/// Number of events that a subscriber may be behind before it has to sync.
const EVENT_BUFFER: usize = 16;
/// Maximum size of an event that is kept for subscribers.
const MAX_EVENT_BYTES: usize = 128 * 1024;
/// The version of a feed without an up-to-date subscriber so far.
const UNINITIALISED: i64 = -1;
/// Delays after failures of the database, doubled each time.
const RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

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

/// The feed of one user.
#[derive(Debug)]
struct Feed {
    state: Arc<FeedState>,
    task: AbortHandle,
}

#[derive(Debug)]
struct FeedState {
    uid: Uid,
    subscription: Subscription,
    events: broadcast::Sender<Arc<Event>>,
    /// The version that the last event brought its receivers to.
    version: AtomicI64,
    initialised: Notify,
    /// The largest number of messages that a subscriber wants.
    msg_count: AtomicU32,
    /// Whether the subscription has all of the user's channels.
    ready: watch::Sender<bool>,
}

/// The changes between two versions.
#[derive(Debug)]
struct Event {
    since: Version,
    /// `None` if it is too large to be kept; subscribers sync instead.
    answer: Option<SyncAnswer>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
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
    /// first event always comes, even without changes. Transient failures of the database are
    /// retried; any other failure ends the stream.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        uid: Uid,
        version: Version,
        msg_count: u32,
    ) -> impl Stream<Item = Result<SyncAnswer, Error>> + Send + use<> {
        let feed = self.feed(&uid, msg_count);
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

    fn feed(self: &Arc<Self>, uid: &Uid, msg_count: u32) -> Arc<Feed> {
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
            let task = tokio::spawn(run(Arc::clone(self), Arc::clone(&state))).abort_handle();
            let feed = Arc::new(Feed { state, task });
            feeds.insert(uid.clone(), Arc::downgrade(&feed));
            feed
        });
        feed.state.msg_count.fetch_max(msg_count, Ordering::Relaxed);
        feed
    }

    async fn sync_once(&self, request: &SyncRequest) -> Result<SyncAnswer, Error> {
        let _user_permit = budget::turn().await;
        let _permit = self.sync_permits.acquire().await;
        let mut answer = sync(&self.core.conversations, request).await?;
        if !answer.has_more {
            answer.sort_by_activity();
        }
        Ok(answer)
    }

    /// Wakes feeds that are behind: at an interval, because invalidations can be lost, and at once
    /// after an invalidation for everybody.
    pub(crate) async fn poll(&self, interval: Duration) {
        loop {
            let is_requested = tokio::select! {
                () = tokio::time::sleep(interval) => false,
                () = self.bus.everybody.notified() => true,
            };
            self.message_feeds.wake_outdated().await;
            let feeds = self.all();
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

    fn all(&self) -> Vec<Arc<Feed>> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|_, feed| feed.strong_count() > 0);
        feeds.values().filter_map(Weak::upgrade).collect()
    }
}

impl FeedState {
    /// Subscribes to the channels of an answer. A message that arrived after the sync and before
    /// the subscription woke no subscriber, so the feed syncs again. Person channels are covered by
    /// the subscription to the user.
    fn watch_new_channels(&self, answer: &SyncAnswer) {
        let is_person = |channel: &ChannelRef| channel.channel_type == ChannelType::PERSON;
        let shown = answer.conversations.iter().map(|item| &item.conversation);
        let shown = shown
            .filter(|shown| !is_person(&shown.channel_ref))
            .map(|shown| shown.channel_pk);
        let (stays, gone): (Vec<_>, Vec<_>) = answer
            .removed
            .iter()
            .filter(|removed| !is_person(&removed.channel_ref))
            .partition(|removed| removed.is_member);
        let is_news = self
            .subscription
            .add_channels(shown.chain(stays.into_iter().map(|removed| removed.channel_pk)));
        self.subscription
            .remove_channels(gone.into_iter().map(|removed| removed.channel_pk));
        if is_news {
            self.subscription.waker.wake();
        }
    }

    /// Sets the feed's first version, which comes from the first subscriber that is up to date.
    fn initialise(&self, version: Version) {
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

/// Repeats `work` until it succeeds or fails permanently.
pub(super) async fn retry_transient<T, Work: Future<Output = Result<T, Error>>>(
    mut work: impl FnMut() -> Work,
) -> Result<T, Error> {
    let mut delay = RETRY_DELAY;
    loop {
        match work().await {
            Err(error) if error.is_transient() => {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_RETRY_DELAY);
            }
            result => return result,
        }
    }
}

/// The task of a feed. It ends with the last subscriber. After a failure that is not transient the
/// subscribers sync themselves and get the error from that.
async fn run(feeds: Arc<Feeds>, state: Arc<FeedState>) {
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
        // Invalidations up to now are covered by the following sync.
        let _ = state.subscription.waker.notified().now_or_never();
        if let Err(error) = advance(&feeds, &state).await {
            error.log();
            // No change is lost: the next invalidation or the poll retries.
        }
    }
}

/// Brings the subscribers from the feed's version to the current one.
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
        state.watch_new_channels(&answer);
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
        let is_news =
            !answer.conversations.is_empty() || !answer.removed.is_empty() || answer.reset;
        state.version.store(version.0, Ordering::Relaxed);
        if is_news || version != since {
            // Sending fails only if there are no subscribers.
            let answer = (answer.bytes() <= MAX_EVENT_BYTES).then_some(answer);
            let _ = state.events.send(Arc::new(Event { since, answer }));
        }
        if !has_more {
            return Ok(());
        }
    }
}

/// The state of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubscriberState {
    /// Behind the feed: it has to sync.
    CatchingUp {
        /// Whether this is the first sync, whose answer is always sent.
        is_first: bool,
    },
    /// Up to date with the feed.
    Live,
    /// Ended after an error.
    Closed,
}

#[derive(Debug)]
struct Subscriber {
    feeds: Arc<Feeds>,
    feed: Arc<Feed>,
    events: broadcast::Receiver<Arc<Event>>,
    version: Version,
    msg_count: u32,
    state: SubscriberState,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Result<SyncAnswer, Error>> {
        loop {
            match self.state {
                SubscriberState::CatchingUp { is_first } => {
                    match retry_transient(|| self.sync_once()).await {
                        Ok(answer) => {
                            let is_news = answer.reset
                                || answer.version != self.version
                                || !answer.conversations.is_empty()
                                || !answer.removed.is_empty();
                            self.version = answer.version;
                            self.state = if answer.has_more {
                                SubscriberState::CatchingUp { is_first: false }
                            } else {
                                SubscriberState::Live
                            };
                            self.feed.state.watch_new_channels(&answer);
                            if !answer.has_more {
                                self.feed.state.initialise(answer.version);
                            }
                            if is_news || is_first {
                                return Some(Ok(answer));
                            }
                        }
                        Err(error) => {
                            self.state = SubscriberState::Closed;
                            return Some(Err(error));
                        }
                    }
                }
                SubscriberState::Live => match self.events.recv().await {
                    Ok(event) => match &event.answer {
                        Some(news)
                            if news.reset
                                || event.since <= self.version && self.version < news.version =>
                        {
                            let answer = news.since(self.version, self.msg_count);
                            self.version = answer.version;
                            return Some(Ok(answer));
                        }
                        Some(_) if self.version >= event.since => {}
                        _ => self.state = SubscriberState::CatchingUp { is_first: false },
                    },
                    Err(RecvError::Lagged(_)) => {
                        self.state = SubscriberState::CatchingUp { is_first: false }
                    }
                    Err(RecvError::Closed) => return None,
                },
                SubscriberState::Closed => return None,
            }
        }
    }

    async fn sync_once(&self) -> Result<SyncAnswer, Error> {
        // From now on every change wakes the feed.
        let mut ready = self.feed.state.ready.subscribe();
        let _ = ready.wait_for(|ready| *ready).await;
        let mut request = SyncRequest::new(self.feed.state.uid.clone());
        request.version = self.version;
        request.msg_count = self.msg_count;
        request.first = Some(self.feeds.core.base.limits.page_size as usize);
        self.feeds.sync_once(&request).await
    }
}
