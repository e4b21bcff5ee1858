//! New messages of open chats: one feed for each channel with subscribers, whatever their number.
//!
//! A feed reads each message once and sends it to all subscribers, with the range of messages that
//! each user may see. A subscriber first listens to the feed and then reads the messages above its
//! own position once. An event covers the messages after `since` up to `to`: a subscriber inside
//! that range applies it; a subscriber below `since` reads again.

mod feed;
mod subscriber;

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::{Semaphore, broadcast};

use self::feed::{MessageFeed, MessageFeedState};
use self::subscriber::{MessageSubscriber, MessageSubscriberState, ViewerRegistration};
use crate::bus::Subscription;
use crate::error::Error;
use crate::model::{ChannelKey, ChannelPk, ChannelRef, ConversationRow, Message, Seq, Uid};
use crate::services::Services;

/// Number of events that are buffered for a slow subscriber; after more events it has to read by
/// itself.
const EVENT_BUFFER: usize = 16;
/// Approximate maximum size of the messages of one event.
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
            .find_conversation(&request.uid, &key)
            .await?
            .filter(ConversationRow::is_member)
            .ok_or(Error::NotFound("conversation"))?;
        let feed = self.get_or_start(&row);
        let viewer = ViewerRegistration::register(feed, request.uid.clone());
        let events = viewer.feed.state.events.subscribe();
        let after = match request.after {
            Some(after) => after,
            // The row is read again, because messages before the subscription may have been missed.
            None => {
                self.find_conversation(&request.uid, &key)
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

    async fn find_conversation(
        &self,
        uid: &Uid,
        key: &ChannelKey,
    ) -> Result<Option<ConversationRow>, Error> {
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

    /// Returns the channel's feed, which is started if necessary.
    fn get_or_start(self: &Arc<Self>, row: &ConversationRow) -> Arc<MessageFeed> {
        let mut feeds = lock(&self.feeds);
        let known = feeds.get(&row.channel_id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let state = Arc::new(MessageFeedState {
                channel_id: row.channel_id,
                key: row.key.clone(),
                subscription: Subscription::for_users(&self.core.base.bus),
                viewers: Mutex::default(),
                published_seq: AtomicI64::new(row.last_seq.0),
                events: broadcast::Sender::new(EVENT_BUFFER),
            });
            state.subscription.add_channels([row.channel_id]);
            let task =
                tokio::spawn(feed::run_feed(Arc::clone(self), Arc::clone(&state))).abort_handle();
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
                    } else if view.row.last_seq > feed.state.published_seq() {
                        feed.state.subscription.waker.wake();
                    }
                }
            }
            Err(error) => tracing::debug!(error = %error, "could not poll for missed messages"),
        }
    }
}
