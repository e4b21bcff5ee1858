//! New messages of open chats: one feed for each channel with subscribers, whatever their number.
//!
//! A feed reads each message once and sends it to all subscribers, with the range of messages that
//! each user may see. A subscriber starts to listen to the feed and then reads the messages above
//! its own position once. An event covers the messages `since..=to`: a subscriber inside that range
//! applies it, and one behind `since` reads again.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::AbortHandle;

use super::feeds::retry_transient;
use crate::bus::Subscription;
use crate::error::Error;
use crate::message::{AnswerSizeLimit, HistoryRequest, list_after, list_history};
use crate::model::{ChannelKey, ChannelPk, ChannelRef, ConversationRow, Message, Seq, Uid};
use crate::services::Services;

/// Number of events that a subscriber may be behind before it has to read by itself.
const EVENT_BUFFER: usize = 16;
/// Approximate size of the messages of one event: several are kept for slow subscribers.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// A subscription to a channel's new messages.
#[derive(Clone, Debug)]
pub(crate) struct MessageFeedRequest {
    /// The user who subscribes.
    pub(crate) uid: Uid,
    /// The channel.
    pub(crate) channel: ChannelRef,
    /// Begins above this seq; `None` begins with messages sent from now on.
    pub(crate) after: Option<Seq>,
}

/// All feeds of open chats on this server.
#[derive(Debug)]
pub(super) struct MessageFeeds {
    core: Arc<Services>,
    feeds: Mutex<HashMap<ChannelPk, Weak<MessageFeed>>>,
    /// How long to wait for more messages before an event is sent.
    debounce: Duration,
    /// Limits concurrent reads, shared with the feeds of lists.
    sync_permits: Arc<Semaphore>,
}

/// The feed of one channel.
#[derive(Debug)]
struct MessageFeed {
    state: Arc<MessageFeedState>,
    task: AbortHandle,
}

#[derive(Debug)]
struct MessageFeedState {
    channel_id: ChannelPk,
    key: ChannelKey,
    subscription: Subscription,
    /// The subscribed users, with their number of subscriptions.
    viewers: Mutex<HashMap<Uid, usize>>,
    /// The seq up to which messages were sent to subscribers.
    published_seq: AtomicI64,
    events: broadcast::Sender<Arc<NewMessages>>,
}

/// New messages of a channel.
#[derive(Debug)]
struct NewMessages {
    /// There are no messages between this seq and `to` other than `messages`.
    since: Seq,
    /// The seq of the last message.
    to: Seq,
    messages: Vec<Message>,
    /// The messages that each user may see, read after `messages`.
    visibility: HashMap<Uid, Visibility>,
}

#[derive(Clone, Debug)]
struct Visibility {
    seqs: RangeInclusive<Seq>,
    is_member: bool,
}

impl Visibility {
    fn of(row: &ConversationRow) -> Self {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MessageFeeds {
    pub(super) fn new(
        core: Arc<Services>,
        debounce: Duration,
        sync_permits: Arc<Semaphore>,
    ) -> Self {
        Self {
            core,
            feeds: Mutex::default(),
            debounce,
            sync_permits,
        }
    }

    /// Streams messages in ascending order of seq, until the user leaves the channel. Late
    /// messages, below a seq that was sent already, are not included.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the user is not in the channel.
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        request: MessageFeedRequest,
    ) -> Result<impl Stream<Item = Result<Message, Error>> + Send + use<>, Error> {
        self.core.base.check_conversations_on()?;
        let key = ChannelKey::new(&request.uid, &request.channel);
        let row = self
            .find(&request.uid, &key)
            .await?
            .filter(ConversationRow::is_member)
            .ok_or(Error::NotFound("conversation"))?;
        let feed = self.feed(&row);
        let viewer = ViewerRegistration::register(feed, request.uid.clone());
        let events = viewer.feed.state.events.subscribe();
        let after = match request.after {
            Some(after) => after,
            // The row is read again, because messages before the subscription may have been missed.
            None => {
                self.find(&request.uid, &key)
                    .await?
                    .ok_or(Error::NotFound("conversation"))?
                    .last_seq
            }
        };
        let subscriber = MessageSubscriber {
            feeds: Arc::clone(self),
            channel: request.channel,
            key,
            viewer,
            events,
            after,
            next: Vec::new().into_iter(),
            state: if request.after.is_some() {
                MessageSubscriberState::CatchingUp
            } else {
                MessageSubscriberState::Live
            },
        };
        Ok(futures_util::stream::unfold(
            subscriber,
            |mut subscriber| async move { Some((subscriber.next().await?, subscriber)) },
        ))
    }

    async fn find(&self, uid: &Uid, key: &ChannelKey) -> Result<Option<ConversationRow>, Error> {
        let _permit = self.sync_permits.acquire().await;
        Ok(self
            .core
            .base
            .store
            .find_without_counts(&[(uid, key)])
            .await?
            .pop()
            .map(|(_, row)| row))
    }

    fn feed(self: &Arc<Self>, row: &ConversationRow) -> Arc<MessageFeed> {
        let mut feeds = lock(&self.feeds);
        let known = feeds.get(&row.channel_id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let state = Arc::new(MessageFeedState {
                channel_id: row.channel_id,
                key: row.key.clone(),
                subscription: Subscription::for_users(&self.core.base.bus),
                viewers: Mutex::default(),
                published_seq: AtomicI64::new(row.last_seq),
                events: broadcast::Sender::new(EVENT_BUFFER),
            });
            state.subscription.add_channels([row.channel_id]);
            let task = tokio::spawn(run(Arc::clone(self), Arc::clone(&state))).abort_handle();
            let feed = Arc::new(MessageFeed { state, task });
            feeds.insert(row.channel_id, Arc::downgrade(&feed));
            feed
        })
    }

    /// Wakes feeds that missed an invalidation or whose users left the channel, with one read for
    /// all of them.
    pub(super) async fn wake_outdated(&self) {
        let feeds: HashMap<ChannelPk, Arc<MessageFeed>> = {
            let mut feeds = lock(&self.feeds);
            feeds.retain(|_, feed| feed.strong_count() > 0);
            feeds
                .iter()
                .filter_map(|(id, feed)| Some((*id, feed.upgrade()?)))
                .collect()
        };
        metrics::gauge!(crate::metrics::LIVE_CHATS).set(feeds.len() as f64);
        let viewers: Vec<(Uid, ChannelPk)> = feeds
            .iter()
            .flat_map(|(id, feed)| {
                lock(&feed.state.viewers)
                    .keys()
                    .map(|uid| (uid.clone(), *id))
                    .collect::<Vec<_>>()
            })
            .collect();
        if viewers.is_empty() {
            return;
        }
        let pairs: Vec<(&Uid, ChannelPk)> = viewers.iter().map(|(uid, id)| (uid, *id)).collect();
        match self.core.base.store.find_member_views(&pairs).await {
            Ok(views) => {
                for view in views {
                    let Some(feed) = feeds.get(&view.row.channel_id) else {
                        continue;
                    };
                    if !view.row.is_member() {
                        feed.state
                            .subscription
                            .waker
                            .wake_for_user(view.uid.as_str());
                    } else if view.row.last_seq > feed.state.published_seq.load(Ordering::Relaxed) {
                        feed.state.subscription.waker.wake();
                    }
                }
            }
            Err(error) => tracing::debug!(error = %error, "could not poll for missed messages"),
        }
    }
}

/// The task of a feed. It ends with the last subscriber.
async fn run(feeds: Arc<MessageFeeds>, state: Arc<MessageFeedState>) {
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

/// Sends all new messages, and to the changed users the range that they may see from now on.
async fn advance(
    feeds: &MessageFeeds,
    state: &MessageFeedState,
    changed_users: &HashSet<String>,
) -> Result<(), Error> {
    let mut changed_users = Some(changed_users);
    loop {
        let since = state.published_seq.load(Ordering::Relaxed);
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
        // This is read after the messages: users who left before a message was stored must not get
        // it.
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
            .map(|view| (view.uid, Visibility::of(&view.row)))
            .collect();
        let to = messages.last().map_or(since, |message| message.seq);
        state.published_seq.store(to, Ordering::Relaxed);
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

/// Registers a subscriber of a feed; dropping it unregisters.
#[derive(Debug)]
struct ViewerRegistration {
    feed: Arc<MessageFeed>,
    uid: Uid,
}

impl ViewerRegistration {
    fn register(feed: Arc<MessageFeed>, uid: Uid) -> Self {
        let mut viewers = lock(&feed.state.viewers);
        *viewers.entry(uid.clone()).or_default() += 1;
        feed.state.subscription.add_user(&uid);
        drop(viewers);
        Self { feed, uid }
    }
}

impl Drop for ViewerRegistration {
    fn drop(&mut self) {
        let mut viewers = lock(&self.feed.state.viewers);
        let Some(number) = viewers.get_mut(&self.uid) else {
            return;
        };
        *number -= 1;
        if *number == 0 {
            viewers.remove(&self.uid);
            self.feed.state.subscription.remove_user(&self.uid);
        }
    }
}

/// The state of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageSubscriberState {
    /// Behind the feed: it has to read by itself.
    CatchingUp,
    /// Up to date with the feed.
    Live,
    /// Ended: the user left the channel, or there was an error.
    Closed,
}

#[derive(Debug)]
struct MessageSubscriber {
    feeds: Arc<MessageFeeds>,
    channel: ChannelRef,
    key: ChannelKey,
    viewer: ViewerRegistration,
    events: broadcast::Receiver<Arc<NewMessages>>,
    after: Seq,
    next: std::vec::IntoIter<Message>,
    state: MessageSubscriberState,
}

impl MessageSubscriber {
    async fn next(&mut self) -> Option<Result<Message, Error>> {
        loop {
            if let Some(message) = self.next.next() {
                return Some(Ok(message));
            }
            match self.state {
                MessageSubscriberState::CatchingUp => {
                    match retry_transient(|| self.catch_up()).await {
                        Ok(page) => {
                            self.after = page.after;
                            self.next = page.messages.into_iter();
                            self.state = page.state;
                        }
                        Err(error) => {
                            self.state = MessageSubscriberState::Closed;
                            return Some(Err(error));
                        }
                    }
                }
                MessageSubscriberState::Live => match self.events.recv().await {
                    Ok(event) => self.apply(&event),
                    Err(RecvError::Lagged(_)) => self.state = MessageSubscriberState::CatchingUp,
                    Err(RecvError::Closed) => return None,
                },
                MessageSubscriberState::Closed => return None,
            }
        }
    }

    fn apply(&mut self, event: &NewMessages) {
        let is_news = event.to > self.after;
        match event.visibility.get(&self.viewer.uid) {
            Some(_) if event.since > self.after => self.state = MessageSubscriberState::CatchingUp,
            Some(visibility) => {
                let is_new = |message: &&Message| {
                    message.seq > self.after && visibility.seqs.contains(&message.seq)
                };
                self.next = event
                    .messages
                    .iter()
                    .filter(is_new)
                    .cloned()
                    .collect::<Vec<_>>()
                    .into_iter();
                self.after = self.after.max(event.to);
                if !visibility.is_member {
                    self.state = MessageSubscriberState::Closed;
                }
            }
            // The event is about other users, or it was created before this subscriber was
            // registered.
            None if is_news => self.state = MessageSubscriberState::CatchingUp,
            None => {}
        }
    }

    /// Reads a page of messages above `after`.
    async fn catch_up(&self) -> Result<CatchUpPage, Error> {
        let row = self
            .feeds
            .find(&self.viewer.uid, &self.key)
            .await?
            .ok_or(Error::NotFound("conversation"))?;
        let state = if row.is_member() {
            MessageSubscriberState::Live
        } else {
            MessageSubscriberState::Closed
        };
        if row.last_seq <= self.after {
            return Ok(CatchUpPage {
                messages: Vec::new(),
                after: self.after,
                state,
            });
        }
        let request = HistoryRequest {
            uid: self.viewer.uid.clone(),
            channel: self.channel.clone(),
            after: Some(self.after),
            before: None,
            limit: self.feeds.core.base.limits.page_size,
            newest: false,
            as_service: false,
        };
        let _permit = self.feeds.sync_permits.acquire().await;
        let bytes =
            AnswerSizeLimit::new(MAX_EVENT_BYTES.min(self.feeds.core.base.limits.answer_bytes));
        let page = list_history(&self.feeds.core.messages, &request, &bytes).await?;
        // If no message is visible, all messages up to the head were deleted, or were sent after
        // the user left.
        let last = page.messages.last().map(|message| message.seq);
        let after = if page.has_next {
            last.unwrap_or(row.last_seq)
        } else {
            last.unwrap_or(0).max(row.last_seq)
        };
        Ok(CatchUpPage {
            messages: page.messages,
            after,
            state: if page.has_next {
                MessageSubscriberState::CatchingUp
            } else {
                state
            },
        })
    }
}

/// A page that a subscriber read by itself.
struct CatchUpPage {
    messages: Vec<Message>,
    after: Seq,
    state: MessageSubscriberState,
}
