//! One subscriber of a feed: a device of the user.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Feeds;
use super::feed::{Event, Feed};
use crate::conversation::{SyncAnswer, SyncRequest};
use crate::error::Error;
use crate::live::retry::retry_transient;
use crate::model::Version;

/// The state of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriberState {
    /// Behind the feed: a sync is needed.
    CatchingUp {
        /// True if this is the first sync, whose answer is always sent.
        is_first: bool,
    },
    /// Up to date with the feed.
    Live,
    /// Ended after an error.
    Closed,
}

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) feeds: Arc<Feeds>,
    pub(super) feed: Arc<Feed>,
    pub(super) events: broadcast::Receiver<Arc<Event>>,
    pub(super) version: Version,
    pub(super) msg_count: u32,
    pub(super) state: SubscriberState,
}

impl Subscriber {
    pub(super) async fn next(&mut self) -> Option<Result<SyncAnswer, Error>> {
        loop {
            match self.state {
                SubscriberState::CatchingUp { is_first } => {
                    match retry_transient(|| self.sync_once()).await {
                        Ok(answer) => {
                            let has_changes = answer.reset
                                || answer.version != self.version
                                || !answer.conversations.is_empty()
                                || !answer.removed.is_empty();
                            self.version = answer.version;
                            self.state = if answer.has_more {
                                SubscriberState::CatchingUp { is_first: false }
                            } else {
                                SubscriberState::Live
                            };
                            self.feed.state.update_channels(&answer);
                            if !answer.has_more {
                                self.feed.state.initialise(answer.version);
                            }
                            if has_changes || is_first {
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
                        Some(answer)
                            if answer.reset
                                || event.since <= self.version && self.version < answer.version =>
                        {
                            let answer = answer.since(self.version, self.msg_count);
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
        // Waits until every change wakes the feed.
        let mut ready = self.feed.state.ready.subscribe();
        let _ = ready.wait_for(|ready| *ready).await;
        let mut request = SyncRequest::new(self.feed.state.uid.clone());
        request.version = self.version;
        request.msg_count = self.msg_count;
        request.first = Some(self.feeds.core.base.limits.page_size as usize);
        self.feeds.sync_once(&request).await
    }
}
