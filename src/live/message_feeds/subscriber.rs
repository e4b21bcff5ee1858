//! One subscriber of a feed: an open chat of a user.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::feed::{MessageFeed, NewMessages};
use super::{MAX_EVENT_BYTES, MessageFeeds, lock};
use crate::error::Error;
use crate::live::retry::retry_transient;
use crate::message::{AnswerSizeLimit, HistoryRequest, list_history};
use crate::model::{ChannelKey, ChannelRef, Message, Seq, Uid};

/// Registers a subscriber of a feed; dropping it unregisters.
#[derive(Debug)]
pub(super) struct ViewerRegistration {
    pub(super) feed: Arc<MessageFeed>,
    uid: Uid,
}

impl ViewerRegistration {
    pub(super) fn register(feed: Arc<MessageFeed>, uid: Uid) -> Self {
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
pub(super) enum MessageSubscriberState {
    /// Behind the feed: it reads messages by itself.
    CatchingUp,
    /// Up to date with the feed.
    Live,
    /// Ended: the user left the channel, or there was an error.
    Closed,
}

#[derive(Debug)]
pub(super) struct MessageSubscriber {
    pub(super) feeds: Arc<MessageFeeds>,
    pub(super) channel: ChannelRef,
    pub(super) key: ChannelKey,
    pub(super) viewer: ViewerRegistration,
    pub(super) events: broadcast::Receiver<Arc<NewMessages>>,
    pub(super) after: Seq,
    pub(super) next: std::vec::IntoIter<Message>,
    pub(super) state: MessageSubscriberState,
}

impl MessageSubscriber {
    pub(super) async fn next(&mut self) -> Option<Result<Message, Error>> {
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
        let is_ahead = event.to > self.after;
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
            None if is_ahead => self.state = MessageSubscriberState::CatchingUp,
            None => {}
        }
    }

    /// Reads a page of messages above `after`.
    async fn catch_up(&self) -> Result<CatchUpPage, Error> {
        let row = self
            .feeds
            .find_conversation(&self.viewer.uid, &self.key)
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
            last.unwrap_or_default().max(row.last_seq)
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
